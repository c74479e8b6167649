"""A backbone trained by gradient: the course's recipe, phases, resume, what is refused."""

import csv
import dataclasses
import json
import shutil
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from kindsight import Augment, ImageClassifier, Predictor
from kindsight.augment import augment_images
from kindsight.bundle import load_bundle
from kindsight.errors import SettingsError
from kindsight.images import read_image, resize_image
from kindsight.models.runtime import InterpreterPool
from kindsight.runs.train import TrainSettings, find_learning_rate, layers_of, train
from kindsight.training.activation_cache import cache_activations, map_activations
from kindsight.training.engine.history import History
from kindsight.training.engine.job_inputs import JobInputs
from kindsight.training.engine.plan import Phase
from kindsight.training.engine.worker import training_plan
from kindsight.training.network import fit as network_fit
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
    """A user's own backbone, of two convolutions that are normalised, for 40 pixels."""
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


class StopAfter:
    """A callback that interrupts the training at its n-th piece of news."""

    def __init__(self, count):
        self.count, self.done = count, None

    def on_start(self, epochs, done):
        self.done = done

    def on_step(self, *news):
        self.count -= 1
        if self.count == 0:
            raise KeyboardInterrupt

    on_epoch = on_step


# The course's recipe -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_course_s_recipe(pair, tmp_path, monkeypatch):
    """InceptionV3 to mixed7, frozen; flatten, dense 1024, dropout 0.2, a sigmoid; RMSprop 1e-4."""
    settings = settings_of(
        pair, tmp_path / "runs", model="inception-v3", weights="none", size=75, cut="mixed7",
        freeze="all", pooling="flatten", dense=(1024,), dropout=0.2, optimizer="rmsprop",
        learning_rate=1e-4, batch_size=20,
    )  # fmt: skip
    result = train(settings)
    learned, model = weights_of(result.run / "model.keras")

    # What feeds the head is what mixed7 gives, and the head is the course's.
    names = [layer.name for layer in model.layers if layer.name.startswith(("head", "unit"))]
    assert names == ["head_flatten", "head_dense1", "head_relu1", "head_dropout", "unit"]
    assert model.get_layer("head_flatten").input is model.get_layer("mixed7").output
    assert model.get_layer("mixed7").output.shape == (None, 3, 3, 768)
    assert model.get_layer("head_dense1").kernel.shape == (3 * 3 * 768, 1024)
    assert model.get_layer("head_dropout").rate == 0.2
    assert model.get_layer("unit").kernel.shape == (1024, 1)

    # Only the head was trained: the backbone is, to the bit, what it was.
    training = settings.training()
    frozen, _ = weights_of(training.backbone().keras)
    kept = learned.keys() & frozen.keys()
    # What Keras counts up to mixed7, the figure of the course's notebook.
    assert sum(learned[name].size for name in kept) == 8_975_264
    for name in kept:
        np.testing.assert_array_equal(learned[name], frozen[name])
    assert {name.split("/")[0] for name in learned.keys() - kept} == {
        *("head_dense1", "unit", "logits"),
    }

    # The two files of the bundle agree, and Keras alone gives the bundle's logits.
    bundle = load_bundle(result.run)
    assert bundle.facts["parity"]["largest_difference"] <= 1e-4
    files = sorted(pair.glob("*/*"))[:5]
    pixels = np.stack([resize_image(read_image(f), bundle.spec) for f in files])
    logits = np.array([answer.logits for answer in Predictor(bundle).predict(files)])
    assert logits == pytest.approx(np.asarray(model(pixels.astype(np.float32))), abs=1e-4)
    assert (logits[:, 0] == 0).all()

    # Stopped and continued it ends the same.
    monkeypatch.setattr(network_fit, "CHECKPOINT_SECONDS", 0.0)
    again = settings.with_options(runs=str(tmp_path / "again"))
    with pytest.raises(KeyboardInterrupt):
        train(again, callback=StopAfter(2))
    (run,) = (tmp_path / "again").iterdir()
    assert (run / "checkpoint.npz").exists()
    end = train(again)
    assert end.run == run and without_time(run) == without_time(result.run)
    for name in ("model.tflite", "validation.csv"):
        assert (run / name).read_bytes() == (result.run / name).read_bytes(), name


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


def test_a_run_of_phases(phased):
    settings, result = phased
    rows = result.history.rows()
    assert [row.phase for row in rows] == ["head", "above relu2", "the end", "the end"]
    assert [row.learning_rate for row in rows] == [0.01, 1e-3, 1e-4, 1e-4]
    plan = settings.training().plan()
    assert [phase.augment for phase in plan.phases] == [
        Augment(), Augment.recipe("light"), Augment(cutmix=1.0),
    ]  # fmt: skip
    facts = json.loads((result.run / "bundle.json").read_text("utf-8"))
    trains = {row["name"]: row.get("trainable", "") for row in facts["network"]}
    assert trains["conv1"] == "trainable in phase 3" and trains["norm1"] == "frozen"
    assert trains["conv3"] == "trainable from phase 2 on" and trains["head_dense1"] == "trainable"
    page = result.report.read_text("utf-8")
    for said in (
        "in 3 phases",
        "frozen: relu2",
        "the end",
        "CutMix 1",
        "running mean",
        "0.8 of the",
    ):
        assert said in page, said
    # Where each phase begins is marked on the curves, twice in each of two figures.
    assert page.count('class="phase"') == 4
    assert (result.run / "history.svg").read_text("utf-8").count('class="phase"') == 4


def test_a_run_of_phases_is_repeated_from_its_settings(phased, tmp_path):
    settings, result = phased
    again = TrainSettings.from_toml(result.run / "settings.toml")
    assert again == settings and isinstance(again.training(), TransferTrainer)
    second = train(dataclasses.replace(again, runs=str(tmp_path)))
    assert without_time(second.run) == without_time(result.run)
    assert (second.run / "model.tflite").read_bytes() == (result.run / "model.tflite").read_bytes()


@pytest.mark.parametrize("count", [2, 4, 6])
def test_stopped_in_any_phase_it_ends_the_same(phased, tmp_path, monkeypatch, count):
    settings, result = phased
    monkeypatch.setattr(network_fit, "CHECKPOINT_SECONDS", 0.0)
    again = settings.with_options(runs=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        train(again, callback=StopAfter(count))
    callback = StopAfter(1000)
    end = train(again, callback=callback)
    assert callback.done == {2: 0, 4: 1, 6: 2}.get(count, callback.done) or callback.done > 0
    assert without_time(end.run) == without_time(result.run)
    assert (end.run / "model.tflite").read_bytes() == (result.run / "model.tflite").read_bytes()


def jobs_of(process, monkeypatch):
    """Return a list that the jobs of the process with Keras are added to."""
    jobs, real = [], process.run_job

    def run_job(hear=None, **job):
        jobs.append(job)
        return real(hear, **job)

    monkeypatch.setattr(process, "run_job", run_job)
    return jobs


def test_frozen_layers_are_run_once(pair, own, tmp_path, process, monkeypatch):
    """Without augmentation what is frozen comes from the cache; with it there are pixels."""
    jobs = jobs_of(process, monkeypatch)
    phases = [
        {"freeze": "conv2"}, {"freeze": "conv2", "augment": "light"}, {"freeze": 2},
        {"freeze": "none"}, {"freeze": "all", "mix": "mixup"}, {"name": "last", "freeze": 2},
    ]  # fmt: skip
    settings = settings_of(pair, tmp_path, model=own, phases=phases, epochs=1)
    result = train(settings)
    (job,) = [job for job in jobs if job["job"] == "train"]
    told = [(source["layer"], source["shape"]) for source in job["sources"]]
    pixels = ("", [40, 40, 3])
    kept = [("relu2", [10, 10, 8]), pixels, ("relu1", [20, 20, 6])]
    assert told == [*kept, pixels, pixels, pixels]
    # What learned meanwhile gives something else now.
    said = "What is frozen in the phase 'last' learned in a phase before, and is run again"
    assert [note[: len(said)] for note in result.notes] == [said]
    # The second training finds all of it.
    monkeypatch.setattr("kindsight.training.activation_cache.InterpreterPool", NothingToRun)
    train(settings.with_options(seed=1, runs=str(tmp_path / "second")))


def test_what_learned_before_is_frozen_as_it_is_then(pair, own, tmp_path):
    """The last epoch is judged by the network that is written, not by the backbone's file."""
    phases = [
        {"freeze": "none", "learning_rate": 0.02},
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
    logits = np.asarray(model(np.stack(pixels).astype(np.float32)), np.float64)
    right = [bundle.classes.index(row["label"]) for row in rows]
    losses = np.logaddexp.reduce(logits, 1) - logits[np.arange(len(rows)), right]
    assert History.read_csv(result.run / "history.csv").rows()[-1].val_loss == pytest.approx(
        losses.mean(), abs=1e-5
    )


def test_views_that_are_kept_are_run_once(pair, own, tmp_path, process, monkeypatch):
    """Each image as it is and three views, drawn by the image and not by its row."""
    jobs, told, made = jobs_of(process, monkeypatch), [], []
    real = JobInputs.write

    def store(file, *arguments, **options):
        views = cache_activations(file, *arguments, **options)
        pixels = file.stored.pixels(np.arange(len(file.stored)))
        made.append(([str(digest) for digest in file.stored.dataset.digest], pixels, views.rows))
        return views

    monkeypatch.setattr("kindsight.training.transfer.fit.cache_activations", store)

    def write(self, *arguments):
        path = real(self, *arguments)
        with np.load(path) as file:
            told.append({name: file[name] for name in file.files})
        return path

    monkeypatch.setattr(JobInputs, "write", write)
    settings = settings_of(
        pair, tmp_path, model=own, augment="classic",
        phases=[{"freeze": "relu2", "cached_copies": 3, "epochs": 4},
            {"freeze": "all", "epochs": 1}],
    )  # fmt: skip
    result = train(settings)
    (job,) = [job for job in jobs if job["job"] == "train"]
    assert [source["layer"] for source in job["sources"]] == ["relu2", ""]
    (arrays,) = told
    places = arrays["rows_0"]
    assert places.shape == (36, 4) and len(np.unique(places)) == 36 * 4
    assert arrays["val_rows_0"].shape == (12,) and arrays["rows_1"].shape == (36,)
    # What the child learns from is augmented already; the second phase augments for itself.
    first, second = training_plan(job).phases
    assert first.augment == Augment() and second.augment == Augment.recipe("classic")
    # By Keras alone: images as they are, and their first views.
    maps = map_activations(Path(job["sources"][0]["file"]), 0, (10, 10, 8))["map"]
    (digests, pixels, views) = made[0]
    _, model = weights_of(settings.training().backbone().keras)
    lower = keras_up_to(model, "relu2")
    for row in np.flatnonzero(views[:, 1] >= 0)[:5]:
        index = int.from_bytes(blake2b(digests[row].encode(), digest_size=8).digest(), "little")
        (view,) = augment_images(
            pixels[row][None], Augment.recipe("classic"), seed=0, epoch=1,
            index=np.array([index >> 1]),
        )  # fmt: skip
        answers = lower(np.stack([pixels[row], view]))
        kept = maps[views[row, :2]].astype(np.float32)
        assert kept == pytest.approx(answers, rel=2e-3, abs=1e-2)
    assert sorted(places[:, 0]) == sorted(views[views[:, 1] >= 0, 0])
    # The second training finds all of it, and ends the same.
    monkeypatch.setattr("kindsight.training.activation_cache.InterpreterPool", NothingToRun)
    again = train(settings.with_options(runs=str(tmp_path / "second")))
    assert without_time(again.run) == without_time(result.run)
    assert (again.run / "model.tflite").read_bytes() == (result.run / "model.tflite").read_bytes()


def keras_up_to(model, layer):
    """Return what pixels give up to a layer, by Keras."""
    import keras

    lower = keras.Model(model.inputs, model.get_layer(layer).output)
    return lambda pixels: np.asarray(lower(pixels.astype(np.float32)))


def test_stopped_while_it_learns_from_kept_views_it_ends_the_same(pair, own, tmp_path, monkeypatch):
    """Also where the disk has less room meanwhile: what is kept is there."""
    monkeypatch.setattr(network_fit, "CHECKPOINT_SECONDS", 0.0)
    settings = settings_of(
        pair,
        tmp_path / "whole",
        model=own,
        freeze="relu2",
        augment="light",
        cached_copies=2,
        epochs=3,
    )
    whole = train(settings)
    again = settings.with_options(runs=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        train(again, callback=StopAfter(3))
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    end = train(again)
    assert without_time(end.run) == without_time(whole.run) and end.notes == whole.notes
    assert (end.run / "model.tflite").read_bytes() == (whole.run / "model.tflite").read_bytes()


class NothingToRun(InterpreterPool):
    """Where everything is found, nothing is run."""

    def run(self, pixels):
        pytest.fail("run again")


@pytest.mark.parametrize("bound", ["ROOM", "HIGHEST"])
def test_what_cannot_be_kept_is_run_each_time(pair, own, tmp_path, process, monkeypatch, bound):
    """Where there is no room, or the numbers are too large for float16."""
    jobs = []
    real = process.run_job
    monkeypatch.setattr(
        process, "run_job", lambda hear=None, **job: jobs.append(job) or real(hear, **job)
    )
    monkeypatch.setattr(f"kindsight.training.transfer.cache_plan.{bound}", 1e-12)
    result = train(settings_of(pair, tmp_path, model=own, freeze="all", epochs=1))
    (job,) = [job for job in jobs if job["job"] == "train"]
    assert [source["layer"] for source in job["sources"]] == [""]
    (note,) = result.notes
    assert note.startswith("What is frozen up to relu3 is run again in each epoch: ")


def test_views_for_which_there_is_no_room_are_drawn_afresh(pair, own, tmp_path, monkeypatch):
    """Plain images of another phase still are kept; from Python it is a warning."""
    # 48 images of 5 * 5 * 8 numbers are kept in 19 kB, 36 times two views more in 29 kB more.
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "60KB")
    phases = [{"freeze": "all", "augment": "none"}, {"freeze": "all", "cached_copies": 2}]
    more = {"model": own, "phases": phases, "augment": "light", "epochs": 3, "batch_size": 8}
    result = train(settings_of(pair, tmp_path, **more))
    (note,) = result.notes
    said = "What is frozen up to relu3 is run again in each epoch, of views drawn afresh"
    assert note.startswith(said) and "for the images and 2 views of each" in note
    assert "in the cache (KINDSIGHT_CACHE_LIMIT)" in note
    with pytest.warns(UserWarning, match=said):
        ImageClassifier(**more).fit(str(pair))


# What is refused, and what is said before ---------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cut": "con"}, "3 layers begin: conv1, conv2, conv3"),
        ({"cut": "rellu2"}, "Did you mean 'relu2'"),
        ({"freeze": "conf2"}, "Did you mean 'conv2'"),
        ({"freeze": 99}, "At most 6 layers"),
        ({"cut": "relu1", "freeze": "conv3"}, "must have the layer"),
        ({"phases": [{"freeze": "all"}, {"freeze": "head"}]}, "must have the layer"),
    ],
)
def test_layers_that_there_are_not_leave_no_run(pair, own, tmp_path, given, said):
    settings = settings_of(pair, tmp_path, model=own, **given)
    with pytest.raises(SettingsError, match=said):
        train(settings)
    assert not list(tmp_path.glob("*/settings.toml"))
    with pytest.raises(SettingsError, match=said):
        layers_of(settings)
    assert (
        train(settings_of(pair, tmp_path, model=own, freeze="all", epochs=1)).run.name == "pair-1"
    )


def test_the_layers_are_told(pair, own, tmp_path):
    rows = layers_of(settings_of(pair, tmp_path, model=own, cut="relu2", freeze=2, dense=(5,)))
    told = [(row.name, row.output, row.parameters, row.trainable) for row in rows if row.parameters]
    # 3 * 3 * 3 * 6 + 6 and 4 * 6 numbers; 3 * 3 * 6 * 8 + 8 and 4 * 8; 8 * 5 + 5, 5 + 1
    assert told == [
        ("to relu1", (20, 20, 6), 168 + 24, "frozen"),
        ("conv2", (10, 10, 8), 440, "trainable"),
        ("norm2", (10, 10, 8), 32, "frozen"),
        ("head_dense1", (5,), 45, "trainable"),
        ("unit", (1,), 6, "trainable"),
    ]


def test_a_learning_rate_is_found(pair, own, tmp_path):
    sweep, _ = find_learning_rate(settings_of(pair, tmp_path, model=own, freeze="relu2"))
    assert len(sweep.rates) == len(sweep.losses) > 50


def test_a_learning_rate_is_found_on_kept_views(pair, own, tmp_path, process, monkeypatch):
    """Of the first phase alone: nothing is made for the others."""
    jobs = jobs_of(process, monkeypatch)
    phases = [{"freeze": "relu2", "augment": "light", "cached_copies": 1}, {"freeze": "relu1"}]
    sweep, _ = find_learning_rate(settings_of(pair, tmp_path, model=own, phases=phases))
    assert len(sweep.rates) == len(sweep.losses) > 50
    (job,) = [job for job in jobs if job["job"] == "find-rate"]
    assert [source["layer"] for source in job["sources"]] == ["relu2"]


# From Python -------------------------------------------------------------------------------------


def test_the_classifier_learns_in_phases(own, tmp_path):
    images = np.stack([shape(name, n) for n in range(16) for name in ("bar", "ring", "chequer")])
    labels = np.array(["bar", "ring", "chequer"] * 16)
    made = ImageClassifier(
        model=own, dropout=0.1, batch_size=8, optimizer="adam",
        phases=[{"freeze": "all", "epochs": 2}, Phase("rest", 1, 8, "sgd", 1e-3, freeze="conv2")],
    )  # fmt: skip
    made.fit(images, labels)
    assert [row.phase for row in made.history_.rows()] == ["head", "head", "rest"]
    assert made.predict_proba(images[:4]).shape == (4, 3)
    made.save(tmp_path / "bundle")
    loaded = ImageClassifier.load(tmp_path / "bundle")
    assert loaded.phases[1]["optimizer"] == "sgd" and loaded.dropout == 0.1
    assert loaded.predict_proba(images[:4]) == pytest.approx(
        made.predict_proba(images[:4]), abs=1e-6
    )
    with open(tmp_path / "bundle" / "history.csv", newline="") as file:  # noqa: PTH123
        assert [row["phase"] for row in csv.DictReader(file)] == ["head", "head", "rest"]


def test_the_small_network_learns_in_phases(pair, tmp_path):
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
