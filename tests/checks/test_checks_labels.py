"""KS401 to KS405: confident learning by hand, planted label errors, duplicates, outliers."""

from __future__ import annotations

import numpy as np
import pytest
from check_images import file_of, run, scene
from fake_context import context
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.checks.context import principal_components
from kindsight.checks.rules import labels as label_errors
from kindsight.checks.rules.labels import (
    confident_joint,
    estimate_joint,
    find_label_errors,
    pairwise_accuracy,
    thresholds,
)
from kindsight.checks.rules.outliers import neighbour_distances, tail_limit

# Duplicates with different labels.


def test_identical_files_with_two_labels(make_context):
    jpeg = file_of(scene(1))
    files = {
        "cat/a.jpg": jpeg,
        "dog/a.jpg": jpeg,
        "dog/b.jpg": jpeg,
        "cat/c.jpg": scene(2),
        "cat/d.jpg": scene(2),
        "dog/e.jpg": scene(3),
    }
    result = run("KS401", make_context(files))
    (finding,) = result.findings
    assert finding.paths == ("cat/a.jpg", "dog/a.jpg", "dog/b.jpg")
    assert finding.suggestion == "dog"
    assert finding.message == "Identical files are labelled 'cat', 'dog'."
    assert finding.severity == "error" and result.examined == 6


def test_no_or_equal_labels():
    assert run("KS401", context([None, None], digest=["x", "x"])).state == "not applicable"
    assert run("KS401", context(["a", "a"], digest=["x", "x"])).state == "passed"


def test_duplicates_with_two_labels(make_context):
    files = {f"cat/{n}.jpg": scene(n, 200, 260) for n in range(10, 20)}
    a, b = scene(1, 200, 260), scene(2, 200, 260)
    files |= {"cat/a.jpg": a, "dog/a.png": a, "cat/b.jpg": b, "dog/b.jpg": b[:, ::-1]}
    files |= {"cat/c.jpg": file_of(scene(3)), "dog/c.jpg": file_of(scene(3))}
    result = run("KS402", make_context(files))
    found = {finding.paths: finding.severity for finding in result.findings}
    assert found == {("cat/a.jpg", "dog/a.png"): "error", ("cat/b.jpg", "dog/b.jpg"): "warning"}
    assert all(finding.suggestion is None for finding in result.findings)


# Confident learning, with numbers worked out by hand.

P = np.array(
    [
        [0.9, 0.1],
        [0.8, 0.2],
        [0.7, 0.3],
        [0.2, 0.8],  # labelled 0, confidently 1
        [0.1, 0.9],
        [0.3, 0.7],
        [0.4, 0.6],
        [0.6, 0.4],
    ]
)
TARGETS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


@pytest.fixture
def small_classes_allowed(monkeypatch):
    monkeypatch.setattr(label_errors, "FEWEST_OF_CLASS", 2)


def test_thresholds_are_mean_self_confidences(small_classes_allowed):
    """(0.9 + 0.8 + 0.7 + 0.2) / 4 and (0.9 + 0.7 + 0.6 + 0.4) / 4."""
    assert thresholds(P, TARGETS).tolist() == pytest.approx([0.65, 0.65])


def test_the_confident_joint_counts_probabilities_above_the_threshold(small_classes_allowed):
    """Rows 6 (0.6) and 7 (0.6) reach neither."""
    counts = confident_joint(P, TARGETS, thresholds(P, TARGETS))
    assert counts.tolist() == [[3, 1], [0, 2]]
    assert estimate_joint(counts, TARGETS).tolist() == [[3, 1], [0, 4]]


def test_the_most_probable_class_above_its_threshold_counts():
    counts = confident_joint(np.array([[0.3, 0.4, 0.3]]), np.array([0]), np.array([0.1, 0.2, 0.3]))
    assert counts.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_labels_without_confident_images_are_taken_to_be_correct():
    counts = np.array([[0, 0], [1, 3]])
    given = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    assert estimate_joint(counts, given).tolist() == [[3, 0], [2, 6]]


def test_the_joint_determines_the_number_of_suspects(small_classes_allowed):
    """One image labelled 0 is a 1: the one with the largest margin."""
    suspects = find_label_errors(P, TARGETS)
    assert suspects.rows.tolist() == [3] and suspects.suggested.tolist() == [1]
    assert suspects.margin.tolist() == pytest.approx([0.2 - 0.8]) and suspects.examined == 8


def test_improbable_labels_are_suspects_whatever_the_joint(small_classes_allowed):
    """Class 1 has a mean probability of 0.96, so that row 3 is confidently of no class."""
    p = np.array([[0.96, 0.04]] * 3 + [[0.045, 0.955], [0.06, 0.94]] + [[0.04, 0.96]] * 4)
    given = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert confident_joint(p, given, thresholds(p, given)).tolist() == [[3, 0], [0, 4]]
    assert find_label_errors(p, given).rows.tolist() == [3]


def test_small_classes_are_neither_examined_nor_suggested():
    p = np.array([[0.9, 0.1]] * 12 + [[0.1, 0.9]] * 3)
    labels = np.array([0] * 12 + [1] * 2 + [0])
    suspects = find_label_errors(p, labels)
    assert suspects.rows.tolist() == [] and suspects.examined == 13


@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(10, 60))
@settings(max_examples=25, deadline=None)
def test_the_order_of_images_and_classes_does_not_matter(seed, classes, each):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    p = random.dirichlet(np.ones(classes), len(labels)) + 3 * np.eye(classes)[labels]
    wrong = random.choice(len(labels), 3, replace=False)
    labels = labels.copy()
    labels[wrong] = (labels[wrong] + 1) % classes
    p /= p.sum(axis=1, keepdims=True)
    order, names = random.permutation(len(labels)), random.permutation(classes)
    first = find_label_errors(p, labels)
    other = find_label_errors(p[order][:, np.argsort(names)], names[labels[order]])
    assert set(order[other.rows].tolist()) == set(first.rows.tolist())


def planted(n=200, wrong=6):
    """Two well-separated classes with some wrong labels."""
    random = np.random.default_rng(3)
    truth = np.repeat([0, 1], n // 2)
    own = random.beta(20, 1.5, n)
    p = np.where(truth[:, None] == [0, 1], own[:, None], 1 - own[:, None])
    labels = truth.copy()
    swapped = random.choice(n, wrong, replace=False)
    labels[swapped] = 1 - labels[swapped]
    return p, ["cat" if label == 0 else "dog" for label in labels], swapped


def test_probable_label_errors():
    p, labels, swapped = planted()
    result = run("KS403", context(labels, probabilities=p))
    assert {finding.rows[0] for finding in result.findings} == set(swapped.tolist())
    values = [finding.value for finding in result.findings]
    assert values == sorted(values) and result.examined == 200
    first = result.findings[0]
    given_label = labels[first.rows[0]]
    assert first.suggestion == ("dog" if given_label == "cat" else "cat")
    assert first.message.startswith(f"Labelled '{given_label}'; a classifier not trained on it")


def test_random_predictions_are_not_applicable():
    p = np.random.default_rng(0).dirichlet([1, 1], 100)
    result = run("KS403", context(["a", "b"] * 50, probabilities=p))
    assert result.state == "not applicable" and "do not separate these classes" in result.reason
    assert run("KS403", context(["a", "b"])).state == "not applicable"


# Outliers.


def test_neighbour_distances_by_hand():
    """On a line at 0, 1, 3 and 7: the second neighbours are 3, 2, 3 and 6 away."""
    points = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    assert neighbour_distances(points, 2).tolist() == pytest.approx([3, 2, 3, 6], abs=1e-3)


def test_the_limit_has_the_expected_number_of_false_alarms():
    """Of logarithms that fall off exponentially, 20,000 of them with one expected beyond."""
    random = np.random.default_rng(1)
    beyond = [
        int((d > tail_limit(d, 1.0)).sum())
        for d in (np.exp(random.exponential(0.3, 20_000)) for _ in range(60))
    ]
    assert 0.4 < np.mean(beyond) < 2.5
    assert tail_limit(np.ones(100), 1.0) == np.inf


def test_outliers():
    """Mixtures of five patterns and a little noise; two images of other patterns."""
    random = np.random.default_rng(5)
    vectors = random.uniform(1, 2, (300, 5)) @ random.uniform(0, 1, (5, 40))
    vectors += random.normal(0, 0.05, vectors.shape)
    vectors[[7, 123]] = random.uniform(0, 4, (2, 40))
    result = run("KS404", context(["a"] * 300, vectors=vectors))
    assert {finding.rows[0] for finding in result.findings[:2]} == {7, 123}
    assert len(result.findings) <= 3
    assert result.findings[0].value > 2 and result.examined == 300


def test_no_outliers_and_few_images():
    vectors = np.random.default_rng(6).normal(size=(300, 40))
    assert len(run("KS404", context(["a"] * 300, vectors=vectors)).findings) <= 2
    few = run("KS404", context(["a"] * 150, vectors=vectors[:150]))
    assert few.state == "not applicable"
    # Copies count once: 300 files, but 60 images.
    digests = [str(i % 60) for i in range(300)]
    assert run("KS404", context(["a"] * 300, vectors=vectors, digest=digests)).findings == ()


def test_principal_components_keep_the_variance():
    random = np.random.default_rng(7)
    plane = random.normal(size=(500, 3)).astype(np.float32)
    axes, _ = np.linalg.qr(random.normal(size=(20, 3)))
    lifted = plane @ axes.T.astype(np.float32) + 100  # far from 0: scaling to length 1 is linear
    space = principal_components(lifted, components=10)
    assert space.shape == (500, 10)
    assert np.square(space[:, 3:]).sum() < 0.02 * np.square(space).sum()


def test_principal_components_of_some_rows():
    vectors = np.random.default_rng(9).normal(size=(60, 5)).astype(np.float32)
    rows = np.arange(0, 60, 2)
    some = principal_components(vectors, rows=rows)
    np.testing.assert_array_equal(some, principal_components(vectors[rows]))


def test_blocks_have_equal_weight():
    random = np.random.default_rng(8)
    vectors = np.concatenate([random.normal(size=(50, 4)), 1e4 * random.normal(size=(50, 4))], 1)
    same = vectors.copy().astype(np.float32)
    same[:, 4:] /= 1e4
    blocks = (slice(0, 4), slice(4, 8))
    one, other = (principal_components(v.astype(np.float32), blocks) for v in (vectors, same))
    assert np.abs(one) == pytest.approx(np.abs(other), abs=1e-3)


# Near-identical classes.


def test_pairwise_accuracy_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.45, 0.45], [0.1, 0.2, 0.7]])
    right = pairwise_accuracy(p, np.array([0, 0, 1, 1]))
    # Of class 0, one of two is above class 1, one above 2; of class 1 both are above 0, and above
    # class 2 half of one.
    assert right.tolist() == [[0.5, 0.5, 0.5], [1.0, 0.5, 0.25], [1.0, 1.0, 1.0]]


def test_near_identical_classes():
    random = np.random.default_rng(9)
    labels = np.repeat([0, 1, 2], 60)
    p = random.dirichlet([1, 1, 1], 180)
    p[labels == 2] = [0.01, 0.01, 0.98]
    p[labels != 2, 2] = 0.0
    p /= p.sum(axis=1, keepdims=True)
    result = run("KS405", context(["one" if k == 0 else "other" if k == 1 else "z" for k in labels],
                                  probabilities=p))  # fmt: skip
    (finding,) = result.findings
    assert finding.paths == ("one", "other") and 0.35 < finding.value < 0.65
    assert result.examined == 3


def test_too_few_images_for_near_identical_classes():
    p = np.full((18, 2), 0.5)
    assert run("KS405", context(["a", "b"] * 9, probabilities=p)).state == "passed"
    assert run("KS405", context(["a", "b"])).state == "not applicable"
