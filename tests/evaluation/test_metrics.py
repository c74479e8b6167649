"""Scores against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from kindsight.digest import Digests, content_digest
from kindsight.errors import UsageError
from kindsight.evaluation import (
    Evaluation,
    confusion,
    distinct_images,
    evaluate,
    expected_calibration_error,
    reliability,
    wilson_interval,
)

KEYS = [
    "images",
    "copies",
    "accuracy",
    "accuracy_interval",
    "balanced_accuracy",
    "macro_f1",
    "log_loss",
    "ece",
    "roc_auc",
    "average_precision",
    "top_k_accuracy",
    "kappa",
    "mcc",
    "top_k",
    "ece_if_calibrated",
    "ece_limit",
    "intervals",
    "classes",
    "confusion",
]

# five images: a, a, a, b, b; the third and the fifth are wrong
HAND = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]])
HAND_TARGETS = np.array([0, 0, 0, 1, 1])


def drawn(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(k), n)
    targets = np.where(
        generator.random(n) < 0.6, probabilities.argmax(1), generator.integers(0, k, n)
    )
    return probabilities, targets


def test_numbers_by_hand():
    found = evaluate(HAND, HAND_TARGETS, ["a", "b"])
    assert found.images == 5
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.confusion.tolist() == [[2, 1], [1, 1]]
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    a, b = found.classes
    assert (a.precision, a.recall, a.f1, a.support) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    assert (b.precision, b.recall, b.f1, b.support) == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2))
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)
    by_hand = -(math.log(0.9) + math.log(0.8) + math.log(0.3) + math.log(0.6) + math.log(0.4)) / 5
    assert found.log_loss == pytest.approx(by_hand)


def test_reliability_by_hand():
    # confidences 0.9 right, 0.8 right, 0.7 wrong, 0.6 right, 0.6 wrong; five bins of 0.2:
    # (0.4, 0.6] holds the two 0.6, (0.6, 0.8] holds 0.7 and 0.8, (0.8, 1] holds 0.9
    table = reliability(HAND, HAND_TARGETS, bins=5)
    assert table.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert table.count.tolist() == [0, 0, 2, 2, 1]
    assert np.isnan(table.confidence[:2]).all()
    assert np.isnan(table.accuracy[:2]).all()
    assert table.confidence[2:] == pytest.approx([0.6, 0.75, 0.9])
    assert table.accuracy[2:] == pytest.approx([0.5, 0.5, 1.0])
    # (2 * 0.1 + 2 * 0.25 + 1 * 0.1) / 5
    assert table.ece == pytest.approx(0.16)
    assert expected_calibration_error(HAND, HAND_TARGETS, 5) == pytest.approx(0.16)
    assert evaluate(HAND, HAND_TARGETS, "ab").ece == pytest.approx(
        # fifteen bins part 0.9, 0.8, 0.7 and the pair of 0.6
        (0.1 + 0.2 + 0.7 + 2 * 0.1) / 5
    )


@pytest.mark.parametrize(("n", "k", "seed"), [(40, 2, 0), (300, 5, 1), (1000, 23, 2)])
def test_agrees_with_scikit_learn(n, k, seed):
    probabilities, targets = drawn(n, k, seed)
    targets[:k] = np.arange(k)  # every class present, so that both leave out none
    found = evaluate(probabilities, targets, [f"class {i}" for i in range(k)])
    predicted = probabilities.argmax(1)
    assert found.accuracy == pytest.approx(theirs.accuracy_score(targets, predicted))
    assert found.balanced_accuracy == pytest.approx(
        theirs.balanced_accuracy_score(targets, predicted)
    )
    assert found.macro_f1 == pytest.approx(theirs.f1_score(targets, predicted, average="macro"))
    assert found.log_loss == pytest.approx(theirs.log_loss(targets, probabilities))
    assert (found.confusion == theirs.confusion_matrix(targets, predicted)).all()
    scores = theirs.precision_recall_fscore_support(targets, predicted, zero_division=np.nan)
    for i, name in enumerate(("precision", "recall", "f1", "support")):
        ours = [getattr(score, name) for score in found.classes]
        assert ours == pytest.approx(scores[i], nan_ok=True)


def test_class_without_images_or_predictions():
    probabilities = np.array([[0.7, 0.2, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.6, 0.3, 0.1, 0.0]])
    found = evaluate(probabilities, np.array([0, 0, 1]), ["a", "b", "c", "d"])
    a, b, c, d = found.classes
    assert (a.precision, a.recall, a.f1) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    # b has an image but was never predicted
    assert math.isnan(b.precision)
    assert (b.recall, b.f1) == (0.0, 0.0)
    # c was predicted but has no image
    assert (c.precision, c.f1, c.support, c.recall_interval) == (0.0, 0.0, 0, (0.0, 1.0))
    assert math.isnan(c.recall)
    # d has neither
    assert all(math.isnan(value) for value in (d.precision, d.recall, d.f1))
    assert found.balanced_accuracy == pytest.approx(1 / 4)
    assert found.macro_f1 == pytest.approx(1 / 4)


def test_log_loss_is_clipped():
    found = evaluate(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]), ["a", "b"])
    assert found.log_loss == pytest.approx(-math.log(1e-15))


def test_first_of_equals_is_predicted():
    found = evaluate(np.full((2, 2), 0.5), np.array([0, 1]), ["a", "b"])
    assert found.confusion.tolist() == [[1, 0], [1, 0]]


def test_dict_has_exactly_the_keys_and_is_json():
    probabilities = np.array([[0.7, 0.2, 0.1]])
    found = evaluate(probabilities, np.array([0]), ["a", "b", "c"]).to_dict()
    assert list(found) == KEYS
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    first, _, last = found["classes"]
    assert (first["name"], first["precision"], first["recall"], first["f1"]) == ("a", 1.0, 1.0, 1.0)
    assert first["support"] == 1
    assert first["roc_auc"] is None  # there is no image of another class
    assert last["recall"] is None


def test_dict_round_trip():
    probabilities, targets = drawn(200, 4, 3)
    before = evaluate(probabilities, targets, ["a", "b", "c", "d"])
    after = Evaluation.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after.to_dict() == before.to_dict()
    assert after.classes == before.classes
    assert after.intervals == before.intervals
    assert after.calibration == before.calibration


def test_a_dict_of_an_older_version_is_read():
    before = evaluate(HAND, HAND_TARGETS, ["a", "b"])
    old = {
        "images": 5,
        "copies": 0,
        "accuracy": 0.6,
        "accuracy_interval": [0.23, 0.88],
        "balanced_accuracy": 0.58,
        "macro_f1": 0.58,
        "log_loss": before.log_loss,
        "ece": before.ece,
        "classes": [
            {"name": "a", "precision": 0.6, "recall": 0.6, "f1": 0.6, "support": 3},
            {"name": "b", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        ],
        "confusion": [[2, 1], [1, 1]],
    }
    after = Evaluation.from_dict(old)
    assert (after.accuracy, after.kappa, after.mcc) == (before.accuracy, before.kappa, before.mcc)
    assert after.classes[0].f1_interval == before.classes[0].f1_interval
    assert math.isnan(after.roc_auc) and math.isnan(after.calibration.limit)
    assert set(after.intervals) == {"accuracy"} and not after.is_miscalibrated
    assert Evaluation.from_dict(after.to_dict()).to_dict() == after.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"confusion": [[1, 2], [3]]},
        {"confusion": [[1, 2], [3, -4]]},
        {"confusion": [[1, 0.5], [1, 1]]},
        {"confusion": [[1, 2, 3], [1, 2, 3]]},
        {"confusion": "many"},
        {"confusion": [[10**400, 0], [0, 1]]},
        {"images": 4},
        {"images": 0, "confusion": [[0, 0], [0, 0]]},
        {"classes": [{"precision": 1}, {"name": "b"}]},
        {"classes": None},
        {"ece": "low"},
        {"intervals": [1, 2]},
        {"intervals": {"ece": [0.1]}},
        {"intervals": {"ece": "ab"}},
        {"roc_auc": "high"},
        {"top_k": [5]},
    ],
)
def test_damaged_dict_is_refused(change):
    data = evaluate(HAND, HAND_TARGETS, ["a", "b"]).to_dict() | change
    with pytest.raises(UsageError):
        Evaluation.from_dict(data)


def test_missing_key_is_named():
    data = evaluate(HAND, HAND_TARGETS, ["a", "b"]).to_dict()
    del data["log_loss"]
    with pytest.raises(UsageError, match="log_loss"):
        Evaluation.from_dict(data)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0
    # n of n: the lower end is n / (n + z^2)
    assert wilson_interval(10, 10)[0] == pytest.approx(10 / (10 + 1.959963984540054**2))
    assert wilson_interval(50, 100, 0.5) == pytest.approx(
        # z = 0.674490; 0.5 +- z / (2 sqrt(n + z^2))
        (0.5 - 0.6744897502 / 2 / math.sqrt(100.4549364), 0.5 + 0.0336483),
        abs=1e-5,
    )


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(counts):
    successes, n = counts
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    other_low, other_high = wilson_interval(n - successes, n)
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_confusion_counts_every_pair(pairs):
    targets, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    table = confusion(targets, predicted, 4)
    for row in range(4):
        for column in range(4):
            assert table[row, column] == pairs.count((row, column))


@given(st.integers(1, 80), st.integers(1, 6), st.integers(0, 99), st.integers(1, 30))
def test_reliability_keeps_every_image(n, k, seed, bins):
    probabilities, targets = drawn(n, k, seed)
    table = reliability(probabilities.astype(np.float32), targets, bins)
    assert table.count.sum() == n
    filled = table.count > 0
    inside = (table.confidence[filled] >= table.edges[:-1][filled] - 1e-9) & (
        table.confidence[filled] <= table.edges[1:][filled] + 1e-9
    )
    assert inside.all()
    assert 0.0 <= table.ece <= 1.0


@pytest.mark.parametrize(
    ("probabilities", "targets", "classes"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), ["a", "b"]),
        (HAND, HAND_TARGETS[:3], ["a", "b"]),
        (HAND, HAND_TARGETS, ["a", "b", "c"]),
        (HAND, HAND_TARGETS, ["a", "a"]),
        (HAND, HAND_TARGETS - 1, ["a", "b"]),
        (HAND, HAND_TARGETS + 1, ["a", "b"]),
        (HAND, HAND_TARGETS.astype(float), ["a", "b"]),
        (HAND * 2, HAND_TARGETS, ["a", "b"]),
        (np.full((5, 2), np.nan), HAND_TARGETS, ["a", "b"]),
        (np.tile([1.5, -0.5], (5, 1)), HAND_TARGETS, ["a", "b"]),
        (HAND[0], HAND_TARGETS[:1], ["a", "b"]),
    ],
)
def test_wrong_input_is_refused(probabilities, targets, classes):
    with pytest.raises(UsageError, match="got "):
        evaluate(probabilities, targets, classes)


def test_wrong_counts_are_refused():
    for successes, n, confidence in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)):
        with pytest.raises(UsageError):
            wilson_interval(successes, n, confidence)
    with pytest.raises(UsageError):
        confusion(np.array([0, 1]), np.array([0]), 2)
    with pytest.raises(UsageError):
        reliability(HAND, HAND_TARGETS, 0)


def test_import_is_light():
    code = (
        "import sys, kindsight.evaluation;"
        "print([m for m in ('tensorflow', 'keras', 'scipy', 'sklearn', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_copies_count_once():
    """13 files that are 6 images: by hand, and as the 6 images alone."""
    digests = ["a"] * 5 + ["b"] * 3 + ["c", "d", "e", "e", "f"]
    targets = np.array([0] * 8 + [0, 1, 1, 1, 1])
    # "a" is wrong, all others are right.
    first = np.array([0.3] * 5 + [0.9] * 3 + [0.8, 0.1, 0.2, 0.2, 0.4])
    probabilities = np.stack([first, 1 - first], axis=1)
    scores = evaluate(probabilities, targets, ["x", "y"], digests)
    assert (scores.images, scores.copies) == (6, 7)
    assert scores.accuracy == 5 / 6
    assert scores.accuracy_interval == wilson_interval(5, 6)
    assert [score.support for score in scores.classes] == [3, 3]
    assert scores.classes[0].recall == 2 / 3
    probability_of_label = np.array([0.3, 0.9, 0.8, 0.9, 0.8, 0.6])
    assert scores.log_loss == pytest.approx(-np.log(probability_of_label).mean())
    alone = evaluate(probabilities[[0, 5, 8, 9, 10, 12]], targets[[0, 5, 8, 9, 10, 12]], ["x", "y"])
    assert alone.copies == 0
    assert {**alone.to_dict(), "copies": 7} == scores.to_dict()
    assert Evaluation.from_dict(scores.to_dict()).copies == 7


def test_one_image_with_two_labels_counts_for_each():
    counted = distinct_images(["a", "a", "a", None, None], np.array([0, 1, 0, 0, 0]))
    assert counted.tolist() == [True, True, False, True, True]
    with pytest.raises(UsageError, match="same length"):
        distinct_images(["a"], np.array([0, 1]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2))))
def test_packed_digests_count_as_texts_do(rows):
    names = [content_digest(bytes([image])) for image, _ in rows]
    targets = np.array([target for _, target in rows], np.int64)
    packed = np.array([list(bytes.fromhex(name)) for name in names], np.uint8).reshape(-1, 16)
    found = distinct_images(Digests(packed), targets)
    assert found.tolist() == distinct_images(names, targets).tolist()
    seen = set()
    assert found.tolist() == [not (row in seen or seen.add(row)) for row in rows]
