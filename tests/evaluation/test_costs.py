"""Costs by hand, and decisions against a search over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from kindsight.errors import UsageError
from kindsight.evaluation.costs import cheapest_decisions, evaluate_costs

MISSED_TUMOUR = np.array([[0.0, 1.0], [50.0, 0.0]])  # rows: healthy, tumour


def test_numbers_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.99, 0.01], [0.8, 0.2], [0.3, 0.7]])
    targets = np.array([0, 0, 1, 1])
    found = evaluate_costs(probabilities, targets, MISSED_TUMOUR)
    # predicted: healthy, healthy, healthy (a tumour: 50), tumour
    assert found.mean == pytest.approx(50 / 4)
    # "healthy" costs 5, 0.5, 10, 35; "tumour" 0.9, 0.99, 0.8, 0.3: only the second stays healthy
    assert cheapest_decisions(probabilities, MISSED_TUMOUR).tolist() == [1, 0, 1, 1]
    assert found.cheapest == pytest.approx(1 / 4)
    assert found.saving == pytest.approx(49 / 4)
    assert (found.images, found.changed) == (4, 2)
    assert found.interval[0] < found.mean < found.interval[1]


def test_equal_costs_are_decided_as_the_most_probable_class():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 200).astype(np.float32)
    for costs in (1 - np.eye(5), np.zeros((5, 5)), 7.0 - 3 * np.eye(5)):
        decided = cheapest_decisions(probabilities, costs)
        assert (decided == probabilities.argmax(1)).all()
    tied = np.array([[0.5, 0.5, 0.0]])
    assert cheapest_decisions(tied, 1 - np.eye(3)).tolist() == [0]


def test_the_decision_has_the_lowest_expected_cost():
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(4), 50)
    costs = generator.uniform(0, 10, (4, 4))
    decided = cheapest_decisions(probabilities, costs)
    for row, choice in zip(probabilities, decided, strict=True):
        expected = [sum(row[i] * costs[i, j] for i in range(4)) for j in range(4)]
        assert choice == int(np.argmin(expected))


def test_accuracy_is_a_cost():
    generator = np.random.default_rng(2)
    probabilities = generator.dirichlet(np.ones(3), 100)
    targets = generator.integers(0, 3, 100)
    found = evaluate_costs(probabilities, targets, 1 - np.eye(3))
    assert found.mean == pytest.approx((probabilities.argmax(1) != targets).mean())
    assert found.saving == 0 and found.saving_interval == (0.0, 0.0)


@pytest.mark.parametrize("costs", [np.zeros((2, 3)), np.full((2, 2), np.nan)])
def test_other_matrices_are_refused(costs):
    with pytest.raises(UsageError, match="`costs` must be"):
        evaluate_costs(np.array([[0.5, 0.5]]), np.array([0]), costs)


def test_one_image_has_no_interval():
    found = evaluate_costs(np.array([[0.5, 0.5]]), np.array([0]), 1 - np.eye(2))
    assert found.to_dict()["interval"] == [None, None]
