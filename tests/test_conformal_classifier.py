"""ImageClassifier's prediction sets: MAPIE's names, held-out images, saving and loading."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import clone

from fake_keras import use_fake_keras
from kindsight import ImageClassifier, ImageDataset, Predictor
from kindsight.errors import BundleError, DatasetError, SettingsError, UsageError
from kindsight.evaluation.conformal import conformal_quantile
from shapes import CLASSES, shape

COUNT = 14


def images_of(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([shape(name, first + n) for n in range(count) for name in CLASSES])
    return images, np.array(CLASSES * count)


@pytest.fixture(autouse=True)
def quick_check(monkeypatch):
    use_fake_keras(monkeypatch)


@pytest.fixture(scope="module")
def fitted(backbone):
    return ImageClassifier(size=64).fit(*images_of(0, COUNT))


@pytest.fixture(scope="module")
def new():
    return images_of(500, 10)


def test_fit_measures_sets_on_held_out_images(fitted, new):
    labels, sets = fitted.predict_set(new[0])
    assert labels.tolist() == fitted.predict(new[0]).tolist()
    assert sets.shape == (30, 3, 1) and sets.dtype == bool
    assert fitted.confidence_levels_ == (0.9,)
    held_out = fitted._fitted.held_out()
    own = 1 - held_out.probabilities[np.arange(len(held_out)), held_out.targets]
    quantile = conformal_quantile(np.sort(own.astype(float)), 0.9)
    probabilities = fitted.predict_proba(new[0])
    assert (sets[:, :, 0] == (1 - probabilities <= quantile + 1e-6)).all()
    assert fitted.risk_coverage_.images == len(held_out) == 3 * COUNT


def test_it_behaves_as_mapie_does(backbone, new):
    from mapie.classification import SplitConformalClassifier

    ours = ImageClassifier(size=64).fit(*images_of(0, COUNT))
    known = images_of(700, 10)
    theirs = SplitConformalClassifier(
        ours, confidence_level=[0.8, 0.9], conformity_score="lac", prefit=True
    )
    theirs.conformalize(*known)
    assert ours.conformalize(*known, confidence_level=[0.8, 0.9]) is ours
    expected, found = theirs.predict_set(new[0]), ours.predict_set(new[0])
    assert found[0].tolist() == expected[0].tolist()
    assert found[1].shape == expected[1].shape == (30, 3, 2)
    assert (found[1] == expected[1]).all()
    assert ours.confidence_levels_ == (0.8, 0.9)


def test_sets_of_given_images_are_saved_and_loaded(backbone, new, tmp_path):
    classifier = ImageClassifier(size=64).fit(*images_of(0, COUNT))
    classifier.conformalize(*images_of(700, 10), confidence_level=0.8, per_class=True)
    _, sets = classifier.predict_set(new[0])
    classifier.save(tmp_path / "bundle")
    loaded = ImageClassifier.load(tmp_path / "bundle")
    assert loaded.confidence_levels_ == (0.8,)
    assert loaded.risk_coverage_.images == 3 * COUNT
    probabilities = classifier.predict_proba(new[0])
    clear = np.abs(1 - probabilities - classifier._sets.sets.quantiles(0.8)) > 1e-3
    again = loaded.predict_set(new[0])[1][:, :, 0]
    assert (again == sets[:, :, 0])[clear].all()
    facts = json.loads((tmp_path / "bundle" / "bundle.json").read_text("utf-8"))["uncertainty"]
    assert facts["sets"]["per_class"] and facts["sets"]["source"] == "given images"
    assert facts["sets"]["images"] == 30 and facts["unsure"]["threshold"] is None
    # A predictor has the same sets, by name.
    predictions = Predictor(tmp_path / "bundle", sets=0.8).predict(list(new[0]))
    for prediction, row in zip(predictions, again, strict=True):
        assert set(prediction.prediction_set) == {CLASSES[k] for k in np.flatnonzero(row)}


def test_few_images_cause_a_warning(backbone, new):
    classifier = ImageClassifier(size=64).fit(*images_of(0, COUNT))
    with pytest.warns(UserWarning, match=r"too few images for a level of 0\.9.*At least 9 are"):
        classifier.conformalize(*images_of(700, 2))
    assert classifier.predict_set(new[0])[1].all()
    with pytest.warns(UserWarning, match=r"too few images of .*bar.*At least 9 are needed of each"):
        classifier.conformalize(*images_of(700, 4), per_class=True)


def test_another_level_needs_no_other_images(fitted, new):
    _, low = fitted.predict_set(new[0], 0.5)
    _, both = fitted.predict_set(new[0], [0.5, 0.9])
    assert both.shape == (30, 3, 2) and (both[:, :, :1] == low).all()
    assert (both[:, :, 0] <= both[:, :, 1]).all()
    assert fitted.confidence_levels_ == (0.9,)


@pytest.mark.parametrize("level", [0, 1.0, 90, [0.9, 2], [], "0.9"])
def test_wrong_levels(fitted, new, level):
    with pytest.raises(SettingsError, match="`confidence_level` must be"):
        fitted.predict_set(new[0], level)
    with pytest.raises(SettingsError, match="`confidence_level` must be"):
        clone(fitted).fit(*images_of(0, 4)).conformalize(*new, confidence_level=level)


def test_labels_must_be_known(fitted, new):
    with pytest.raises(DatasetError, match="must be those of the classifier; got 'cat'"):
        fitted.conformalize(new[0], ["cat"] * 30)


def test_nothing_without_a_fit(new, fitted):
    for classifier in (ImageClassifier(), clone(fitted)):
        with pytest.raises(UsageError, match="not fitted"):
            classifier.predict_set(new[0])
        with pytest.raises(UsageError, match="not fitted"):
            classifier.conformalize(*new)


def test_bundles_without_it_work_and_damaged_ones_are_named(backbone, fitted, new, tmp_path):
    fitted.save(tmp_path / "b")
    path = tmp_path / "b" / "bundle.json"
    facts = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({k: v for k, v in facts.items() if k != "uncertainty"}), "utf-8")
    older = ImageClassifier.load(tmp_path / "b")
    assert older.predict(new[0]).tolist() == fitted.predict(new[0]).tolist()
    assert not hasattr(older, "risk_coverage_")
    with pytest.raises(UsageError, match="Call conformalize"):
        older.predict_set(new[0])
    assert older.conformalize(*images_of(700, 10)).predict_set(new[0])[1].shape == (30, 3, 1)
    facts["uncertainty"]["sets"]["scores"] = [[2.0]] * 3
    path.write_text(json.dumps(facts), "utf-8")
    with pytest.raises(BundleError, match=r"bundle\.json is invalid"):
        ImageClassifier.load(tmp_path / "b")


def test_a_dataset_has_its_own_labels(fitted):
    dataset = ImageDataset.from_arrays(*images_of(800, 12))
    again = clone(fitted).fit(*images_of(0, COUNT)).conformalize(dataset, confidence_level=0.9)
    assert again._sets.sets.images == 36
