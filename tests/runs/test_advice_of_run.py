"""The hint at the end of a training: what a time budget could bring."""

from types import SimpleNamespace

import numpy as np
import pytest

from kindsight import ImageDataset
from kindsight.runs.advice import FINE_TUNING, hint_of
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer

SETTINGS = TrainSettings("my photos/")


def fitted(side=32, images=1000, accuracy=0.9, **trainer):
    pixels = np.zeros((4, side, side + 10, 3), np.uint8)
    return SimpleNamespace(
        can_be_fine_tuned=True, training=FrozenTrainer(**trainer), rows=np.arange(images),
        dataset=ImageDataset.from_arrays(pixels, ["a", "b", "a", "b"]),
        head=SimpleNamespace(chosen=SimpleNamespace(accuracy=accuracy)),
    )  # fmt: skip


def test_a_network_from_scratch_is_named_for_many_small_images():
    said = hint_of(fitted(), SETTINGS, 250)
    assert "small (32 pixels) and many (1,000)" in said
    assert "90.0% accuracy in cross-validation" in said
    assert said.endswith("kindsight train 'my photos/' --budget 10m")


def test_the_command_keeps_the_options_of_the_training():
    settings = TrainSettings("photos", label_map="map.csv", validation=0.3, seed=2, run="one")
    said = hint_of(fitted(), settings, 250)
    assert "kindsight train photos --label-map map.csv --validation 0.3 --seed 2" in said
    assert said.endswith(" --budget 10m")


@pytest.mark.parametrize(
    "other",
    [{"side": 113}, {"images": 999}, {"accuracy": 0.97}, {"model": "efficientnet-lite2"}],
)
def test_elsewhere_a_budget_fine_tunes(other):
    assert hint_of(fitted(**other), SETTINGS, 250) == FINE_TUNING


def test_nothing_is_reported_without_data_to_judge():
    assert hint_of(fitted(), SETTINGS, 9) == ""
    assert hint_of(SimpleNamespace(can_be_fine_tuned=False), SETTINGS, 250) == ""
