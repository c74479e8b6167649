"""The rule by which a candidate replaces the incumbent, by hand."""

import numpy as np
import pytest

from kindsight.training.held_out import is_clearly_better


def correct(*wrong):
    found = np.ones(20, bool)
    found[list(wrong)] = False
    return found


@pytest.mark.parametrize(
    ("log_loss", "wrong", "better"),
    [
        (0.29, (1, 2), True),
        (0.295, (1, 2), False),  # lower by less than 2%
        (0.2, (), True),
        (0.31, (), False),
        (0.3, (1, 2), False),
        (float("nan"), (), False),
        # Of three images that only one of the two classifies, it may be behind by one: 1 < √3.
        (0.29, (1, 5, 6), True),
        # It may not be behind by two of two, or one of one: 2 > √2, and 1 is not below √1.
        (0.1, (1, 2, 5, 6), False),
        (0.1, (1, 2, 5), False),
        (0.01, (1, 2, 5, 6, 7, 8), False),  # 4 > √4, whatever the log loss
    ],
)
def test_a_lower_log_loss_and_no_more_errors_than_chance_explains(log_loss, wrong, better):
    assert is_clearly_better(log_loss, 0.3, correct(*wrong), correct(1, 2)) is better


def test_without_paired_predictions_the_log_loss_decides():
    assert is_clearly_better(0.97, 1.0) and not is_clearly_better(0.985, 1.0)
    assert is_clearly_better(0.89, 1.0, margin=0.1) and not is_clearly_better(0.91, 1.0, margin=0.1)
    assert is_clearly_better(0.5, np.inf)
