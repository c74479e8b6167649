"""Two backbones side by side and several views, from pictures to a saved classifier."""

from dataclasses import replace

import numpy as np
import pytest

from kindsight import ImageClassifier
from kindsight.catalog import Catalog
from kindsight.errors import SettingsError
from kindsight.models.heads import LinearHead
from kindsight.models.layout import FeatureLayout
from kindsight.training.frozen import FrozenTraining
from kindsight.training.head import fit_head
from shapes import CLASSES, shape

PAIR = "efficientnet-lite0+mobilenet-v3-small"


@pytest.fixture(scope="module")
def pictures():
    labels = [name for name in CLASSES for _ in range(10)]
    return np.stack([shape(name, n % 10) for n, name in enumerate(labels)]), labels


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A small network of one's own."""
    import keras

    file = tmp_path_factory.mktemp("own") / "own.keras"
    keras.utils.set_random_seed(0)
    layers = keras.layers
    parts = [layers.Rescaling(1 / 255), layers.Conv2D(5, 3, strides=4, activation="relu")]
    keras.Sequential([keras.Input((64, 64, 3)), *parts], name="own").save(file)
    return str(file)


@pytest.mark.slow
def test_pair_with_views_from_pictures_to_a_saved_classifier(pictures, own, backbone, tmp_path):
    training = FrozenTraining(f"efficientnet-lite0+{own}", size=64, views=2, crops=2)
    catalog = Catalog.from_arrays(*pictures)
    files = training.backbone()
    assert files.parts[0] == backbone  # the session's own, built once
    told = []
    features = training.features(catalog, files, lambda *said: told.append(said))
    # Thirty pictures, however many passes there are.
    assert {said[::2] for said in told} == {("pictures", 30)} and told[-1][1] == 30
    assert [said[1] for said in told] == sorted(said[1] for said in told)
    width = backbone.layout.width
    assert features.vectors.shape == (30, width + files.parts[1].layout.width)
    single = replace(training, model="efficientnet-lite0")
    alone = single.features(catalog, single.backbone())
    assert (alone.computed, alone.reused) == (0, 30)  # each view of each is kept apart
    np.testing.assert_array_equal(alone.vectors, features.vectors[:, :width])
    for fewer in ({"views": 1}, {"crops": 1}, {"views": 1, "crops": 1}):
        plain = replace(single, **fewer)
        once = plain.features(catalog, plain.backbone())
        assert once.computed == 0 and not np.array_equal(once.vectors, alone.vectors)
    classifier = ImageClassifier(**training.to_dict()).fit(*pictures)
    bundle = classifier.save(tmp_path / "saved")
    assert bundle.facts["agreement"]["largest_difference"] < 1e-4
    loaded = ImageClassifier.load(tmp_path / "saved")
    np.testing.assert_allclose(
        loaded.predict_proba(pictures[0]), classifier.predict_proba(pictures[0]), atol=1e-4
    )


def two_networks(useful, seed=0):
    """Features of two networks of which only the one at `useful` tells the classes apart."""
    generator = np.random.default_rng(seed)
    targets = np.arange(120) % 2
    features = generator.normal(size=(120, 40)).astype(np.float32)
    features[:, 20 * useful : 20 * useful + 20] += 0.6 * targets[:, None]
    half = FeatureLayout.from_dict({"blocks": [["stage1_mean", 0, 10], ["top_mean", 10, 20]]})
    return features, targets, FeatureLayout.joined({"a": half, "b": half})


@pytest.mark.parametrize("useful", [0, 1])
def test_a_network_that_knows_nothing_is_never_chosen_alone(useful):
    features, targets, layout = two_networks(useful)
    head = fit_head(features, targets, 2, layout, folds=np.arange(120) // 2 % 5, kind="linear")
    assert head.chosen.network in ("", "ab"[useful])
    losses = {name: min(c.log_loss for c in head.candidates if c.network == name) for name in "ab"}
    assert losses["ab"[useful]] < 0.5 < losses["ab"[1 - useful]]


def test_a_head_of_one_network_is_narrowed_to_its_features():
    features, _, layout = two_networks(0)
    columns = layout.networks()["b"]
    kernel = np.zeros((40, 2), np.float32)
    kernel[columns] = np.arange(40).reshape(20, 2)
    head = LinearHead(kernel, np.array([1.0, -1.0], np.float32))
    narrow = head.narrowed(columns)
    assert narrow.features == 20
    np.testing.assert_allclose(
        narrow.logits(features[:, columns]), head.logits(features), atol=1e-3
    )


def test_both_are_chosen_where_each_knows_a_half():
    features, targets, layout = two_networks(0)
    features[:, 20:] += 0.6 * targets[:, None]
    head = fit_head(features, targets, 2, layout, folds=np.arange(120) // 2 % 5, kind="linear")
    assert head.chosen.network == ""
    assert {item.network for item in head.candidates} == {"", "a", "b"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "efficientnet-lite0+efficientnet-lite0"}, "up to 3 different ones"),
        ({"model": f"{PAIR}+vgg16+resnet50"}, "or up to 3 different ones"),
        ({"model": PAIR, "weights": __file__ + ".h5"}, "weights"),
        ({"model": "efficientnet-lite0+lite2"}, "Did you mean 'efficientnet-lite2'"),
        ({"views": 0}, "views must be"),
        ({"views": 5}, "views must be"),
        ({"views": True}, "views must be"),
        ({"crops": 0}, "crops must be"),
        ({"crops": 7}, "crops must be"),
    ],
)
def test_what_cannot_be_is_said(settings, said):
    with pytest.raises(SettingsError, match=said):
        FrozenTraining(**settings).spec()


def test_two_backbones_see_the_larger_size(own):
    assert FrozenTraining("efficientnet-lite0+efficientnet-lite2").spec().size == (260, 260)
    said = FrozenTraining("efficientnet-lite0+efficientnet-lite2").describe_backbone()
    assert said == "efficientnet-lite0 and efficientnet-lite2 side by side, ImageNet weights"
    said = FrozenTraining("efficientnet-lite0", views=2).describe_backbone()
    assert said == "efficientnet-lite0, ImageNet weights, mean of 2 views"
    said = FrozenTraining("efficientnet-lite0", views=2, crops=6).describe_backbone()
    assert said == "efficientnet-lite0, ImageNet weights, mean of 12 views"
    said = FrozenTraining(f"efficientnet-lite0+{own}", size=64).describe_backbone()
    assert said.endswith("lite0 and own side by side, ImageNet weights and weights of own.keras")
