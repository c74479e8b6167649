"""Which settings mean that a backbone learns, its phases, and what cannot be."""

import dataclasses

import pytest

from kindsight.augment import Augment
from kindsight.errors import SettingsError
from kindsight.models.networks.keras_heads import TrainableHead
from kindsight.options import OPTIONS
from kindsight.runs.settings import TrainSettings
from kindsight.training.engine.plan import Phase, make_policy, read_phase
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import NetworkTrainer
from kindsight.training.trainer import foreign_options, make_training
from kindsight.training.transfer.settings import TransferTrainer

GIVEN = {
    "cut": "mixed7", "freeze": "all", "train_batch_norm": False,
    "cached_copies": 0, "pooling": "max",
    "dense": (4,), "dropout": 0.2, "batch_norm": False, "l2": 0.0, "phases": [{"epochs": 2}],
}  # fmt: skip


def test_these_options_are_declared_as_choices():
    assert {name for name, option in OPTIONS.items() if option.selects} == set(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_each_option_of_layers_trains_the_backbone(name):
    options = {"model": "inception-v3", name: GIVEN[name], "epochs": 3}
    assert isinstance(make_training(options), TransferTrainer)
    assert foreign_options(options) == []
    # Without a model, the default backbone is used.
    assert isinstance(make_training({name: GIVEN[name]}), TransferTrainer)


def test_without_any_it_is_frozen():
    assert isinstance(make_training({"model": "inception-v3", "phases": ()}), FrozenTrainer)
    (said,) = foreign_options({"model": "inception-v3", "epochs": 3})
    assert "or a backbone trained by epochs" in said and '`freeze="all"`' in said


def test_options_of_other_kinds():
    (said,) = foreign_options({"model": "inception-v3", "freeze": "all", "head": "linear"})
    assert said.startswith("`head` applies only to a frozen backbone; ")
    (said,) = foreign_options({"model": "inception-v3", "freeze": "all", "filters": (3,)})
    assert said.startswith("`filters` applies only to a network from scratch")
    (said,) = foreign_options({"model": "small-cnn", "freeze": "all"})
    assert said.startswith("`freeze` applies only to a backbone trained by epochs")
    for kind in ({}, {"fine_tune": "light"}, {"freeze": "all"}, {"model": "small-cnn"}):
        assert foreign_options({**kind, "tensorboard": "logs", "mlflow": True}) == []


def test_the_course_s_settings():
    training = TransferTrainer(
        "inception-v3", size=150, weights="none", cut="mixed7", pooling="flatten", dense=1024,
        dropout=0.2, learning_rate=1e-4,
    )  # fmt: skip
    assert training.faults() == [] and training.spec().size == (150, 150)
    assert training.head() == TrainableHead("flatten", (1024,), 0.2)
    (phase,) = training.plan().phases
    assert (phase.name, phase.freeze, phase.optimizer) == ("training", "all", "rmsprop")
    assert training.describe() == "inception-v3, random weights, up to mixed7"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "inception-v4"}, "Did you mean 'inception-v3'"),
        ({"model": "efficientnet-lite0+inception-v3"}, "`model` must be a single backbone"),
        ({"cut": ""}, "`cut` must be the name of a layer"),
        ({"freeze": -1}, "`freeze` must be all, none"),
        ({"freeze": [1]}, "`freeze` must be all, none"),
        ({"pooling": "mean"}, "`pooling` must be one of"),
        ({"dense": (1.5,)}, "`dense` must be up to 8 whole numbers"),
        ({"dense": 2.5}, "`dense` must be up to 8 whole numbers"),
        ({"dropout": 1}, "`dropout` must be"),
        ({"dropout": "much"}, "`dropout` must be a number from 0 to below 1"),
        ({"batch_norm": 2}, "`batch_norm` must be"),
        ({"train_batch_norm": "yes"}, "`train_batch_norm` must be"),
        (
            {"cached_copies": 65, "augment": "light"},
            "`cached_copies` must be a whole number from 0 to 64",
        ),
        (
            {"cached_copies": 1.5, "augment": "light"},
            "`cached_copies` must be a whole number from 0 to 64",
        ),
        ({"cached_copies": 2}, '`cached_copies` needs augmentation, such as `augment="light"`'),
        (
            {"cached_copies": 2, "augment": "light", "mix": "mixup"},
            "must be 0 with MixUp or CutMix",
        ),
        (
            {"cached_copies": 2, "augment": "light", "freeze": "none"},
            'needs frozen layers, such as `freeze="all"`',
        ),
        (
            {"cached_copies": 2, "augment": "light", "freeze": 0},
            'needs frozen layers, such as `freeze="all"`',
        ),
        (
            {"cached_copies": 2, "augment": "light", "epochs": 2},
            "must be at most 1 with 2 epochs",
        ),
        (
            {"cached_copies": 2, "phases": [{}, {}]},
            'needs augmentation, such as `augment="light"`, in one phase at least',
        ),
        (
            {
                "augment": "light",
                "phases": [{"cached_copies": 2}, {"cached_copies": 2, "augment": "none"}],
            },
            "phase 2: 'cached_copies' needs augmentation",
        ),
        ({"layer_decay": 0}, "`layer_decay` must be a number above 0 to 1;"),
        ({"layer_decay": 1.5}, "`layer_decay` must be"),
        ({"ema_decay": 1}, "`ema_decay` must be a number from 0 to below 1"),
        ({"mix": "cutmax"}, "Did you mean 'cutmix'"),
        ({"size": 16}, "32 to 1024"),
        ({"seed": -1}, "`seed` must be"),
        ({"phases": "all"}, "`phases` must be a list"),
        ({"phases": [3]}, "phase 1 must be settings by name"),
        ({"phases": [{}, {"lerning_rate": 1}]}, "phase 2: there is no setting 'lerning_rate'. Did"),
        ({"phases": [{}, {"epochs": 0}]}, "phase 2: 'epochs' must be"),
        ({"phases": [{"name": "a"}, {"name": "a"}]}, "different names; got a, a"),
        ({"phases": [{"name": " "}]}, "phase 1: 'name' must be"),
        ({"phases": [{"augment": "clasic"}]}, "phase 1: augment:"),
    ],
)
def test_invalid_settings(given, message):
    faults = TransferTrainer(**{"weights": "none", **given}).faults()
    assert any(message in fault for fault in faults), faults


def test_a_phase_takes_shared_settings():
    training = TransferTrainer(
        epochs=7, optimizer="adam", learning_rate=0.02, augment="light", mix="cutmix",
        freeze="stage3_out", schedule="cosine",
        phases=[
            {"freeze": "all", "epochs": 3, "augment": "none"},
            {"learning_rate": 0.01},
            {"freeze": "none", "mix": "mixup", "patience": 2, "augment": "none"},
            {"freeze": "none"},
            {"freeze": 40},
        ],
    )  # fmt: skip
    assert training.faults() == []
    one, two, three, four, five = training.plan().phases
    names = [phase.name for phase in (one, two, three, four, five)]
    assert names == ["head", "above stage3_out", "all layers", "all layers, phase 4",
                     "above 40 layers"]  # fmt: skip
    assert (one.epochs, one.learning_rate, one.optimizer, one.freeze) == (3, 0.02, "adam", "all")
    assert one.augment == Augment()  # its own policy says that nothing is mixed either
    assert (two.epochs, two.learning_rate, two.freeze) == (7, 0.01, "stage3_out")
    assert two.augment == dataclasses.replace(Augment.recipe("light"), cutmix=1.0)
    assert three.augment == Augment(mixup=0.2) and three.patience == 2
    assert {phase.schedule for phase in (one, five)} == {"cosine"}
    assert training.plan().epochs == 3 + 7 * 4


def test_a_phase_object_takes_no_shared_settings():
    phase = Phase("mine", 4, 8, "sgd", 0.1, freeze="none")
    training = TransferTrainer(epochs=9, optimizer="adam", phases=[phase])
    assert training.plan().phases == (phase,)
    (kept,) = training.to_dict()["phases"]
    again = TransferTrainer(epochs=9, optimizer="adam", phases=[kept])
    assert again.plan() == training.plan()


def test_phases_of_the_small_network():
    training = NetworkTrainer(phases=[{"epochs": 2}, {"learning_rate": 1e-4}])
    assert [phase.name for phase in training.plan().phases] == ["phase 1", "phase 2"]
    faults = NetworkTrainer(phases=[{"freeze": "all"}]).faults()
    assert any("`freeze` is a setting of backbones" in fault for fault in faults)
    faults = NetworkTrainer(phases=[{"cached_copies": 2, "augment": "light"}]).faults()
    assert any("`cached_copies` is a setting of backbones" in fault for fault in faults)


def test_invalid_cached_copies_are_reported_with_phases_too():
    (fault,) = TransferTrainer(cached_copies=99, augment="light", phases=[{"epochs": 3}]).faults()
    assert "`cached_copies` must be a whole number from 0 to 64" in fault


def test_shared_cached_copies_are_limited_per_phase():
    training = TransferTrainer(
        augment="light", cached_copies=4, epochs=9,
        phases=[
            {"augment": "none"}, {}, {"mix": "mixup"}, {"freeze": "none"}, {"epochs": 3},
            {"epochs": 4, "cached_copies": 1},
            Phase("mine", cached_copies=3, augment=Augment(shift=0.1),
                                                  freeze="all"),
        ],
    )  # fmt: skip
    assert training.faults() == []
    assert [phase.cached_copies for phase in training.plan().phases] == [0, 4, 0, 0, 2, 1, 3]
    assert training.plan().phases[1].describe().endswith("frozen: all, 4 cached copies")
    assert read_phase("cached-copies=3") == {"cached_copies": 3}


# On the command line, and in files ---------------------------------------------------------------


def test_reads_a_phase_from_one_line():
    line = "freeze=all epochs=3 learning-rate=1e-3 augment=none name='the head' label-smoothing=.1"
    assert read_phase(line) == {
        "freeze": "all", "epochs": 3, "learning_rate": 0.001, "augment": "none",
        "name": "the head", "label_smoothing": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("freeze", "name=value"),
        ("freeze= epochs=2", "name=value"),
        ("epochs=2 epochs=3", "each once"),
        ("epochs=two", "epochs must be a whole number; got 'two'"),
        ("warmup=long", "warmup must be a number"),
        ("name='the head", "quotes of a phase must be closed"),
    ],
)
def test_invalid_phase_lines_raise(line, message):
    with pytest.raises(SettingsError, match=message):
        read_phase(line)


def test_phases_are_restored_from_a_file(tmp_path):
    policy = Augment(rotation=7)
    policy.write(tmp_path / "mine.toml")
    settings = TrainSettings(
        "photos", cut="stage5", freeze=3, ema_decay=0.99,
        phases=[{"freeze": "all", "augment": str(tmp_path / "mine.toml")}, {"epochs": 2}],
    )  # fmt: skip
    settings.write(tmp_path / "settings.toml")
    (tmp_path / "mine.toml").unlink()
    again = TrainSettings.from_toml(tmp_path / "settings.toml")
    assert again == settings and again.training().plan() == settings.training().plan()
    assert again.training().plan().phases[0].augment == policy
    (tmp_path / "own.toml").write_text(
        'data = "photos"\nepochs = 4\n\n[[phases]]\nfreeze = "all"\nlearning_rate = 0.01\n\n'
        '[[phases]]\nname = "rest"\nfreeze = 20\n[phases.augment]\nrotation = 5\n'
    )
    head, rest = TrainSettings.from_toml(tmp_path / "own.toml").training().plan().phases
    assert (head.name, head.learning_rate, rest.name, rest.epochs) == ("head", 0.01, "rest", 4)
    assert rest.augment == Augment(rotation=5) and rest.freeze == 20


def test_settings_file_of_another_model(tmp_path):
    TrainSettings("photos", model="small-cnn", dropout=0.5, epochs=3, seed=4).write(tmp_path / "n")
    TrainSettings("photos", cut="stage5", epochs=3, seed=4).write(tmp_path / "t")
    # The small network's parts do not make a backbone learn; the file's epochs go to one that does.
    assert TrainSettings.from_toml(tmp_path / "n", model="efficientnet-lite1") == TrainSettings(
        "photos", model="efficientnet-lite1", seed=4
    )
    learns = TrainSettings.from_toml(tmp_path / "n", model="efficientnet-lite1", freeze="none")
    assert isinstance(learns.training(), TransferTrainer) and learns.epochs == 3
    other = TrainSettings.from_toml(tmp_path / "t", model="efficientnet-lite1")
    assert other.training().cut == "stage5" and other.model == "efficientnet-lite1"
    small = TrainSettings.from_toml(tmp_path / "t", model="small-cnn")
    assert isinstance(small.training(), NetworkTrainer) and small.epochs == 3


def test_mixing_by_name_or_by_policy():
    assert make_policy("none", "mixup") == Augment(mixup=0.2)
    assert make_policy({"rotation": 3, "mixup": 0.4}, "none") == Augment(rotation=3, mixup=0.4)
    assert make_policy(Augment(mixup=0.4), "cutmix") == Augment(mixup=0.4, cutmix=1.0)
