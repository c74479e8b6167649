"""Each rule on evidence made by hand: the finding, its figures, and its silence."""

from __future__ import annotations

import numpy as np
import pytest
from made import CNN, curves, evidence, predictions

from kindsight.diagnosis import diagnose
from kindsight.diagnosis.evidence import (
    BatchNormEvidence,
    FrozenEstimate,
    InputEvidence,
    LabelEvidence,
    SourceEvidence,
    SplitPredictions,
)
from kindsight.diagnosis.significance import PRESET_RATES
from kindsight.runs.settings import TrainSettings

FALLING = [0.69, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02]
RISING = [0.55, 0.65, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0]


def codes(given):
    return [finding.code for finding in diagnose(given)]


def only(given, code):
    found = diagnose(given)
    assert found[0].code == code, [finding.code for finding in found]
    return found[0]


def overfitted(**values):
    history = curves(FALLING, RISING, [0.69, 0.6, 0.6, 0.7, 0.9, 1, 1.2, 1.4, 1.6, 1.8],
                     [0.5, 0.6, 0.6, 0.6, 0.62, 0.6, 0.6, 0.6, 0.6, 0.6])  # fmt: skip
    parts = {"train": predictions(400, 400), "validation": predictions(200, 120, 0.6)}
    return evidence(history=history, predictions=parts, **values)


def test_overfitting_is_judged_by_the_last_epochs():
    found = only(overfitted(), "KD101")
    # Means of the last three epochs: 99% and 60%.
    assert found.figure["training_accuracy"] == pytest.approx(0.99)
    assert found.figure["held_out_accuracy"] == pytest.approx(0.6)
    assert found.figure["gap"] == pytest.approx(0.39) and 0.28 < found.figure["gap_low"] < 0.31
    # In epochs 2 to 4 the mean gap is 11.7 points, whose 95% interval is above 0.
    assert found.figure["epoch"] == 3
    assert found.remedies[0] == {"augment": "classic", "dropout": 0.5}
    assert "--dropout 0.5" in found.commands[0] and "--augment classic" in found.commands[0]
    assert found.commands[-1] == "kindsight train photos"
    assert "pretrained backbone, the default of kindsight train, usually" in found.message


def test_overfitting_is_named_although_the_saved_epoch_has_no_gap():
    history = overfitted().history
    parts = {"train": predictions(400, 250, 0.6), "validation": predictions(200, 124, 0.6)}
    assert "KD101" in codes(evidence(history=history, predictions=parts))


def test_a_measured_frozen_head_is_named_only_where_it_is_better():
    better = overfitted(frozen=FrozenEstimate(190, 200))
    assert "reaches 95% accuracy on the same 200 images" in diagnose(better)[0].message
    equal = overfitted(frozen=FrozenEstimate(125, 200))
    assert "pretrained" not in diagnose(equal)[0].message


def test_a_frozen_head_is_not_called_overfitted():
    parts = {"train": predictions(400, 400), "validation": predictions(200, 160, 0.8)}
    assert codes(evidence(kind="frozen", settings={"data": "photos"}, predictions=parts)) == []


def test_underfitting_names_the_setting():
    settings = {**CNN, "l2": 0.3}
    history = curves([0.69] * 10, [0.5] * 10, [0.69] * 10, [0.5] * 10)
    parts = {"train": predictions(400, 210, 0.52), "validation": predictions(200, 100, 0.52)}
    found = only(evidence(history=history, predictions=parts, settings=settings), "KD102")
    assert "L2 penalty of 0.3 holds it back" in found.message
    assert found.remedies == ({"l2": 1e-4},)


def test_label_smoothing_lowers_the_confidence_not_the_accuracy():
    settings = {**CNN, "label_smoothing": 0.8}
    history = curves([0.63] * 10, [0.7] * 10, [0.63] * 10, [0.7] * 10, rate=[0.001] * 9 + [1e-5])
    parts = {"train": predictions(400, 280, 0.7), "validation": predictions(200, 140, 0.7)}
    assert codes(evidence(history=history, predictions=parts, settings=settings)) == []


@pytest.mark.parametrize("loss", [[0.8, np.nan, np.nan], [900.0, 0.7, 0.7], [0.9, 0.72, 0.71]])
def test_a_learning_rate_that_is_too_high(loss):
    history = curves(loss, [0.5, 0.5, 0.5], [0.69] * 3, [0.5] * 3, rate=0.05)
    parts = {"train": predictions(400, 200, 0.5), "validation": predictions(200, 100, 0.5)}
    settings = {**CNN, "learning_rate": 0.05}
    found = only(evidence(history=history, predictions=parts, settings=settings), "KD103")
    assert found.remedies == ({"learning_rate": 0.001},)
    assert found.commands[1].endswith("--learning-rate 0.05 --find-learning-rate")
    assert found.severity == ("error" if np.isnan(loss[1]) else "warning")


def test_the_learning_rate_of_a_preset_is_not_too_high():
    settings = TrainSettings("photos", model="small-cnn", preset="modern").to_dict()
    assert settings["learning_rate"] == PRESET_RATES["modern", settings["optimizer"]]
    # The first epoch of 96 images of three classes; guessing has a loss of 1.1.
    loss, accuracy = [2.9, 1.57, 0.44, 0.16, 0.1, 0.1], [0.4, 0.5, 0.8, 0.95, 1.0, 1.0]
    history = curves(loss, accuracy, [1.1, 0.8, 0.6, 0.2, 0.1, 0.1], accuracy, rate=0.006)
    parts = {
        "train": predictions(900, 890, 0.99, 3), "validation": predictions(300, 296, 0.99, 3),
    }  # fmt: skip
    assert codes(evidence(k=3, history=history, predictions=parts, settings=settings)) == []
    high = evidence(k=3, history=history, predictions=parts,
                    settings={**settings, "learning_rate": 0.1})  # fmt: skip
    assert only(high, "KD103").remedies[0] == {"learning_rate": 0.006}


def test_a_learning_rate_that_is_too_low():
    loss = [2.303 - 0.001 * epoch for epoch in range(10)]
    history = curves(loss, [0.12] * 10, loss, [0.11] * 10, rate=1e-5)
    parts = {"train": predictions(400, 48, 0.2, 10), "validation": predictions(200, 24, 0.2, 10)}
    settings = {**CNN, "learning_rate": 1e-5}
    found = only(evidence(k=10, history=history, predictions=parts, settings=settings), "KD104")
    assert found.remedies == ({"learning_rate": 0.001},)
    assert found.figure["last_loss"] == pytest.approx(2.294)


def test_a_training_that_was_stopped_too_early():
    settings = {**CNN, "epochs": 4}
    history = curves([0.69, 0.6, 0.5, 0.4], [0.5, 0.6, 0.7, 0.8],
                     [0.68, 0.59, 0.5, 0.41], [0.5, 0.6, 0.7, 0.78])  # fmt: skip
    parts = {"train": predictions(400, 320, 0.8), "validation": predictions(200, 156, 0.78)}
    found = only(evidence(history=history, predictions=parts, settings=settings), "KD105")
    # The validation loss falls less: from 0.50 to 0.41.
    assert found.figure["decline_per_epoch"] == pytest.approx(0.18)
    assert found.remedies == ({"epochs": 20, "patience": 5},)
    annealed = curves(history.loss, history.accuracy, history.val_loss, history.val_accuracy,
                      rate=[1e-3, 8e-4, 4e-4, 1e-5])  # fmt: skip
    assert codes(evidence(history=annealed, predictions=parts, settings=settings)) == []


def test_three_epochs_without_progress_are_too_few():
    """A network begins to learn after a while: three epochs are no plateau, ten are."""
    parts = {"train": predictions(560, 300, 0.55), "validation": predictions(140, 76, 0.55)}

    def found(epochs):
        flat = curves([0.72] + [0.69] * (epochs - 1), [0.52] * epochs,
                      [0.69] * epochs, [0.54] * epochs)  # fmt: skip
        settings = {**CNN, "epochs": epochs}
        return diagnose(evidence(560, history=flat, predictions=parts, settings=settings))

    (finding,) = found(3)
    assert finding.code == "KD105" and "too few epochs" in finding.message
    assert finding.remedies[0]["epochs"] == 20
    assert [finding.code for finding in found(10)] == ["KD106"]


def test_a_plateau():
    loss = [0.69, 0.6] + [0.5, 0.501] * 5
    history = curves(loss, [0.6, 0.7] + [0.75] * 10, loss, [0.6, 0.7] + [0.74] * 10, rate=0.003)
    parts = {"train": predictions(400, 300, 0.75), "validation": predictions(200, 148, 0.75)}
    settings = {**CNN, "learning_rate": 0.003}
    found = only(evidence(history=history, predictions=parts, settings=settings), "KD106")
    assert found.figure["epoch"] == 3 and found.figure["flat_epochs"] == 10
    assert found.remedies[0] == {"schedule": "cosine", "learning_rate": 0.001}


def test_a_validation_split_that_is_too_small():
    parts = {"train": predictions(400, 360, 0.9), "validation": predictions(20, 16, 0.8)}
    found = only(evidence(kind="frozen", predictions=parts), "KD107")
    # Wilson: 16 of 20 is 58.4% to 91.9%; 1.96^2 * 0.8 * 0.2 / 0.05^2 = 245.9.
    assert found.figure["accuracy_low"] == pytest.approx(0.584, abs=1e-3)
    assert found.figure["needed_images"] == 246
    assert found.remedies == ({"validation": 133},)  # a third of the 400 images
    large = {**parts, "validation": predictions(100, 80, 0.8)}
    assert codes(evidence(kind="frozen", predictions=large)) == []


def test_a_class_that_is_never_predicted():
    parts = {"train": predictions(400, 400), "validation": predictions(200, 200)}
    for part in parts.values():
        part.probabilities[:] = [0.95, 0.05]
    rare = {"train": np.array([380, 20])}
    for name, (many, few) in {"train": (380, 20), "validation": (190, 10)}.items():
        parts[name].targets[:] = np.repeat([0, 1], [many, few])
    found = only(evidence(predictions=parts, counts=rare, kind="frozen"), "KD108")
    assert found.figure["images"] == 30 and found.figure["recall"] == 0
    assert found.remedies == ({"class_weight": "balanced"},)


@pytest.mark.parametrize(("rare", "reported"), [(7, True), (70, False)])
def test_a_rare_class_needs_few_images_to_be_named(rare, reported):
    """1 of 12 is at most 30% with 90% confidence, 42% with 99%; half of the others' is 37.5%."""
    targets = np.repeat(np.arange(5), [12, 40, 40, 40, 40])
    predicted = targets.copy()
    predicted[1:12] = 1
    for k in range(1, 5):
        predicted[12 + 40 * k - 10 : 12 + 40 * k] = k % 4 + 1
    parts = {"validation": SplitPredictions(
        tuple(map(str, range(172))), targets, 0.05 + 0.75 * np.eye(5)[predicted]
    )}  # fmt: skip
    given = evidence(
        k=5, kind="frozen", predictions=parts,
        counts={"train": np.array([rare, 70, 70, 70, 70])},
    )  # fmt: skip
    assert ("KD108" in codes(given)) is reported


@pytest.mark.parametrize(("confident", "reported"), [(30, True), (5, False)])
def test_wrong_labels_are_mistakes_at_high_confidence(confident, reported):
    labels = LabelEvidence(600, 90, confident, 0.5, 0, 1, ("a.jpg", "b.jpg"))
    parts = {"validation": predictions(200, 170, 0.85)}
    given = evidence(kind="frozen", settings={"data": "photos"}, predictions=parts, labels=labels)
    found = diagnose(given)
    assert [finding.code for finding in found] == ["KD109"] * reported
    if reported:
        assert found[0].figure["wrong_labels"] == pytest.approx(0.1)
        assert "a.jpg, b.jpg" in found[0].evidence
        assert found[0].commands == ("kindsight check photos --full",)


def test_leakage():
    parts = {"train": predictions(400, 400), "validation": predictions(200, 190, 0.95)}
    kept = evidence(kind="frozen", settings={**CNN, "leakage": "keep"}, predictions=parts,
                    leaking={"validation": 40})  # fmt: skip
    found = only(kept, "KD110")
    assert found.figure["leaking"] == 40 and found.remedies == ({"leakage": "drop"},)
    worse = {**parts, "test": predictions(200, 150, 0.75)}
    found = only(evidence(kind="frozen", predictions=worse), "KD110")
    assert found.figure["gap"] == pytest.approx(0.2)
    same = {"validation": predictions(200, 190, 0.93), "test": predictions(200, 182, 0.93)}
    assert codes(evidence(kind="frozen", predictions=same)) == []


@pytest.mark.parametrize(("correct", "reported"), [(285, True), (317, False)])
def test_a_test_accuracy_below_the_validation_accuracy(correct, reported):
    """89 against 79%, or 88%: certainly above zero, and at least five points."""
    parts = {"validation": predictions(168, 149, 0.89), "test": predictions(360, correct, 0.85)}
    assert ("KD110" in codes(evidence(kind="frozen", predictions=parts))) is reported


def test_miscalibration():
    parts = {"test": predictions(300, 270, 0.5 + 1e-3)}
    found = only(evidence(kind="frozen", settings={"data": "photos", "validation": 0.0},
                          predictions=parts), "KD111")  # fmt: skip
    assert found.figure["ece"] == pytest.approx(0.399) and found.figure["noise_level"] < 0.1
    assert found.remedies == ({"validation": 0.2},)


def test_high_accuracy_on_the_split_that_chose_the_epoch_is_luck():
    """Underconfident on validation images, but not on the training images."""
    lucky = {"train": predictions(400, 272, 0.68), "validation": predictions(200, 170, 0.66)}
    assert codes(evidence(kind="frozen", predictions=lucky)) == []
    smoothed = {**lucky, "train": predictions(400, 345, 0.68)}
    assert codes(evidence(kind="frozen", predictions=smoothed)) == ["KD111"]


def test_a_class_that_follows_from_its_source():
    parts = {"validation": predictions(200, 190, 0.95)}
    source = SourceEvidence(0.97, 0.94, 0.99, 0.5, "image side (median 90 pixels for 'cat')")
    found = only(evidence(kind="frozen", predictions=parts, source=source), "KD112")
    assert "image side (median 90 pixels for 'cat')" in found.message
    weak = SourceEvidence(0.6, 0.55, 0.65, 0.5, "")
    assert codes(evidence(kind="frozen", predictions=parts, source=weak)) == []


def test_one_class_that_follows_from_its_source():
    parts = {"validation": predictions(200, 190, 0.95)}
    source = SourceEvidence(1.0, 0.9, 1.0, 0.5, "file format ('PNG' for 100% of 'cat')", "cat")
    found = only(evidence(kind="frozen", predictions=parts, source=source), "KD112")
    assert "distinguish the class 'cat' from all others with 100% balanced" in found.message


def test_augmentation_that_is_too_strong():
    history = curves([0.68] * 10, [0.55] * 10, [0.6] * 10, [0.7] * 10)
    parts = {"train": predictions(400, 290, 0.72), "validation": predictions(200, 140, 0.7)}
    settings = {**CNN, "augment": "strong"}
    found = only(evidence(history=history, predictions=parts, settings=settings), "KD113")
    assert found.figure["gap"] == pytest.approx(0.175)
    assert found.remedies == ({"augment": "classic"},)
    mild = {**parts, "train": predictions(400, 236, 0.6), "validation": predictions(200, 118, 0.59)}
    plain = {**settings, "augment": "classic"}
    assert "KD113" not in codes(evidence(history=history, predictions=mild, settings=plain))


def test_batch_normalisation_that_differs_in_inference_mode():
    history = curves(FALLING[:4], [0.7, 0.8, 0.85, 0.9], [0.7] * 4, [0.5, 0.52, 0.5, 0.51])
    parts = {"train": predictions(400, 208, 0.52), "validation": predictions(200, 104, 0.52)}
    settings = {**CNN, "batch_norm": True, "batch_size": 64}
    given = evidence(history=history, predictions=parts, settings=settings,
                     batch_norm=BatchNormEvidence(64, 28))  # fmt: skip
    found = only(given, "KD114")
    assert found.severity == "error" and found.figure["inference_accuracy"] == 0.52
    assert found.remedies[0] == {"batch_norm": False}


@pytest.mark.parametrize(
    ("inputs", "reported"),
    [
        (InputEvidence(0.4, 1.0, 1 / 255, 0.0016), True),
        (InputEvidence(60.0, 255.0, 1 / 255 / 255, 60 / 255 / 255, user_file=True), True),
        (InputEvidence(60.0, 255.0, 1 / 255, 60 / 255), False),
        (InputEvidence(8.0, 60.0, 1 / 255, 8 / 255), False),  # dark images
    ],
)
def test_input_that_is_scaled_twice(inputs, reported):
    parts = {"validation": predictions(200, 190, 0.95)}
    found = codes(evidence(kind="frozen", predictions=parts, inputs=inputs))
    assert found == ["KD115"] * reported


def test_nothing_is_said_of_the_examples_of_noise():
    # 90.9% against 92.3% on 78 images; 52% confidence; 68% after training with augmentation.
    calibrated = {"validation": predictions(78, 72, 0.909)}
    assert codes(evidence(kind="frozen", predictions=calibrated)) == []
    unsure = {"validation": predictions(200, 150, 0.52)}
    assert "KD109" not in codes(evidence(kind="frozen", predictions=unsure))
    history = curves([0.69, 0.66, 0.63, 0.6], [0.55, 0.6, 0.63, 0.66], [0.66, 0.64, 0.61, 0.6],
                     [0.58, 0.62, 0.66, 0.68])  # fmt: skip
    parts = {"train": predictions(400, 276, 0.69), "validation": predictions(200, 136, 0.68)}
    settings = {**CNN, "augment": "classic", "epochs": 4}
    assert "KD113" not in codes(evidence(history=history, predictions=parts, settings=settings))
