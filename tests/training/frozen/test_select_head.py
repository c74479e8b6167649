"""Selection and fit of a head, on problems with a known solution."""

from dataclasses import replace

import numpy as np
import pytest

from kindsight.dataset.splits.groups import fold_indices
from kindsight.evaluation import calibrate
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.models.heads import LinearHead, RBFHead
from kindsight.training.frozen import select_head as module
from kindsight.training.frozen import softmax as softmax_module
from kindsight.training.frozen.select_head import (
    FEATURE_SETS,
    column_weights,
    feature_sets,
    fit_ensemble_head,
    fit_head,
)
from kindsight.training.frozen.softmax import Candidate, best_candidate, selection_cost


def layout(early, last):
    blocks = (FeatureBlock("stage3_mean", 0, early), FeatureBlock("top_mean", early, early + last))
    return FeatureLayout(blocks)


def folds_of(targets, count=5):
    return fold_indices(targets, None, count, seed=0)


def fit(features, targets, *, early=None, count=5, **options):
    features = np.asarray(features, np.float32)
    width = features.shape[1]
    early = width // 2 if early is None else early
    where = layout(early, width - early)
    folds = options.pop("folds", folds_of(targets, count))
    return fit_head(features, targets, int(targets.max()) + 1, where, folds=folds, **options)


def blobs(images=150, columns=12, classes=3, spread=1.2, seed=0):
    """Classes around centres of their own: linearly separable."""
    random = np.random.default_rng(seed)
    targets = np.arange(images) % classes
    centres = random.normal(size=(classes, columns))
    return (centres[targets] + spread * random.normal(size=(images, columns)), targets)


def ring(images=300, seed=0):
    """One class inside, the other around it; early and last features are the same."""
    random = np.random.default_rng(seed)
    targets = np.arange(images) % 2
    angles = random.uniform(0, 2 * np.pi, images)
    radii = np.where(targets == 1, 2.0, 0.5) + 0.1 * random.normal(size=images)
    x, y = radii * np.cos(angles), radii * np.sin(angles)
    return np.stack([x, y, x, y], axis=1), targets


def accuracy(head, features, targets):
    return float((head.layers.logits(np.asarray(features)).argmax(1) == targets).mean())


@pytest.fixture
def last_fit(monkeypatch):
    """What the last regression was fitted on, and its solution."""
    kept = {}

    def noting(columns, *rest, **options):
        solution = real(columns, *rest, **options)
        kept.update(columns=columns, solution=solution)
        return solution

    real = module.fit_softmax
    monkeypatch.setattr(module, "fit_softmax", noting)
    return kept


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_layers_compute_the_logits_of_the_regression(kind, last_fit):
    features, targets = blobs(200, 40, 4)
    features = 100 + 30 * features  # far from standardised, as features of networks are
    head = fit(features, targets, kind=kind)
    assert isinstance(head.layers, {"linear": LinearHead, "rbf": RBFHead}[kind])
    wanted = last_fit["solution"].logits(last_fit["columns"])
    assert last_fit["columns"].shape[0] == 200 and wanted.shape == (200, 4)
    np.testing.assert_allclose(head.layers.logits(features), wanted, atol=2e-3)
    assert np.ptp(wanted) > 1


@pytest.mark.parametrize("kind", ["auto", "linear", "rbf"])
def test_separable_classes_are_classified(kind):
    features, targets = blobs(spread=0.5)
    new, truth = blobs(spread=0.5, seed=0)
    head = fit(features, targets, kind=kind)
    new = new + 0.3 * np.random.default_rng(9).normal(size=new.shape)
    assert accuracy(head, new, truth) > 0.95
    assert head.chosen.accuracy > 0.95 and head.chosen.log_loss < 0.2


def test_rbf_where_classes_are_not_linearly_separable():
    features, targets = ring()
    head = fit(features, targets)
    assert head.chosen.kind == "rbf" and isinstance(head.layers, RBFHead)
    assert head.chosen.accuracy > 0.97
    assert accuracy(head, *ring(seed=1)) > 0.97
    straight = fit(features, targets, kind="linear")
    assert straight.chosen.accuracy < 0.7
    assert accuracy(straight, *ring(seed=1)) < 0.7


def test_linear_where_classes_are_linearly_separable():
    random = np.random.default_rng(0)
    features = random.normal(size=(250, 10))
    slope = random.normal(size=10)
    targets = (features @ slope + random.logistic(size=250) > 0).astype(np.int64)
    head = fit(features, targets)
    assert head.chosen.kind == "linear" and isinstance(head.layers, LinearHead)
    # What was found points the way of the truth: cosine of the angle between them.
    found = head.layers.kernel[:, 1] - head.layers.kernel[:, 0]
    assert found @ slope / np.linalg.norm(found) / np.linalg.norm(slope) > 0.95


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_kind_can_be_set(kind):
    # On each problem cross-validation would take the other kind.
    features, targets = ring() if kind == "linear" else blobs(spread=2)
    head = fit(features, targets, kind=kind)
    assert head.chosen.kind == kind == head.layers.kind


def test_the_best_candidate_is_chosen():
    features, targets = blobs()
    head = fit(features, targets)
    assert head.chosen in head.candidates
    assert head.chosen.log_loss == min(item.log_loss for item in head.candidates)
    assert {item.kind for item in head.candidates} == {"linear", "rbf"}
    assert {item.features for item in head.candidates} == {"all", "early", "last"}
    settings = [(item.kind, item.features, item.l2_strength) for item in head.candidates]
    assert len(set(settings)) == len(settings)


def test_early_features_are_used_where_they_are_informative():
    random = np.random.default_rng(1)
    features, targets = blobs(200, 20, 3, spread=0.8)
    noise = random.normal(size=(200, 20))
    early = fit(np.hstack([features, noise]), targets, early=20, kind="linear")
    late = fit(np.hstack([noise, features]), targets, early=20, kind="linear")
    assert early.chosen.features == "early"
    assert late.chosen.features == "last"
    # A head on the last mean does not look at the early stages at all.
    assert not late.layers.kernel[:20].any() and late.layers.kernel[20:].any()


def test_a_network_of_one_block():
    features, targets = blobs()
    only = FeatureLayout((FeatureBlock("top_mean", 0, 12),))
    head = fit_head(features.astype(np.float32), targets, 3, only, folds=folds_of(targets))
    assert accuracy(head, features, targets) > 0.8


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_random_labels_score_as_random(kind):
    # With 60 columns for 100 images any fit is right on what it saw; what it says of images
    # held out must be no better than a coin.
    random = np.random.default_rng(2)
    features = random.normal(size=(100, 60))
    targets = random.permutation(np.arange(100) % 2)
    head = fit(features, targets, kind=kind)
    tried = [item for item in head.candidates if item.kind == kind]
    assert all(0.3 < item.accuracy < 0.7 for item in tried)
    assert all(item.log_loss > 0.65 for item in tried)
    # And it knows: it is never sure.
    logits = head.layers.logits(features) / head.temperature
    assert head.temperature > 1 or np.abs(np.ptp(logits, axis=1)).max() < 3


def test_folds_are_predicted_by_the_fit_without_them(last_fit, monkeypatch):
    # Copies of one image under changing labels: whoever learns a label by heart is right on the
    # copies that it saw, and wrong on those held out where the labels go by the fold.
    features = np.repeat(np.eye(2), 40, axis=0)
    folds = np.tile([0, 1], 40)
    targets = np.where(folds == 0, np.repeat([0, 1], 40), np.repeat([1, 0], 40))
    head = fit(features, targets, folds=folds, kind="linear")
    assert all(item.accuracy == 0 for item in head.candidates)


def test_the_temperature_is_that_of_the_chosen_candidate_or_one():
    for seed, spread in enumerate((0.05, 1, 4)):
        features, targets = blobs(spread=spread, seed=seed)
        head = fit(features, targets)
        scaled = calibrate(head.out_of_fold, targets, folds_of(targets, 5))
        assert head.temperature == (head.chosen.temperature if scaled.scales else 1)


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_same_seed_same_bits(kind):
    features, targets = blobs(columns=60)
    one, two = (fit(features, targets, kind=kind, seed=5) for _ in range(2))
    assert one.candidates == two.candidates
    for name, array in one.layers.to_arrays().items():
        assert array.tobytes() == two.layers.to_arrays()[name].tobytes(), name


def test_another_seed_gives_nearly_the_same_logits():
    features, targets = blobs(columns=60)
    one, two = (fit(features, targets, kind="linear", seed=seed) for seed in (0, 1))
    difference = one.layers.logits(features) - two.layers.logits(features)
    assert 0 < np.abs(difference).max() < 0.2


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_order_of_images_does_not_matter_but_for_rounding(kind):
    # As long as all images are landmarks, which up to LANDMARKS images they are.
    features, targets = blobs(columns=20)
    folds, order = folds_of(targets), np.random.default_rng(3).permutation(150)
    one = fit(features, targets, folds=folds, kind=kind)
    two = fit(features[order], targets[order], folds=folds[order], kind=kind)
    assert (two.chosen.kind, two.chosen.features) == (one.chosen.kind, one.chosen.features)
    assert two.chosen.l2_strength == one.chosen.l2_strength
    assert two.temperature == pytest.approx(one.temperature, rel=0.01)
    np.testing.assert_allclose(two.layers.logits(features), one.layers.logits(features), atol=0.03)


def imbalanced():
    random = np.random.default_rng(4)
    targets = (np.arange(400) % 10 == 0).astype(np.int64)
    return random.normal(size=(400, 4)) + 1.2 * targets[:, None] * [1, 1, 0, 0], targets


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_class_weights_raise_the_recall_of_a_rare_class(kind):
    features, targets = imbalanced()
    weights = np.where(targets == 1, 5.0, 5 / 9).astype(np.float32)
    plain = fit(features, targets, kind=kind)
    heavy = fit(features, targets, kind=kind, weights=weights)
    recalls = [
        (head.layers.logits(features).argmax(1) == 1)[targets == 1].mean()
        for head in (plain, heavy)
    ]
    assert recalls[1] > recalls[0] + 0.2
    # Weights of one each are no weights.
    same = fit(features, targets, kind=kind, weights=np.ones(400, np.float32))
    np.testing.assert_array_equal(same.layers.logits(features), plain.layers.logits(features))


@pytest.mark.parametrize("kind", ["auto", "linear", "rbf"])
@pytest.mark.parametrize("counts", [(2, 2), (2, 3, 5), (1, 1), (1, 4), (2, 40)])
def test_tiny_sets(kind, counts):
    random = np.random.default_rng(6)
    targets = np.repeat(np.arange(len(counts)), counts)
    features = 6 * np.eye(len(counts))[targets] + random.normal(size=(len(targets), len(counts)))
    features = np.hstack([features, random.normal(size=(len(targets), 30))])
    head = fit(features, targets, count=max(2, min(5, *counts)), kind=kind)
    logits = head.layers.logits(features)
    assert np.isfinite(logits).all() and np.isfinite(head.chosen.log_loss)
    assert 0 < head.temperature < np.inf
    assert (logits.argmax(1) == targets).mean() >= 0.75


def test_selection_on_a_sample_and_a_fit_on_all_images(monkeypatch, last_fit):
    monkeypatch.setattr(module, "SELECTION_IMAGES", 60)
    features, targets = blobs(300, 20, 3, spread=0.8)
    head = fit(features, targets)
    assert len(last_fit["columns"]) == 300
    np.testing.assert_allclose(
        head.layers.logits(features), last_fit["solution"].logits(last_fit["columns"]), atol=2e-3
    )
    assert accuracy(head, features, targets) > 0.9


def test_the_l2_strength_is_divided_by_the_number_of_images(monkeypatch):
    given = []

    def noting(columns, targets, classes, weights, strength, *rest, **options):
        given.append(strength * len(columns))
        return real(columns, targets, classes, weights, strength, *rest, **options)

    real = module.fit_softmax
    for place in (module, softmax_module):
        monkeypatch.setattr(place, "fit_softmax", noting)
    head = fit(*blobs())
    assert given[-1] == pytest.approx(head.chosen.l2_strength)
    assert sorted({round(value, 6) for value in given}) == sorted(
        {item.l2_strength for item in head.candidates}
    )


def test_description_of_a_candidate():
    head = fit(*ring())
    assert head.chosen.describe().startswith("RBF head (gamma ")
    assert fit(*ring(), kind="linear").chosen.describe().startswith("linear head, ")


def test_the_norm_of_an_rbf_head_is_bounded(monkeypatch):
    features, targets = ring()
    wide = fit(features, targets, kind="rbf")
    norms = np.linalg.norm(wide.layers.kernel, axis=0)
    assert 1 < norms.max() <= module.MAX_NORM
    monkeypatch.setattr(module, "MAX_NORM", 0.5)
    narrow = fit(features, targets, kind="rbf")
    assert 0.1 < np.linalg.norm(narrow.layers.kernel, axis=0).max() <= 0.5
    assert narrow.candidates == wide.candidates


# Rows and columns -------------------------------------------------------------------------------


def with_profiles(places=4, profiles=4, last=4):
    names = ("stage3_mean", "stage3_rowstd", "top_mean")
    ends = np.cumsum([places, profiles, last])
    sizes = zip(names, ends - [places, profiles, last], ends, strict=True)
    return FeatureLayout(tuple(FeatureBlock(name, int(a), int(b)) for name, a, b in sizes))


def test_column_weights_by_hand():
    where = with_profiles(2, 1, 2)
    weights = {name: column_weights(where, *FEATURE_SETS[name]).tolist() for name in FEATURE_SETS}
    assert weights == {
        "no-profiles": [1, 1, 0, 1, 1],
        "all": [1, 1, 1, 1, 1],
        "early": [3, 3, 3, 1, 1],
        "last": [0, 0, 0, 1, 1],
    }


def test_feature_sets_differ():
    assert feature_sets(with_profiles()) == ("all", "no-profiles", "early", "last")
    assert feature_sets(layout(3, 2)) == ("all", "early", "last")
    assert feature_sets(FeatureLayout((FeatureBlock("top_mean", 0, 5),))) == ("all",)


@pytest.mark.parametrize("where", ["no-profiles", "profiles"])
def test_profiles_are_used_where_they_are_informative(where):
    # The classes differ in one group of columns, and the other two are noise.
    random = np.random.default_rng(2)
    targets = np.arange(200) % 2
    features = random.normal(size=(200, 30)).astype(np.float32)
    start = 0 if where == "no-profiles" else 10
    features[:, start : start + 10] += 1.1 * targets[:, None]
    fitted = fit_head(features, targets, 2, with_profiles(10, 10, 10), folds=folds_of(targets))
    assert (fitted.chosen.features == "no-profiles") == (where == "no-profiles")
    assert fitted.chosen.features != "last"


def test_selection_costs():
    last = Candidate("linear", "last", 0.2, 0.0, 0.9, 0.5, 1.0)
    assert selection_cost(last) == pytest.approx(0.51)
    every = replace(last, features="all", log_loss=0.505)
    assert selection_cost(every) == 0.505 and best_candidate([last, every]) == every
    assert best_candidate([last, replace(every, log_loss=0.511)]) == last
    # A curved head must be better by more than half a hundredth.
    curved = replace(every, kind="rbf", log_loss=0.503)
    assert best_candidate([every, curved]) == every
    assert best_candidate([every, replace(curved, log_loss=0.502)]).kind == "rbf"


def test_feature_sets_of_an_ensemble():
    names = ("one:stage3_mean", "one:top_mean")
    names += ("two:stage3_mean", "two:stage3_rowmax", "two:top_mean")
    blocks = [FeatureBlock(name, 2 * place, 2 * place + 2) for place, name in enumerate(names)]
    features, targets = blobs(columns=10)
    features = features.astype(np.float32)
    fitted = fit_ensemble_head(
        features, targets, 3, FeatureLayout(tuple(blocks)), folds=folds_of(targets)
    )
    first = [
        [item.features for item in fitted.candidates if item.network == name]
        for name in ("one", "two")
    ]
    # What leaves nothing out is not tried twice.
    assert first[0][:3] == [name for name in FEATURE_SETS if name != "no-profiles"]
    assert first[1][:4] == list(FEATURE_SETS) and "no-profiles" not in first[0]


def rarely_used(images=120, seed=0):
    """Features with columns that are 0 except for tiny values of three images, and near 1000."""
    features, targets = blobs(images, spread=2.0, seed=seed)
    random = np.random.default_rng(seed + 1)
    rare = np.zeros((images, 60), np.float32)
    for column in range(60):
        rare[random.permutation(images)[:3], column] = 1e-5 * random.uniform(0.5, 1, 3)
    nearly_constant = 1000 + 0.02 * random.normal(size=(images, 60))
    return np.concatenate([features, rare, nearly_constant], 1).astype(np.float32), targets


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_runtimes_give_the_same_probabilities(kind):
    features, targets = rarely_used()
    columns = (slice(0, 72), slice(72, 132))
    layout = FeatureLayout(
        tuple(FeatureBlock(f"{n}_mean", part.start, part.stop) for n, part in enumerate(columns))
    )
    head = fit_head(features, targets, 3, layout, folds=folds_of(targets), kind=kind, seed=1).layers
    logits = head.logits(features)
    # Another runtime's features differ by a millionth of a layer's size.
    random = np.random.default_rng(9)
    other = features.copy()
    for part in columns:
        size = np.sqrt(np.square(features[:, part]).mean())
        other[:, part] += 1e-6 * size * random.uniform(-1, 1, other[:, part].shape)
    assert np.abs(head.logits(other) - logits).max() < 2e-3
    # Sums in another order: exact ones.
    exact = features[:, ::-1].astype(np.float64) if kind == "linear" else None
    if exact is not None:
        np.testing.assert_allclose(exact @ head.kernel[::-1] + head.bias, logits, atol=1e-3)
