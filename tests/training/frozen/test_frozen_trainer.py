"""The frozen trainer: its settings, and a head fitted on images."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.errors import DatasetError, SettingsError
from kindsight.images import InputSpec, resize_image
from kindsight.models.backbones.build import BackboneFiles
from kindsight.training.frozen import fitted as module
from kindsight.training.frozen import prepared
from kindsight.training.frozen.features import compute_all_features
from kindsight.training.frozen.fitted import fit_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from shapes import CLASSES, shape


def dataset_of(count=10, classes=CLASSES, copies=1):
    images = [shape(name, n) for name in classes for n in range(count) for _ in range(copies)]
    labels = [name for name in classes for _ in range(count * copies)]
    return ImageDataset.from_arrays(images, labels)


@pytest.fixture
def training(tmp_path, backbone, machine_cache):
    """A trainer with its own feature cache and the session's backbone."""
    return FrozenTrainer(size=64, cache=tmp_path / "cache")


def fit(training, backbone, dataset, classes=CLASSES, rows=None):
    features = compute_all_features(training, dataset, backbone)
    return fit_frozen(training, features, backbone, classes, rows)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"model": "efficientnet-lite9"}, "efficientnet-lite0"),
        ({"head": "bent"}, "`head` must be one of auto, linear, rbf"),
        ({"class_weight": "heavy"}, "`class_weight` must be one of none, balanced"),
        ({"resize": "squash"}, "`resize` must be one of "),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"seed": 1.5}, "`seed` must be a whole number"),
        ({"seed": True}, "`seed` must be a whole number"),
        ({"seed": 2**63}, "`seed` must be a whole number"),
        ({"workers": 0}, "`workers` must be a whole number"),
        ({"workers": "two"}, "`workers` must be a whole number"),
        ({"size": 31}, "`size` must be a whole number of pixels from 32 to 1024"),
        ({"size": 1025}, "`size` must be"),
        ({"size": 0}, "`size` must be"),
        ({"size": 64.5}, "`size` must be"),
        ({"size": "64"}, "`size` must be"),
        ({"size": (64,)}, "`size` must be"),
        ({"size": (64, 64, 3)}, "`size` must be"),
        ({"size": (64, 5)}, "`size` must be"),
        ({"size": ()}, "`size` must be"),
    ],
)
def test_invalid_settings(setting, said):
    training = FrozenTrainer(**setting)
    (fault,) = training.faults()
    assert said in fault and fault.count("; got ") == 1
    with pytest.raises(SettingsError) as caught:
        training.spec()
    assert str(caught.value) == fault


def test_all_faults_are_named_at_once():
    faults = FrozenTrainer(model="x", head="x", resize="x", seed=-1, workers=0, size=1).faults()
    assert len(faults) == 6


def test_the_spec_of_the_settings():
    assert FrozenTrainer().spec().size == (224, 224)
    assert FrozenTrainer(size=96, resize="pad").spec() == InputSpec(96, 96, fit="pad")
    assert FrozenTrainer(size=(64, 48), resize="stretch").spec() == InputSpec(64, 48)
    assert FrozenTrainer(size=np.int64(64), seed=np.int32(3), workers=np.int64(2)).faults() == []


def test_the_backbone_is_an_entry_of_the_cache(backbone, machine_cache):
    assert isinstance(backbone, BackboneFiles)
    names = [entry.name for entry in Cache(machine_cache).entries() if entry.kind == "backbone"]
    assert names.count(backbone.key) == 2  # for LiteRT and for Keras


def test_a_classifier_of_images_is_fitted(training, backbone):
    dataset = dataset_of(12)
    seen = []
    features = compute_all_features(training, dataset, backbone, lambda *step: seen.append(step))
    fitted = fit_frozen(training, features, backbone, CLASSES)
    assert seen[-1] == ("features", 36, 36)
    assert fitted.classes == CLASSES and fitted.rows.tolist() == list(range(36))
    new = dataset_of(30)[np.arange(90) % 30 >= 12]
    logits = fitted.head.layers.logits(compute_all_features(training, new, backbone).vectors)
    assert (logits.argmax(1) == new.targets).mean() > 0.8
    assert fitted.seconds > 0


def test_only_the_given_rows_are_trained_on(training, backbone):
    # Outside the rows every label is wrong: learned from, they would be believed.
    dataset = dataset_of(20)
    rows = np.flatnonzero(np.arange(60) % 20 < 12)
    turned = {"bar": "chequer", "chequer": "ring", "ring": "bar"}
    labels = [
        label if row in rows else turned[str(label)] for row, label in enumerate(dataset.label)
    ]
    fitted = fit(training, backbone, dataset.with_columns(label=labels), rows=rows)
    alone = fit(training, backbone, dataset[rows])
    assert fitted.rows.tolist() == rows.tolist()
    one, two = (one.head.layers.logits(fitted.features.vectors) for one in (fitted, alone))
    np.testing.assert_array_equal(one, two)
    assert (one.argmax(1) == dataset.targets).mean() > 0.8


def test_logits_are_in_the_order_of_the_classes(training, backbone):
    dataset = dataset_of()
    plain = fit(training, backbone, dataset)
    turned = fit(training, backbone, dataset, ("ring", "bar", "chequer"))
    assert turned.classes == ("ring", "bar", "chequer")
    vectors = plain.features.vectors
    answers = [
        [one.classes[k] for k in one.head.layers.logits(vectors).argmax(1)]
        for one in (plain, turned)
    ]
    assert np.mean(np.array(answers[0]) == np.array(dataset.label)) > 0.9
    assert np.mean(np.array(answers[0]) == np.array(answers[1])) > 0.95


def test_the_order_of_images_changes_only_rounding(training, backbone):
    dataset, order = dataset_of(12), np.random.default_rng(0).permutation(36)
    one, two = fit(training, backbone, dataset), fit(training, backbone, dataset[order])
    assert one.head.chosen.describe() == two.head.chosen.describe()
    vectors = one.features.vectors
    np.testing.assert_allclose(
        one.head.layers.logits(vectors), two.head.layers.logits(vectors), atol=0.05
    )


def test_the_seed_reaches_the_folds_and_the_head(training, backbone, monkeypatch):
    seen = []
    real = module.fit_head

    def noting(*arguments, **options):
        seen.append((options["folds"].tolist(), options["seed"], options["kind"]))
        return real(*arguments, **options)

    monkeypatch.setattr(module, "fit_head", noting)
    dataset = dataset_of()
    for seed in (0, 0, 1):
        fit(replace(training, seed=seed, head="linear"), backbone, dataset)
    assert seen[0] == seen[1] and seen[0][0] != seen[2][0]
    assert [one[1:] for one in seen] == [(0, "linear"), (0, "linear"), (1, "linear")]


def test_duplicates_are_in_one_fold(training, backbone, monkeypatch):
    seen = {}
    real = module.fit_head
    monkeypatch.setattr(
        module, "fit_head", lambda *a, **o: seen.update(folds=o["folds"]) or real(*a, **o)
    )
    fit(training, backbone, dataset_of(8, copies=3))
    folds = seen["folds"].reshape(24, 3)
    assert (folds == folds[:, :1]).all() and len(np.unique(folds)) == 5


def test_balanced_weights_by_hand(training, backbone, monkeypatch):
    seen = []
    real = module.fit_head
    monkeypatch.setattr(
        module, "fit_head", lambda *a, **o: seen.append(o["weights"]) or real(*a, **o)
    )
    dataset = dataset_of()[np.array([0, 1, 2, 3, 4, 5, 10, 11, 12, 20, 21, 22])]
    for setting in (None, "none", "balanced"):
        fit(replace(training, class_weight=setting), backbone, dataset)
    assert seen[0] is None and seen[1] is None
    # Twelve images in three classes of 6, 3 and 3: four shall count for each class.
    assert seen[2] == pytest.approx([4 / 6] * 6 + [4 / 3] * 6)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 2, 2), (2, 3, 5), (1, 10, 10)])
def test_few_images(training, backbone, counts):
    rows = [10 * k + n for k, count in enumerate(counts) for n in range(count)]
    dataset = dataset_of()[np.array(rows)]
    fitted = fit(training, backbone, dataset)
    logits = fitted.head.layers.logits(fitted.features.vectors)
    assert np.isfinite(logits).all() and 0 < fitted.head.temperature < 100
    assert (logits.argmax(1) == dataset.targets).mean() > 0.7


def test_a_class_of_one_repeated_image(training, backbone):
    images = [shape("ring", 1)] * 4 + [shape("bar", 1)] * 4
    dataset = ImageDataset.from_arrays(images, ["ring"] * 4 + ["bar"] * 4)
    fitted = fit(training, backbone, dataset, ("bar", "ring"))
    logits = fitted.head.layers.logits(fitted.features.vectors)
    assert logits.argmax(1).tolist() == [1] * 4 + [0] * 4


def test_one_repeated_image_is_refused(training, backbone):
    dataset = ImageDataset.from_arrays([shape("ring", 1)] * 4, ["a", "a", "b", "b"])
    with pytest.raises(DatasetError, match="4 times the same"):
        fit(training, backbone, dataset, ("a", "b"))


def test_a_class_without_an_image_is_refused(training, backbone):
    with pytest.raises(DatasetError, match="none of ellipse, star"):
        fit(training, backbone, dataset_of(), (*CLASSES, "ellipse", "star"))


def test_a_single_class_is_refused(training, backbone):
    with pytest.raises(DatasetError, match="at least two classes"):
        fit(training, backbone, dataset_of(classes=("bar",)), ("bar",))


def test_stored_pixels_are_the_resized_images(training, backbone):
    dataset = dataset_of(4)
    fitted = fit(training, backbone, dataset)
    digests = [str(digest) for digest in fitted.features.dataset.digest]
    order = [7, 3, 11, 0]
    pixels = fitted.read_pixels([digests[row] for row in order])
    assert pixels.shape == (4, 64, 64, 3) and pixels.dtype == np.uint8
    for row, kept in zip(order, pixels, strict=True):
        wanted = resize_image(dataset.load(row), training.spec())
        # A JPEG is not exact, and noise is the worst for it.
        assert 0 < np.abs(kept.astype(int) - wanted).mean() < 12
        others = [resize_image(dataset.load(n), training.spec()) for n in range(12) if n != row]
        assert min(np.abs(kept.astype(int) - other).mean() for other in others) > 12


def test_pixels_missing_in_the_cache_are_read_again(training, backbone):
    dataset = dataset_of(4)
    fitted = fit(training, backbone, dataset)
    # An open table would be spared.
    fitted = replace(fitted, features=replace(fitted.features, open_tables=()))
    gc.collect()
    Cache(training.cache).clear("features")
    order = [5, 2]
    pixels = fitted.read_pixels([str(fitted.features.dataset.digest[row]) for row in order])
    # Not through a JPEG this time.
    wanted = np.stack([resize_image(dataset.load(row), training.spec()) for row in order])
    np.testing.assert_array_equal(pixels, wanted)


def test_held_out_predictions_are_of_heads_without_the_image(training, backbone):
    dataset = dataset_of(8, copies=3)
    fitted = fit(training, backbone, dataset)
    held = fitted.held_out()
    assert held.source == "out-of-fold predictions" and held.temperature == fitted.temperature
    # Copies count once.
    assert len(held) == 24 and held.rows.tolist() == [*range(0, 72, 3)]
    assert held.logits.shape == (24, 3) and held.logits.dtype == np.float32
    assert (held.targets == dataset[held.rows].targets).all()
    assert np.unique(held.folds).tolist() == [0, 1, 2, 3, 4]
    scaled = np.exp(held.logits.astype(float) / held.temperature)
    assert held.probabilities == pytest.approx(scaled / scaled.sum(1)[:, None], abs=1e-6)
    logits = fitted.head.layers.logits(fitted.features.vectors[held.rows])
    assert np.abs(logits - held.logits).max(1).min() > 1e-3


def test_held_out_predictions_follow_a_refit(training, backbone):
    dataset = dataset_of(8)
    fitted = fit(training, backbone, dataset)
    some = np.arange(0, 24, 2)
    held = fitted.refit(some).held_out()
    assert held.rows.tolist() == some.tolist()


def test_keras_waits_until_a_head_of_many_images_is_fitted(training, backbone, monkeypatch):
    dataset, calls = dataset_of(4), []

    class Worker:
        def __getattr__(self, name):
            return lambda *arguments, **options: calls.append(name)

    worker = Worker()
    worker.wants_gpu = lambda images: False
    monkeypatch.setattr(FrozenTrainer, "backbone", lambda *arguments: backbone)
    for limit, wanted in ((13, ["run_ahead"]), (12, ["close_in_background"])):
        monkeypatch.setattr(prepared, "THREADED_IMAGES", limit)
        calls.clear()
        images = prepared.prepare_frozen(training, dataset, keras=worker)
        images.warm_up(worker, np.arange(12), verify="full")
        assert calls == wanted
