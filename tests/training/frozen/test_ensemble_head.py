"""Ensembles of backbones with a head each, and test-time augmentation."""

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kindsight import ImageClassifier
from kindsight.dataset import ImageDataset
from kindsight.errors import SettingsError
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.models.backbones.build import BackboneFiles
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.frozen.features import Features, compute_all_features
from kindsight.training.frozen.prepared import FrozenImages
from kindsight.training.frozen.select_head import fit_ensemble_head, fit_head
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.frozen.softmax import CrossValidation
from kindsight.training.frozen.stored_images import to_jpeg
from shapes import CLASSES, shape, write_small_network

PAIR = "efficientnet-lite0+mobilenet-v3-small"


@pytest.fixture(scope="module")
def images():
    labels = [name for name in CLASSES for _ in range(5)]
    return np.stack([shape(name, n % 5) for n, name in enumerate(labels)]), labels


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A small network as a user's Keras file."""
    return write_small_network(tmp_path_factory.mktemp("own") / "own.keras", 64)


@pytest.mark.slow
def test_an_ensemble_with_tta_from_images_to_a_saved_classifier(images, own, backbone, tmp_path):
    training = FrozenTrainer(f"efficientnet-lite0+{own}", size=64, tta_flips=2, tta_crops=2)
    dataset = ImageDataset.from_arrays(*images)
    files = training.backbone()
    assert replace(files.members[0], variants=(0,)) == backbone  # the session's own, built once
    reports = []
    features = compute_all_features(training, dataset, files, lambda *step: reports.append(step))
    # Fifteen images, however many passes there are.
    assert {step[::2] for step in reports} == {("features", 15)} and reports[-1][1] == 15
    assert [step[1] for step in reports] == sorted(step[1] for step in reports)
    width = backbone.layout.width
    assert features.vectors.shape == (15, width + files.members[1].layout.width)
    single = replace(training, model="efficientnet-lite0")
    alone = compute_all_features(single, dataset, single.backbone())
    assert (alone.computed, alone.reused) == (0, 15)  # each variant of each is cached
    np.testing.assert_array_equal(alone.vectors, features.vectors[:][:, :width])
    plain = compute_all_features(replace(single, tta_flips=1, tta_crops=1), dataset, backbone)
    assert plain.computed == 0 and not np.array_equal(plain.vectors, alone.vectors)
    classifier = ImageClassifier(**training.to_dict()).fit(*images)
    bundle = classifier.save(tmp_path / "saved")
    assert bundle.facts["parity"]["largest_difference"] < 1e-4
    loaded = ImageClassifier.load(tmp_path / "saved")
    np.testing.assert_allclose(
        loaded.predict_proba(images[0]), classifier.predict_proba(images[0]), atol=1e-4
    )


@pytest.mark.parametrize("members", [(2, 3), ()])
def test_stored_images_of_an_ensemble_are_found(tmp_path, members):
    # The feature cache of an ensemble is the first backbone's, whose rows are narrower.
    width = sum(members) or 2

    def files_of(columns, members=()):
        return BackboneFiles(
            tmp_path, tmp_path, SimpleNamespace(width=columns), "key", "digest", members
        )

    files = files_of(width, tuple(files_of(each) for each in members))
    levels, path = (40, 200), tmp_path / "t.sqlite"
    rows = [
        FeatureRow(str(level), np.zeros(2, np.float32), to_jpeg(np.full((8, 8, 3), level, "u1")))
        for level in levels
    ]
    with closing(FeatureTable(path, 2)) as table:
        table.put(rows)
    dataset = ImageDataset.from_arrays(np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"])
    dataset = replace(dataset, digest=np.array([str(level) for level in levels], object))
    features = Features(dataset, np.zeros((2, width), np.float32), (), (), 2, 0, path)
    prepared = FrozenImages(FrozenTrainer(), files, features)
    assert len(prepared.measure_similarity(np.arange(2))) == 2
    greys = prepared.small_grey(np.arange(2))
    np.testing.assert_allclose(greys.mean(axis=(1, 2)), levels, atol=2)


def two_networks(useful, seed=0):
    """Features of two networks of which only the one at `useful` is informative."""
    generator = np.random.default_rng(seed)
    targets = np.arange(120) % 2
    features = generator.normal(size=(120, 40)).astype(np.float32)
    features[:, 20 * useful : 20 * useful + 20] += 0.6 * targets[:, None]
    half = FeatureLayout.from_dict({"blocks": [["stage1_mean", 0, 10], ["top_mean", 10, 20]]})
    return features, targets, FeatureLayout.concatenated({"a": half, "b": half})


@pytest.mark.parametrize("useful", [0, 1])
def test_a_useless_backbone_is_never_used_alone(useful):
    features, targets, layout = two_networks(useful)
    head = fit_ensemble_head(
        features, targets, 2, layout, folds=np.arange(120) // 2 % 5, kind="linear"
    )
    assert head.chosen.network in ("", "ab"[useful])
    losses = {name: min(c.log_loss for c in head.candidates if c.network == name) for name in "ab"}
    assert losses["ab"[useful]] < 0.5 < losses["ab"[1 - useful]]


def test_the_ensemble_is_the_mean_of_a_head_per_backbone():
    features, targets, layout = two_networks(0)
    features[:, 20:] += 0.6 * targets[:, None]
    told = {"folds": np.arange(120) // 2 % 5, "kind": "linear"}
    head = fit_ensemble_head(features, targets, 2, layout, **told)
    assert head.chosen.network == "" and {c.network for c in head.candidates} == {"", "a", "b"}
    alone = [
        fit_head(features[:, columns], targets, 2, layout.of_network(name), **told)
        for name, columns in layout.networks().items()
    ]
    # Half of what each says, over its own temperature: by other code.
    logits = [
        one.layers.logits(features[:, columns]) / one.temperature
        for one, columns in zip(alone, layout.networks().values(), strict=True)
    ]
    np.testing.assert_allclose(head.layers.logits(features), sum(logits) / 2, atol=1e-4)
    said = sum(one.out_of_fold / one.temperature for one in alone) / 2
    np.testing.assert_allclose(head.out_of_fold, said, atol=1e-5)
    picked = np.exp(said / head.chosen.temperature)
    picked = picked[np.arange(120), targets] / picked.sum(1)
    assert head.chosen.log_loss == pytest.approx(-np.log(picked).mean(), rel=1e-4)
    assert head.chosen.accuracy == pytest.approx((said.argmax(1) == targets).mean())
    assert head.chosen.log_loss < min(one.chosen.log_loss for one in alone)
    words = head.chosen.describe()
    assert words.startswith("mean of linear head, ") and " of a, L2 strength" in words
    assert " of b, L2 strength" in words


def test_out_of_fold_logits_are_of_heads_fitted_without_the_image():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 20)).astype(np.float32)
    targets, folds = np.arange(60) % 2, np.arange(60) // 2 % 5
    layout = FeatureLayout.from_dict({"blocks": [["top_mean", 0, 20]]})
    head = fit_head(features, targets, 2, layout, folds=folds)
    # There is nothing to be learned: who has seen an image knows it, who has not does not.
    assert (head.layers.logits(features).argmax(1) == targets).mean() > 0.8
    assert (head.out_of_fold.argmax(1) == targets).mean() < 0.7
    assert head.chosen.accuracy == pytest.approx((head.out_of_fold.argmax(1) == targets).mean())


@pytest.mark.parametrize("useful", [0, 1])
def test_one_backbone_is_used_where_it_is_as_good_alone(useful, monkeypatch):
    features, targets, layout = two_networks(useful)
    score = CrossValidation.score

    def never_the_mean(task, logits, kind, *more):
        found = score(task, logits, kind, *more)
        return replace(found, log_loss=9.0) if kind == "mean" else found

    monkeypatch.setattr(CrossValidation, "score", never_the_mean)
    head = fit_ensemble_head(
        features, targets, 2, layout, folds=np.arange(120) // 2 % 5, kind="linear"
    )
    assert head.chosen.network == "ab"[useful] and head.layers.features == 20
    assert head.chosen in head.candidates and head.candidates[-1].kind == "mean"
    columns = layout.networks()["ab"[useful]]
    assert (head.layers.logits(features[:, columns]).argmax(1) == targets).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "efficientnet-lite0+efficientnet-lite0"}, "up to 3 different ones"),
        ({"model": f"{PAIR}+vgg16+resnet50"}, "or up to 3 different ones"),
        ({"model": PAIR, "weights": __file__ + ".h5"}, "weights"),
        ({"model": "efficientnet-lite0+lite2"}, "Did you mean 'efficientnet-lite2'"),
        ({"tta_flips": 0}, "`tta_flips` must be"),
        ({"tta_flips": 5}, "`tta_flips` must be"),
        ({"tta_flips": True}, "`tta_flips` must be"),
        ({"tta_crops": 0}, "`tta_crops` must be"),
        ({"tta_crops": 7}, "`tta_crops` must be"),
    ],
)
def test_invalid_settings_are_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        FrozenTrainer(**settings).spec()


def test_an_ensemble_gets_the_larger_size(own):
    assert FrozenTrainer("efficientnet-lite0+efficientnet-lite2").spec().size == (260, 260)
    said = FrozenTrainer("efficientnet-lite0+efficientnet-lite2").describe_backbone()
    assert said == "ensemble of efficientnet-lite0 and efficientnet-lite2, ImageNet weights"
    said = FrozenTrainer("efficientnet-lite0", tta_flips=2).describe_backbone()
    assert said == "efficientnet-lite0, ImageNet weights, mean of 2 TTA variants"
    said = FrozenTrainer("efficientnet-lite0", tta_flips=2, tta_crops=6).describe_backbone()
    assert said == "efficientnet-lite0, ImageNet weights, mean of 12 TTA variants"
    said = FrozenTrainer(f"efficientnet-lite0+{own}", size=64).describe_backbone()
    assert said.endswith("lite0 and own, ImageNet weights and weights of own.keras")
