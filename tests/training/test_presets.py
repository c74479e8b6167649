"""Presets of the small CNN: their defaults, what is given beside them, sizes by the images."""

import numpy as np
import pytest

from kindsight import ImageClassifier, ImageDataset
from kindsight.models.networks.small_cnn import ModernCNN, SmallCNN
from kindsight.runs.settings import TrainSettings
from kindsight.training.network.fit import for_dataset
from kindsight.training.network.settings import OF_PRESETS, PRESETS, input_size
from kindsight.training.trainer import make_training

MODERN = {"model": "small-cnn", "preset": "modern"}


def images(side, count=5, width=None):
    return ImageDataset.from_arrays(
        np.zeros((count, side, width or side, 3), np.uint8), ["a", "b"] * (count // 2) + ["a"]
    )


def test_modern_is_another_network_with_other_defaults():
    course, modern = make_training({"model": "small-cnn"}), make_training(MODERN)
    assert course.network() == SmallCNN() and course.preset == "course"
    assert isinstance(modern.network(), ModernCNN) and modern.faults() == []
    (phase,) = modern.plan().phases
    assert (phase.optimizer, phase.schedule) == ("adamw", "one-cycle")
    assert phase.augment.changes_images and not phase.augment.horizontal_flip
    assert "batch normalisation" in modern.words(modern.network().layers(3), 3)


def test_what_is_given_takes_precedence():
    given = {"epochs": 15, "filters": (4, 6), "augment": "none", "size": 20, "dropout": 0.0}
    modern = make_training({**MODERN, **given})
    assert modern.network() == ModernCNN((20, 20), (4, 6)) and modern.epochs == 15
    # Learning rate and weight decay belong to the preset's optimizer.
    sgd = make_training({**MODERN, "optimizer": "sgd"})
    assert sgd.faults() == [] and sgd.learning_rate is None and sgd.weight_decay is None


def test_batch_normalisation_cannot_be_left_out():
    (fault,) = make_training({**MODERN, "batch_norm": False}).faults()
    assert fault.startswith("`batch_norm` must be true with the preset modern")


@pytest.mark.parametrize(("side", "size"), [(5, 16), (28, 28), (64, 64), (90, 64), (500, 96)])
def test_size_is_that_of_small_images(side, size):
    assert input_size(images(side, width=side + 30)) == size
    assert for_dataset(make_training(MODERN), images(side)).spec().size == (size, size)


def test_a_given_size_stays():
    given = make_training({**MODERN, "size": 40})
    course = make_training({"model": "small-cnn"})
    assert for_dataset(given, images(9)) is given and for_dataset(course, images(9)) is course


def test_settings_are_saved_in_full_and_follow_another_preset(tmp_path):
    settings = TrainSettings("photos", **MODERN, seed=4)
    assert settings.epochs == PRESETS["modern"]["epochs"] and settings.size is None
    settings.write(tmp_path / "modern.toml")
    assert TrainSettings.from_toml(tmp_path / "modern.toml") == settings
    course = TrainSettings("photos", model="small-cnn", seed=4)
    assert TrainSettings.from_toml(tmp_path / "modern.toml", preset="course") == course
    assert settings.with_options(preset="course") == course
    assert course.with_options(preset="modern", epochs=3).optimizer == "adamw"


def test_saved_settings_take_another_optimizer(tmp_path):
    TrainSettings("photos", **MODERN).write(tmp_path / "modern.toml")
    again = TrainSettings.from_toml(tmp_path / "modern.toml", optimizer="sgd")
    assert again == TrainSettings("photos", **MODERN, optimizer="sgd")
    assert again == TrainSettings("photos", **MODERN).with_options(optimizer="sgd")
    TrainSettings("photos", **MODERN, learning_rate=0.5).write(tmp_path / "own.toml")
    own = TrainSettings.from_toml(tmp_path / "own.toml", optimizer="sgd")
    assert own.learning_rate == 0.5 and own.weight_decay is None


def test_a_parameter_at_the_course_default_is_given_in_python():
    assert all(ImageClassifier().get_params()[name] is None for name in OF_PRESETS)
    classifier = ImageClassifier(**MODERN, epochs=15)
    assert classifier.epochs == 15 and "epochs=15" in repr(classifier)
