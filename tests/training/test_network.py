"""Settings of the small CNN's training: defaults, invalid values, saved settings."""

import dataclasses
import re

import pytest

from kindsight.augment import Augment
from kindsight.errors import SettingsError
from kindsight.models.networks.small_cnn import SmallCNN
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import NetworkTrainer
from kindsight.training.trainer import foreign_options, make_training


def test_by_default_it_is_the_courses_network():
    training = NetworkTrainer()
    assert training.faults() == [] and training.network() == SmallCNN()
    assert training.spec().size == (150, 150) and training.spec().fit == "crop"
    (phase,) = training.plan().phases
    assert (phase.epochs, phase.batch_size, phase.optimizer) == (15, 20, "rmsprop")
    assert phase.augment == Augment() and training.plan().final_weights == "best"


def test_layers_and_sizes_in_every_form():
    training = NetworkTrainer(size=(40, 60), filters=[4], dense=9, batch_norm=True)
    assert training.network() == SmallCNN((40, 60), (4,), (9,), batch_norm=True)
    assert NetworkTrainer(size=40, dense=[]).network() == SmallCNN((40, 40), dense=())


def test_all_invalid_settings_are_reported_at_once():
    training = NetworkTrainer(
        seed=-1, resize="squeeze", filters=(0,), dropout=2, epochs=0, optimizer="sdg",
        augment="clasic", final_weights="first", class_weight="even", workers=0,
    )  # fmt: skip
    text = "\n".join(training.faults())
    for said in (
        "`class_weight` must be one of", "`resize` must be one of", "`seed` must be",
        "`workers` must be",
        "Did you mean classic?", "`filters` must be", "`dropout` must be", "`epochs` must be",
        "Did you mean 'sgd'?", "`final_weights` must be one of best, last",
    ):  # fmt: skip
        assert said in text, said
    with pytest.raises(SettingsError, match="epochs"):
        training.spec()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 0}, "`size` must be a whole number of pixels from 4 to 1024"),
        ({"size": (30,)}, "`size` must be"),
        ({"size": 12}, "`size` must be at least 22 pixels for 3 convolutions"),
        ({"filters": "16,32"}, "`filters` must be"),
        ({"filters": 3.5}, "`filters` must be 1 to 12 whole numbers"),
        ({"dense": (1, 2.5)}, "`dense` must be"),
        ({"augment": {"rotate": 3}}, "Did you mean 'rotation'?"),
        ({"compute_dtype": "half"}, "`compute_dtype` must be one of auto, float32, bfloat16"),
        ({"compute_dtype": "bfloat16", "batch_norm": True}, "with batch normalisation"),
        ({"model": "small-cn"}, "Did you mean 'small-cnn'?"),
    ],
)
def test_invalid_settings(given, message):
    assert message in "\n".join(NetworkTrainer(**given).faults())


@pytest.mark.parametrize("preset", ["course", "modern"])
@pytest.mark.parametrize("size", [4, 30, 150, 1024])
def test_advice_against_too_many_filters_can_be_followed(preset, size):
    def faults(count, side):
        network = NetworkTrainer(
            filters=(8,) * count, size=side, preset=preset, dense=(), pooling="average",
            batch_norm=preset == "modern",
        )  # fmt: skip
        return network.faults()

    for count in range(2, 13):
        if not (found := faults(count, size)):
            continue
        (fault,) = found
        most = int(re.search(r"fewer `filters` \(at most (\d+)\)", fault)[1])
        assert most < count and faults(most, size) == [] and faults(most + 1, size)
        needed = int(re.search(r"at least ([\d,]+) pixels", fault)[1].replace(",", ""))
        assert ("a larger `size`" in fault) == (needed <= 1024)
        if needed <= 1024:
            assert faults(count, needed) == [] and faults(count, needed - 1)


def test_all_settings_but_cache_and_workers_are_saved():
    names = {item.name for item in dataclasses.fields(NetworkTrainer)}
    full = NetworkTrainer(
        size=40, class_weight="balanced", learning_rate=0.1, momentum=0.5, patience=3,
        weight_decay=0.1, phases=[{"epochs": 3}], value_range=(0, 4095),
    ).to_dict()  # fmt: skip
    assert set(full) == names - {"cache", "workers", "device"}


def test_augmentation_is_saved_by_name_or_in_full(tmp_path):
    assert NetworkTrainer(augment="classic").to_dict()["augment"] == "classic"
    policy = Augment(rotation=7)
    policy.write(tmp_path / "mine.toml")
    for given in (policy, policy.to_dict(), str(tmp_path / "mine.toml")):
        assert NetworkTrainer(augment=given).to_dict()["augment"] == policy.to_dict()


def test_the_model_selects_the_trainer():
    assert isinstance(make_training({"model": "efficientnet-lite1"}), FrozenTrainer)
    made = make_training({"model": "small-cnn", "epochs": 3, "head": None, "seed": 2})
    assert made == NetworkTrainer(epochs=3, seed=2)
    assert isinstance(make_training({"model": "small_cnn"}), NetworkTrainer)
    assert isinstance(make_training({"model": []}), FrozenTrainer)


def test_options_of_another_trainer():
    assert foreign_options({"model": "small-cnn", "epochs": 3, "head": None}) == []
    (said,) = foreign_options({"model": "small-cnn", "head": "linear"})
    assert said.startswith("`head` applies only to a frozen backbone; ")
    (said,) = foreign_options({"model": "efficientnet-lite0", "epochs": 3, "patience": 2})
    assert said.startswith("`epochs`, `patience` apply only to a network")


# In the settings of a run ------------------------------------------------------------------------


def test_run_settings_are_restored_from_a_file(tmp_path):
    policy = Augment(rotation=7, scale=(0.9, 1.2))
    policy.write(tmp_path / "mine.toml")
    settings = TrainSettings(
        "photos", model="small-cnn", filters=(8, 4), dense=(), dropout=0.25, patience=3,
        augment=str(tmp_path / "mine.toml"), batch_norm=True, tensorboard="logs",
    )  # fmt: skip
    settings.write(tmp_path / "settings.toml")
    (tmp_path / "mine.toml").unlink()
    assert TrainSettings.from_toml(tmp_path / "settings.toml") == settings
    assert settings.training().policy() == policy
    assert settings.epochs == 15 and settings.head is None


def test_a_settings_file_can_be_used_for_another_kind_of_model(tmp_path):
    TrainSettings("photos", head="linear", seed=4).write(tmp_path / "frozen.toml")
    other = TrainSettings.from_toml(tmp_path / "frozen.toml", model="small-cnn", epochs=2)
    assert other == TrainSettings("photos", model="small-cnn", epochs=2, seed=4)
    other.write(tmp_path / "network.toml")
    back = TrainSettings.from_toml(tmp_path / "network.toml", model="efficientnet-lite0")
    assert back == TrainSettings("photos", seed=4)


def test_invalid_run_settings_are_reported_at_once():
    with pytest.raises(SettingsError) as caught:
        TrainSettings("photos", model="small-cnn", head="linear", epochs=0, validation=2.5)
    assert [line.split("`")[1] for line in str(caught.value).split("\n")] == [
        *("validation", "epochs", "head"),
    ]
