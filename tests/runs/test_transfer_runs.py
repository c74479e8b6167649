"""Runs of transfer training: phases, cached activations, resuming, and invalid settings."""

import csv
import json
import shutil
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from kindsight import Augment, ImageClassifier, ImageDataset, Predictor
from kindsight.augment import augment_images
from kindsight.bundle import load_bundle
from kindsight.errors import SettingsError
from kindsight.images import read_image, resize_image
from kindsight.models.runtime import InterpreterPool
from kindsight.runs.learning_rates import find_learning_rate, layers_of
from kindsight.runs.train import TrainSettings, train
from kindsight.training.activation_cache import cache_activations, map_activations
from kindsight.training.engine.history import History
from kindsight.training.engine.plan import Phase
from kindsight.training.engine.worker import training_plan
from kindsight.training.network import fit as network_fit
from kindsight.training.network.fit import JobInputs
from kindsight.training.transfer.fit import prepare_transfer
from kindsight.training.transfer.settings import TransferTrainer
from network_process import shared_process
from shapes import shape, write_shapes


@pytest.fixture(scope="module", autouse=True)
def process():
    with shared_process() as process:
        yield process


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two classes of 24 images each."""
    return write_shapes(tmp_path_factory.mktemp("data") / "pair", {"bar": 24, "ring": 24})


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A backbone file of three convolutions with batch normalisation, for 40 pixels."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(2)
    pixels = keras.Input((40, 40, 3), name="pixels")
    x = layers.Rescaling(1 / 255, name="scale")(pixels)
    for number, filters in enumerate((6, 8, 8), 1):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    path = tmp_path_factory.mktemp("own") / "mine.keras"
    keras.Model(pixels, x, name="mine").save(path)
    return str(path)


def settings_of(data, runs, **more):
    return TrainSettings(
        str(data), runs=str(runs), **{"validation": 0.25, "epochs": 2, "batch_size": 8, **more}
    )


def without_time(run):
    return [row.cells()[:2] + row.cells()[3:] for row in History.read_csv(run / "history.csv")]


def weights_of(file):
    import keras

    model = keras.models.load_model(file)
    return {w.path: np.asarray(w.numpy()) for w in model.weights}, model


def inputs_of(pair, process, **more):
    """The inputs of a training job, without training."""
    trainer = TransferTrainer(batch_size=8, **more)
    prepared = prepare_transfer(trainer, ImageDataset.from_folder(pair), None, process)
    rows = np.arange(len(prepared.dataset))
    inputs = prepared.inputs(
        ["bar", "ring"], trainer.plan().phases, rows[rows % 4 > 0], rows[::4], process
    )
    inputs.close()
    prepared.close()
    return inputs


class StopAfter:
    """A callback that interrupts the training at its n-th call."""

    def __init__(self, count):
        self.count, self.done = count, None

    def on_start(self, epochs, done):
        self.done = done

    def on_step(self, *_):
        self.count -= 1
        if self.count == 0:
            raise KeyboardInterrupt

    on_epoch = on_step


class NoInterpreter(InterpreterPool):
    """Fails if activations are computed."""

    def run(self, pixels):
        pytest.fail("activations computed again")


def test_cut_frozen_backbone_with_a_dense_head(pair, own, tmp_path):
    settings = settings_of(
        pair, tmp_path / "runs", model=own, cut="relu2", freeze="all", pooling="flatten",
        dense=(16,), dropout=0.2, optimizer="rmsprop", learning_rate=1e-4, epochs=1,
    )  # fmt: skip
    result = train(settings)
    learned, model = weights_of(result.run / "model.keras")
    names = [layer.name for layer in model.layers if layer.name.startswith(("head", "unit"))]
    assert names == ["head_flatten", "head_dense1", "head_relu1", "head_dropout", "unit"]
    assert model.get_layer("head_flatten").input is model.get_layer("own.relu2").output
    assert model.get_layer("head_dense1").kernel.shape == (10 * 10 * 8, 16)
    assert model.get_layer("head_dropout").rate == 0.2
    assert model.get_layer("unit").kernel.shape == (16, 1)

    # Only the head was trained: the backbone is the same to the bit.
    frozen, _ = weights_of(settings.training().backbone().keras)
    shared = learned.keys() & frozen.keys()
    assert {name.split("/")[0] for name in shared} == {
        f"own.{name}" for name in ("conv1", "norm1", "conv2", "norm2")
    }
    for name in shared:
        np.testing.assert_array_equal(learned[name], frozen[name])
    assert {name.split("/")[0] for name in learned.keys() - shared} == {
        *("head_dense1", "unit", "logits"),
        *("ood_project", "ood_closeness", "ood_score"),
    }

    # The two files of the bundle agree, and Keras alone gives the bundle's logits.
    bundle = load_bundle(result.run)
    assert bundle.facts["parity"]["largest_difference"] <= 1e-4
    files = sorted(pair.glob("*/*"))[:5]
    pixels = np.stack([resize_image(read_image(f), bundle.spec) for f in files])
    logits = np.array([answer.logits for answer in Predictor(bundle).predict(files)])
    assert logits == pytest.approx(np.asarray(model(pixels.astype(np.float32))[0]), abs=1e-4)
    assert (logits[:, 0] == 0).all()


# Phases ------------------------------------------------------------------------------------------

PHASES = [
    {"freeze": "all", "epochs": 1, "learning_rate": 0.01},
    {"freeze": "relu2", "epochs": 1, "augment": "light"},
    {"name": "the end", "freeze": "none", "epochs": 2, "learning_rate": 1e-4, "mix": "cutmix"},
]


@pytest.fixture(scope="module")
def phased(pair, own, tmp_path_factory):
    settings = settings_of(
        pair, tmp_path_factory.mktemp("runs"), model=own, phases=PHASES, optimizer="adam",
        dense=(12,), batch_norm=True, dropout=0.3, layer_decay=0.8,
        ema_decay=0.5, final_weights="last",
    )  # fmt: skip
    return settings, train(settings)


def test_run_with_phases(phased):
    settings, result = phased
    rows = result.history.rows()
    assert [row.phase for row in rows] == ["head", "above relu2", "the end", "the end"]
    assert [row.learning_rate for row in rows] == [0.01, 1e-3, 1e-4, 1e-4]
    plan = settings.training().plan()
    assert [phase.augment for phase in plan.phases] == [
        Augment(), Augment.recipe("light"), Augment(cutmix=1.0),
    ]  # fmt: skip
    facts = json.loads((result.run / "bundle.json").read_text("utf-8"))
    trainable = {row["name"]: row.get("trainable", "") for row in facts["network"]}
    assert trainable["conv1"] == "trainable in phase 3" and trainable["norm1"] == "frozen"
    assert trainable["conv3"] == "trainable from phase 2 on"
    assert trainable["head_dense1"] == "trainable"
    page = result.report.read_text("utf-8")
    for text in (
        "in 3 phases",
        "frozen: relu2",
        "the end",
        "CutMix 1",
        "EMA of the weights, decay 0.5",
        "layer-wise learning-rate decay 0.8",
    ):
        assert text in page, text
    # The beginning of each later phase is marked on the curves, in each of two figures.
    assert page.count('class="phase"') == 4
    assert (result.run / "history.svg").read_text("utf-8").count('class="phase"') == 4


def test_interrupted_in_two_phases_the_run_ends_the_same(phased, tmp_path, monkeypatch):
    _, result = phased
    monkeypatch.setattr(network_fit, "CHECKPOINT_SECONDS", 0.0)
    again = TrainSettings.from_toml(result.run / "settings.toml", runs=str(tmp_path))
    # At least a step and an epoch are reported in each epoch, and earlier epochs on resuming.
    for count in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            train(again, callback=StopAfter(count))
    callback = StopAfter(1000)
    end = train(again, callback=callback)
    assert callback.done >= 1
    assert without_time(end.run) == without_time(result.run)
    for name in ("model.tflite", "validation.csv"):
        assert (end.run / name).read_bytes() == (result.run / name).read_bytes(), name


def test_layers_frozen_after_they_were_trained(pair, own, tmp_path):
    """The last epoch is validated with the network that is saved, not with the backbone's file."""
    phases = [
        {"freeze": "none", "learning_rate": 0.02, "epochs": 1},
        {"freeze": "all", "learning_rate": 1e-4, "epochs": 1},
    ]
    result = train(
        settings_of(pair, tmp_path, model=own, phases=phases, final_weights="last", optimizer="sgd")
    )
    _, model = weights_of(result.run / "model.keras")
    bundle = load_bundle(result.run)
    with open(result.run / "validation.csv", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    pixels = [resize_image(read_image(pair / row["path"]), bundle.spec) for row in rows]
    logits = np.asarray(model(np.stack(pixels).astype(np.float32))[0], np.float64)
    targets = [bundle.classes.index(row["label"]) for row in rows]
    losses = np.logaddexp.reduce(logits, 1) - logits[np.arange(len(rows)), targets]
    assert History.read_csv(result.run / "history.csv").rows()[-1].val_loss == pytest.approx(
        losses.mean(), abs=1e-5
    )


# Cached activations ------------------------------------------------------------------------------


def test_which_phases_train_on_cached_activations(pair, own, process):
    phases = [
        {"freeze": "conv2"}, {"freeze": "conv2", "augment": "light"}, {"freeze": 2},
        {"freeze": "none"}, {"freeze": "all", "mix": "mixup"}, {"name": "last", "freeze": 2},
    ]  # fmt: skip
    inputs = inputs_of(pair, process, model=own, phases=phases, epochs=1)
    pixels = ("", (40, 40, 3))
    assert [(source.layer, source.shape) for source in inputs.sources] == [
        *(("own.relu2", (10, 10, 8)), pixels, ("own.relu1", (20, 20, 6)), pixels, pixels, pixels),
    ]
    # Layers that were trained in an earlier phase have other activations.
    (note,) = inputs.notes
    assert note.startswith("The frozen layers of the phase 'last' were trained in an earlier phase")


def test_cached_copies_are_computed_once(pair, own, tmp_path, process, monkeypatch):
    """Activations of each image and three copies, whose augmentation depends on the image only."""
    jobs, written, cached = [], [], []
    run_job, write = process.run_job, JobInputs.write

    def record_job(*arguments, **job):
        jobs.append(job)
        return run_job(*arguments, **job)

    def record_write(self, *arguments):
        path = write(self, *arguments)
        with np.load(path) as file:
            written.append({name: file[name] for name in file.files})
        return path

    def record_activations(file, *arguments, **options):
        found = cache_activations(file, *arguments, **options)
        pixels = file.stored.pixels(np.arange(len(file.stored)))
        cached.append(([str(digest) for digest in file.stored.dataset.digest], pixels, found.rows))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(process, "run_job", record_job)
        patch.setattr(JobInputs, "write", record_write)
        patch.setattr("kindsight.training.transfer.fit.cache_activations", record_activations)
        settings = settings_of(
            pair, tmp_path, model=own, augment="classic",
            phases=[{"freeze": "relu2", "cached_copies": 3, "epochs": 4},
                {"freeze": "all", "epochs": 1}],
        )  # fmt: skip
        result = train(settings)
    (job,) = [job for job in jobs if job["job"] == "train"]
    assert [source["layer"] for source in job["sources"]] == ["own.relu2", ""]
    (arrays,) = written
    rows = arrays["rows_0"]
    assert rows.shape == (36, 4) and len(np.unique(rows)) == 36 * 4
    assert arrays["val_rows_0"].shape == (12,) and arrays["rows_1"].shape == (36,)
    # Cached copies are augmented already; the second phase augments in each epoch.
    first, second = training_plan(job).phases
    assert first.augment == Augment() and second.augment == Augment.recipe("classic")
    # Compare with Keras: original images, and their first copies.
    maps = map_activations(Path(job["sources"][0]["file"]), 0, (10, 10, 8))["map"]
    (digests, pixels, cached_rows) = cached[0]
    base = keras_up_to(weights_of(settings.training().backbone().keras)[1], "own.relu2")
    for row in np.flatnonzero(cached_rows[:, 1] >= 0)[:5]:
        index = int.from_bytes(blake2b(digests[row].encode(), digest_size=8).digest(), "little")
        (copy,) = augment_images(
            pixels[row][None], Augment.recipe("classic"), seed=0, epoch=1,
            index=np.array([index >> 1]),
        )  # fmt: skip
        expected = base(np.stack([pixels[row], copy]))
        found = maps[cached_rows[row, :2]].astype(np.float32)
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-2)
    assert sorted(rows[:, 0]) == sorted(cached_rows[cached_rows[:, 1] >= 0, 0])

    # An interrupted run finds all of it, although the disk is full now, and ends the same.
    monkeypatch.setattr(network_fit, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("kindsight.models.worker.gpu_pool.InterpreterPool", NoInterpreter)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    again = settings.with_options(runs=str(tmp_path / "second"))
    with pytest.raises(KeyboardInterrupt):
        train(again, callback=StopAfter(3))
    end = train(again)
    assert without_time(end.run) == without_time(result.run) and end.notes == result.notes
    assert (end.run / "model.tflite").read_bytes() == (result.run / "model.tflite").read_bytes()


def keras_up_to(model, layer):
    """Return a function from pixels to the output of a layer, in Keras."""
    import keras

    base = keras.Model(model.inputs, model.get_layer(layer).output)
    return lambda pixels: np.asarray(base(pixels.astype(np.float32)))


@pytest.mark.parametrize(
    ("bound", "reason"), [("MAX_SHARE", "would take"), ("MAX_ACTIVATION", "too large for float16")]
)
def test_activations_that_cannot_be_cached(pair, own, process, monkeypatch, bound, reason):
    monkeypatch.setattr(f"kindsight.training.transfer.fit.{bound}", 1e-12)
    inputs = inputs_of(pair, process, model=own, freeze="all", epochs=1)
    assert [source.layer for source in inputs.sources] == [""]
    (note,) = inputs.notes
    assert note.startswith("The frozen layers up to relu3 run again in each epoch: ")
    assert reason in note


def test_copies_that_do_not_fit_into_the_cache(pair, own, process, monkeypatch):
    """Activations of another phase without augmentation still fit."""
    # 48 images of 5 * 5 * 8 float16 take 19 kB, two copies of 36 of them 29 kB more.
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "60KB")
    phases = [{"freeze": "all", "augment": "none"}, {"freeze": "all", "cached_copies": 2}]
    inputs = inputs_of(pair, process, model=own, phases=phases, augment="light", epochs=3)
    assert [source.layer for source in inputs.sources] == ["own.relu3", ""]
    (note,) = inputs.notes
    assert note.startswith(
        "The frozen layers up to relu3 run again in each epoch on new augmented copies"
    )
    assert "of the images and 2 copies of each" in note
    assert "in the cache (KINDSIGHT_CACHE_LIMIT)" in note


# Invalid settings, and what is known before a training --------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cut": "con"}, "matches 3 layers, conv1, conv2, conv3"),
        ({"cut": "rellu2"}, "Did you mean 'relu2'"),
        ({"freeze": "conf2"}, "Did you mean 'conv2'"),
        ({"freeze": 99}, "at most 6"),
        ({"cut": "relu1", "freeze": "conv3"}, "has no layer 'conv3'"),
        ({"phases": [{"freeze": "all"}, {"freeze": "head"}]}, "has no layer 'head'"),
    ],
)
def test_unknown_layers_leave_no_run(pair, own, tmp_path, given, message):
    settings = settings_of(pair, tmp_path, model=own, **given)
    with pytest.raises(SettingsError, match=message):
        train(settings)
    assert not list(tmp_path.glob("*/settings.toml"))


@pytest.mark.parametrize(
    "given", [{"cut": "rellu2"}, {"freeze": 99}, {"cut": "relu1", "phases": [{"freeze": "conv3"}]}]
)
def test_unknown_layers_are_an_error_before_the_backbone_is_built(
    pair, own, tmp_path, monkeypatch, given
):
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SettingsError):
        train(settings_of(pair, tmp_path, model=own, **given))
    files = {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert files.isdisjoint({".tflite", ".keras", ".u8", ".npy"})


def test_unknown_layers_are_an_error_of_the_layer_table_too(pair, own, tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'relu2'"):
        layers_of(settings_of(pair, tmp_path, model=own, cut="rellu2"))


def test_table_of_layers(pair, own, tmp_path):
    rows = layers_of(settings_of(pair, tmp_path, model=own, cut="relu2", freeze=2, dense=(5,)))
    found = [
        (row.name, row.output, row.parameters, row.trainable) for row in rows if row.parameters
    ]
    # 3 * 3 * 3 * 6 + 6 and 4 * 6 numbers; 3 * 3 * 6 * 8 + 8 and 4 * 8; 8 * 5 + 5, 5 + 1
    assert found == [
        ("to relu1", (20, 20, 6), 168 + 24, "frozen"),
        ("conv2", (10, 10, 8), 440, "trainable"),
        ("norm2", (10, 10, 8), 32, "frozen"),
        ("head_dense1", (5,), 45, "trainable"),
        ("unit", (1,), 6, "trainable"),
    ]


def test_learning_rate_finder_on_cached_copies(pair, own, tmp_path, process, monkeypatch):
    """It uses the first phase only, and caches nothing for the others."""
    jobs, run_job = [], process.run_job
    monkeypatch.setattr(
        process, "run_job", lambda *given, **job: jobs.append(job) or run_job(*given, **job)
    )
    phases = [{"freeze": "relu2", "augment": "light", "cached_copies": 1}, {"freeze": "relu1"}]
    sweep, _ = find_learning_rate(settings_of(pair, tmp_path, model=own, phases=phases))
    assert len(sweep.rates) == len(sweep.losses) > 50
    (job,) = [job for job in jobs if job["job"] == "find-rate"]
    assert [source["layer"] for source in job["sources"]] == ["own.relu2"]


# From Python -------------------------------------------------------------------------------------


def test_classifier_with_phases(own, tmp_path, monkeypatch):
    monkeypatch.setattr("kindsight.training.transfer.fit.MAX_SHARE", 1e-12)
    images = np.stack([shape(name, n) for n in range(16) for name in ("bar", "ring", "chequer")])
    labels = np.array(["bar", "ring", "chequer"] * 16)
    classifier = ImageClassifier(
        model=own, dropout=0.1, batch_size=8, optimizer="adam",
        phases=[{"freeze": "all", "epochs": 2}, Phase("rest", 1, 8, "sgd", 1e-3, freeze="conv2")],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="The frozen layers up to relu3 run again in each epoch"):
        classifier.fit(images, labels)
    assert [row.phase for row in classifier.history_.rows()] == ["head", "head", "rest"]
    assert classifier.predict_proba(images[:4]).shape == (4, 3)
    classifier.save(tmp_path / "bundle")
    loaded = ImageClassifier.load(tmp_path / "bundle")
    assert loaded.phases[1]["optimizer"] == "sgd" and loaded.dropout == 0.1
    assert loaded.predict_proba(images[:4]) == pytest.approx(
        classifier.predict_proba(images[:4]), abs=1e-6
    )
    with open(tmp_path / "bundle" / "history.csv", newline="") as file:  # noqa: PTH123
        assert [row["phase"] for row in csv.DictReader(file)] == ["head", "head", "rest"]


def test_small_cnn_with_phases(pair, tmp_path):
    result = train(
        settings_of(
            pair,
            tmp_path,
            model="small-cnn",
            size=24,
            filters=(4,),
            dense=(),
            ema_decay=0.9,
            phases=[{"epochs": 1, "mix": "mixup"}, {"name": "slow", "learning_rate": 1e-4}],
        )
    )
    assert [row.phase for row in result.history.rows()] == ["phase 1", "slow", "slow"]
