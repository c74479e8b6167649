"""ImageClassifier: scikit-learn's contract, whatever form images and labels come in."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.utils.validation import check_is_fitted

from fake_keras import FakeKeras, use_fake_keras
from kindsight import ImageClassifier, ImageDataset, Predictor, load_bundle
from kindsight.errors import (
    BundleError,
    DatasetError,
    ImageError,
    ParityError,
    SettingsError,
    UsageError,
)
from kindsight.training.engine.history import EpochRow, History
from shapes import CLASSES, shape, write_shapes

COUNT = 14


@pytest.fixture(autouse=True)
def quick_check(monkeypatch):
    use_fake_keras(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    counts = dict.fromkeys(CLASSES, COUNT)
    return write_shapes(tmp_path_factory.mktemp("classifier") / "photos", counts)


@pytest.fixture(scope="module")
def dataset(folder):
    return ImageDataset.from_folder(folder)


@pytest.fixture(scope="module")
def arrays():
    """Images in memory, and what they show."""
    images = np.stack([shape(name, n) for n in range(COUNT) for name in CLASSES])
    return images, np.array(CLASSES * COUNT)


@pytest.fixture(scope="module")
def new():
    images = np.stack([shape(name, 500 + n) for n in range(10) for name in CLASSES])
    return images, np.array(CLASSES * 10)


@pytest.fixture
def classifier(backbone):
    return ImageClassifier(size=64)


# Parameters -------------------------------------------------------------------------------------


def test_parameters_are_stored_unchanged():
    size = (64, 48)
    given = {
        "model": "x",
        "weights": "none",
        "size": size,
        "resize": "pad",
        "head": "bent",
        "tta_flips": 3,
        "tta_crops": 2,
        "seed": -1,
    }
    given |= {"class_weight": "balanced", "workers": 2, "cache": "somewhere"}
    classifier = ImageClassifier(**given)
    params = classifier.get_params()
    assert {name: params.pop(name) for name in given} == given and classifier.size is size
    assert {"epochs", "augment", "filters", "validation"} < set(params)
    assert params["layer_decay"] == 1 and params["epochs"] is None and params["freeze"] is None
    assert classifier.get_params(deep=False) == {**given, **params}


def test_parameters_can_be_set():
    classifier = ImageClassifier(seed=1)
    assert classifier.set_params(seed=2, head="linear") is classifier
    assert (classifier.seed, classifier.head) == (2, "linear")
    with pytest.raises(SettingsError, match=r"Unknown parameter 'sede'\. Did you mean 'seed'"):
        classifier.set_params(head="rbf", sede=3)
    assert classifier.head == "linear"
    assert isinstance(SettingsError("x"), ValueError)  # what scikit-learn expects


def test_a_clone_has_the_parameters_and_no_fitted_attributes(classifier, arrays):
    fitted = classifier.set_params(seed=7, size=64).fit(*arrays)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and copy is not fitted
    assert not hasattr(copy, "classes_") and hasattr(fitted, "classes_")


def test_it_is_shown_by_what_differs_from_the_defaults():
    assert repr(ImageClassifier()) == "ImageClassifier()"
    assert repr(ImageClassifier(seed=3, head="linear")) == "ImageClassifier(head='linear', seed=3)"


def test_wrong_parameters_are_said_at_fit_before_any_work(arrays):
    with pytest.raises(SettingsError) as caught:
        ImageClassifier(model="x", head="bent", seed=-1).fit(*arrays)
    assert len(str(caught.value).split("\n")) == 3


def test_scikit_learn_takes_it_for_a_classifier(classifier, arrays):
    assert is_classifier(classifier)
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier)
    check_is_fitted(classifier.fit(*arrays))


# Images and labels in every form ------------------------------------------------------------


def test_all_forms_of_the_same_images_give_the_same_classifier(classifier, folder, dataset):
    files = [dataset.file(row) for row in range(len(dataset))]
    names = [str(file) for file in files]
    fits = [
        clone(classifier).fit(dataset),
        clone(classifier).fit(folder),
        clone(classifier).fit(str(folder)),
        clone(classifier).fit(files, dataset.label),
        clone(classifier).fit(np.array(names), np.array(dataset.label)),
        clone(classifier).fit(dataset, list(dataset.label)),
    ]
    wanted = fits[0].predict_proba(dataset)
    assert wanted.shape == (3 * COUNT, 3) and wanted.dtype == np.float32
    assert wanted.sum(1) == pytest.approx(1, abs=1e-6)
    for fitted in fits:
        assert fitted.classes_.tolist() == list(CLASSES)
        for form in (dataset, files, np.array(names), folder):
            assert fitted.predict_proba(form).tobytes() == wanted.tobytes()


def test_a_classifier_is_fitted_to_arrays(classifier, arrays, new):
    fitted = classifier.fit(*arrays)
    assert fitted is classifier
    assert fitted.score(*new) > 0.7
    assert fitted.score(*new) == np.mean(fitted.predict(new[0]) == new[1])
    probabilities = fitted.predict_proba(new[0])
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(new[0])).all()
    # A list of images of different sizes is as good as one array.
    assert fitted.predict([image[: 60 + n] for n, image in enumerate(new[0][:5])]).shape == (5,)


@pytest.mark.parametrize(
    ("names", "kind"),
    [((10, 2, 33), np.integer), ((0, 1, 2), np.integer), (("b", "a", "c"), str)],
)
def test_predictions_are_labels_of_the_given_kind(classifier, arrays, new, names, kind):
    table = dict(zip(CLASSES, names, strict=True))
    y, truth = ([table[name] for name in labels] for labels in (arrays[1], new[1]))
    fitted = classifier.fit(arrays[0], y)
    assert fitted.classes_.tolist() == sorted(names)
    answers = fitted.predict(new[0])
    assert all(isinstance(answer, kind) for answer in answers)
    assert np.mean(answers == np.array(truth)) == fitted.score(new[0], truth) > 0.7
    # Column k is the probability of classes_[k].
    assert (fitted.classes_[fitted.predict_proba(new[0]).argmax(1)] == answers).all()


def test_truth_values_are_labels(classifier, arrays):
    y = arrays[1] == "ring"
    fitted = classifier.fit(arrays[0], y)
    assert fitted.classes_.tolist() == [False, True] and fitted.predict(arrays[0]).dtype == bool
    assert np.mean(fitted.predict(arrays[0]) == y) > 0.9


def test_one_hot_rows_and_whole_floats_are_labels(classifier, arrays):
    images, labels = arrays
    numbers = np.searchsorted(sorted(CLASSES), labels)
    fitted = clone(classifier).fit(images, np.eye(3)[numbers])
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.score(images, np.eye(3)[numbers]) > 0.9
    assert np.mean(fitted.predict(images) == numbers) > 0.9
    floats = clone(classifier).fit(images, numbers.astype(float))
    assert floats.classes_.dtype == float and floats.score(images, numbers.astype(float)) > 0.9
    assert floats.predict_proba(images).tobytes() == fitted.predict_proba(images).tobytes()


def test_images_without_a_label_are_left_out(classifier, arrays):
    images, labels = arrays
    known = np.arange(42) % 5 > 0
    numbers = np.where(known, np.searchsorted(sorted(CLASSES), labels), np.nan)
    with pytest.warns(UserWarning, match="9 of 42 images have no label and were left out"):
        fitted = clone(classifier).fit(images, numbers)
    alone = clone(classifier).fit(images[known], numbers[known].astype(int))
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.predict_proba(images).tobytes() == alone.predict_proba(images).tobytes()
    with pytest.warns(UserWarning, match="9 of 42 images have no label"):
        score = fitted.score(images, numbers)
    assert score == alone.score(images[known], numbers[known].astype(int))


def test_of_a_dataset_with_splits_only_the_train_split_is_used(classifier, dataset):
    inside = np.arange(len(dataset)) % COUNT < 9
    turned = {"bar": "chequer", "chequer": "ring", "ring": "bar"}
    labels = [
        label if kept else turned[str(label)]
        for label, kept in zip(dataset.label, inside, strict=True)
    ]
    split = ["train" if kept else "validation" for kept in inside]
    fitted = classifier.fit(dataset.with_columns(label=labels, split=split))
    alone = clone(classifier).fit(dataset[inside])
    assert fitted.predict_proba(dataset).tobytes() == alone.predict_proba(dataset).tobytes()


def test_a_subset_that_lacks_a_class(classifier, dataset):
    some = dataset[np.array([label != "chequer" for label in dataset.label])]
    fitted = classifier.fit(some)
    assert fitted.classes_.tolist() == ["bar", "ring"]
    assert fitted.predict_proba(some).shape == (2 * COUNT, 2)


def test_data_that_cannot_be_trained_on(classifier, arrays, dataset, tmp_path):
    images, labels = arrays
    for none in (None, [None] * 42):
        with pytest.raises(DatasetError, match="Images must have labels; got none"):
            classifier.fit(images, none)
    with pytest.raises(DatasetError, match=r"42 of 42 images have several .*ImageDataset\.open"):
        classifier.fit(images, np.ones((42, 3)))
    first = ImageDataset.from_arrays(images, np.ones((42, 3)), multi_label="first")
    assert set(first.label) == {"0"}
    with pytest.raises(DatasetError, match="this is regression"):
        classifier.fit(images, np.linspace(0, 1, 42))
    with pytest.raises(DatasetError, match="must be one label for each of 42 images; got 41"):
        classifier.fit(images, labels[:-1])
    with pytest.raises(DatasetError, match="at least two classes"):
        classifier.fit(images, ["same"] * len(images))
    with pytest.raises(DatasetError, match="Images must be a folder"):
        classifier.fit(None, labels)
    with pytest.raises(DatasetError, match="does not exist"):
        classifier.fit(tmp_path / "absent")
    assert not hasattr(classifier, "classes_")


def test_images_that_cannot_be_read(classifier, folder, dataset, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image, but a file all the same")
    files = [*(dataset.file(row) for row in range(len(dataset))), bad]
    with pytest.warns(UserWarning, match="1 of 43 images could not be read"):
        classifier.fit(files, [*dataset.label, "ring"])
    assert [(error.path, error.code) for error in classifier.problems_] == [
        (str(bad), "not-an-image")
    ]
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        classifier.predict([files[0], bad])
    assert clone(classifier).fit(dataset).problems_ == ()
    with (
        pytest.warns(UserWarning, match="could not be read"),
        pytest.raises(DatasetError, match="none of star"),
    ):
        classifier.fit(files, [*dataset.label, "star"])


def test_nothing_is_predicted_before_fit(classifier, new, tmp_path):
    for ask in (classifier.predict, classifier.predict_proba):
        with pytest.raises(UsageError, match="not fitted"):
            ask(new[0])
    with pytest.raises(UsageError, match="not fitted"):
        classifier.score(*new)
    with pytest.raises(UsageError, match="not fitted"):
        classifier.save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_fitted_again_it_forgets(classifier, arrays):
    classifier.fit(*arrays)
    two = arrays[1] != "bar"
    classifier.fit(arrays[0][two], arrays[1][two])
    assert classifier.classes_.tolist() == ["chequer", "ring"]
    assert classifier.predict_proba(arrays[0][:2]).shape == (2, 2)


def test_same_seed_same_bits(classifier, arrays, new):
    one, two = (clone(classifier).fit(*arrays).predict_proba(new[0]) for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_class_weights_reach_the_head(classifier, arrays):
    rare = (arrays[1] != "ring") | (np.arange(len(arrays[1])) < 9)
    rare &= arrays[1] != "bar"
    images, labels = arrays[0][rare], arrays[1][rare]
    assert (labels == "ring").sum() == 3
    shares = [
        clone(classifier)
        .set_params(class_weight=weight, head="linear")
        .fit(images, labels)
        .predict_proba(arrays[0])[:, 1]
        .mean()
        for weight in (None, "balanced")
    ]
    assert shares[1] > shares[0]


# scikit-learn's tools --------------------------------------------------------------------------


def test_cross_validation(classifier, dataset, arrays):
    files = [dataset.file(row) for row in range(len(dataset))]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    labels = np.array(dataset.label)
    by_form = [
        cross_val_score(classifier, dataset, labels, cv=folds, error_score="raise"),
        cross_val_score(classifier, files, labels, cv=folds, error_score="raise"),
        cross_val_score(classifier, dataset, dataset.targets, cv=folds, error_score="raise"),
    ]
    for scores in by_form:
        assert scores.shape == (3,) and scores.mean() > 0.7
    np.testing.assert_array_equal(by_form[0], by_form[1])
    np.testing.assert_array_equal(by_form[0], by_form[2])
    scores = cross_val_score(classifier, *arrays, cv=3, scoring="neg_log_loss", error_score="raise")
    assert (scores > -1).all()


def test_cross_validation_by_a_datasets_own_labels(classifier, dataset):
    shuffled = dataset[np.random.default_rng(0).permutation(len(dataset))]
    scores = cross_val_score(classifier, shuffled, cv=3, error_score="raise")
    assert scores.mean() > 0.7


def test_predictions_are_out_of_fold(classifier, dataset):
    labels = np.array(dataset.label)
    table = cross_val_predict(classifier, dataset, labels, cv=3, method="predict_proba")
    assert table.shape == (3 * COUNT, 3)
    assert np.mean(np.array(CLASSES)[table.argmax(1)] == labels) > 0.7


def test_a_search_for_parameters(classifier, dataset):
    search = GridSearchCV(
        classifier, {"head": ["linear", "rbf"], "seed": [0, 1]}, cv=3, error_score="raise"
    )
    search.fit(dataset, np.array(dataset.label))
    assert len(search.cv_results_["params"]) == 4 and search.best_score_ > 0.7
    kind = search.best_params_["head"]
    assert search.best_estimator_.head_.chosen.kind == kind
    assert search.predict(dataset).shape == (3 * COUNT,)


def test_a_search_computes_no_feature_twice(classifier, arrays, monkeypatch):
    classifier.fit(*arrays)
    monkeypatch.setattr(
        "kindsight.models.runtime.InterpreterPool.run", lambda *_: pytest.fail("computed again")
    )
    GridSearchCV(classifier, {"seed": [0, 1]}, cv=3, error_score="raise").fit(*arrays)


# Keeping ----------------------------------------------------------------------------------------


def test_a_saved_and_loaded_classifier_predicts_the_same(classifier, arrays, new, tmp_path):
    fitted = classifier.set_params(seed=5, head="linear").fit(*arrays)
    bundle = fitted.save(tmp_path / "mine")
    assert bundle.folder == tmp_path / "mine"
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert names == {"bundle.json", "model.tflite", "model.keras", "trained_on.npz"}
    loaded = ImageClassifier.load(tmp_path / "mine")
    np.testing.assert_allclose(
        loaded.predict_proba(new[0]), fitted.predict_proba(new[0]), atol=1e-5
    )
    assert (loaded.predict(new[0]) == fitted.predict(new[0])).all()
    assert loaded.score(*new) == fitted.score(*new)
    # It knows the images again that it was trained on.
    dataset = ImageDataset.from_arrays([*arrays[0][:3], *new[0][:3]], [*arrays[1][:3], *new[1][:3]])
    assert Predictor(tmp_path / "mine").evaluate(dataset).trained_on.tolist() == 3 * [True] + 3 * [
        False
    ]
    assert loaded.temperature_ == fitted.temperature_ > 0
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    assert loaded.get_params() == fitted.get_params()


def test_requested_settings_are_stored_if_others_were_chosen(classifier, arrays, tmp_path):
    """As a budget does, and a choice between backbones: fitted anew, it chooses anew."""
    fitted = classifier.fit(*arrays)
    fitted.save(tmp_path / "same")
    assert "requested_settings" not in load_bundle(tmp_path / "same").facts
    chosen = dataclasses.replace(fitted._fitted.training, head="linear")
    fitted._fitted = dataclasses.replace(fitted._fitted, training=chosen)
    fitted.save(tmp_path / "other")
    facts = load_bundle(tmp_path / "other").facts
    assert (facts["settings"]["head"], facts["requested_settings"]["head"]) == ("linear", "auto")
    assert ImageClassifier.load(tmp_path / "other").head == "auto"


def test_an_rbf_head_is_saved_too(classifier, arrays, new, tmp_path):
    fitted = classifier.set_params(head="rbf").fit(*arrays)
    fitted.save(tmp_path / "mine")
    assert load_bundle(tmp_path / "mine").facts["head"]["kind"] == "rbf"
    loaded = ImageClassifier.load(tmp_path / "mine")
    np.testing.assert_allclose(
        loaded.predict_proba(new[0]), fitted.predict_proba(new[0]), atol=1e-5
    )


def test_the_predictor_gives_what_the_classifier_gives(classifier, folder, dataset, tmp_path):
    fitted = classifier.fit(dataset)
    fitted.save(tmp_path / "mine")
    files = [dataset.file(row) for row in range(0, len(dataset), 3)]
    answers = list(Predictor(tmp_path / "mine").predict(files))
    table = np.stack([answer.probabilities for answer in answers])
    np.testing.assert_allclose(table, fitted.predict_proba(files), atol=1e-5)


def test_numbers_are_names_once_saved(classifier, arrays, tmp_path):
    y = np.unique(arrays[1], return_inverse=True)[1]
    fitted = classifier.fit(arrays[0], y * 5)
    fitted.save(tmp_path / "mine")
    loaded = ImageClassifier.load(tmp_path / "mine")
    assert loaded.classes_.tolist() == ["0", "5", "10"]  # in the order that the numbers have
    answers = loaded.predict(arrays[0])
    assert [int(answer) for answer in answers] == fitted.predict(arrays[0]).tolist()
    assert loaded.score(arrays[0], y * 5) == fitted.score(arrays[0], y * 5)


def test_a_run_can_be_loaded(trained, photos):
    loaded = ImageClassifier.load(trained.run, workers=1)
    assert loaded.classes_.tolist() == ["bar", "chequer", "ring"]
    assert (loaded.seed, loaded.size, loaded.workers) == (3, 64, 1)
    with pytest.raises(ImageError, match="cut"):
        loaded.predict([photos / "ring" / "ring 000.png", photos / "bar" / "cut.jpg"])
    assert loaded.predict_proba([shape("ring", 1)[:, :, 0]]).shape == (1, 3)


def test_a_loaded_classifier_of_any_size_can_be_fitted_anew(trained, tmp_path, arrays):
    import json
    import shutil

    shutil.copytree(trained.run, tmp_path / "copy")
    facts = json.loads((tmp_path / "copy" / "bundle.json").read_text("utf-8"))
    facts["settings"]["size"] = [64, 64]
    (tmp_path / "copy" / "bundle.json").write_text(json.dumps(facts))
    loaded = ImageClassifier.load(tmp_path / "copy")
    assert loaded.size == (64, 64)
    refitted = clone(loaded).fit(*arrays)
    assert refitted.predict(arrays[0][:3]).shape == (3,)
    loaded.fit(*arrays)
    assert loaded.predict_proba(arrays[0]).tobytes() == refitted.predict_proba(arrays[0]).tobytes()


def test_nothing_is_overwritten(classifier, arrays, tmp_path):
    fitted = classifier.fit(*arrays)
    (tmp_path / "mine").mkdir()
    fitted.save(tmp_path / "mine")  # an empty folder is as good as none
    before = (tmp_path / "mine" / "bundle.json").read_bytes()
    with pytest.raises(UsageError, match="is not empty"):
        fitted.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "bundle.json").read_bytes() == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        fitted.save(tmp_path / "file")
    with pytest.raises(UsageError, match="copy the folder"):
        ImageClassifier.load(tmp_path / "mine").save(tmp_path / "other")


def test_networks_that_disagree_are_no_bundle(classifier, arrays, tmp_path, monkeypatch):
    # Keras runs only a pairing of backbone and head that it has not run on this machine.
    monkeypatch.setattr("kindsight.training.frozen.fitted.is_verified", lambda *_: False)
    monkeypatch.setattr(FakeKeras, "offset", 0.5)
    fitted = classifier.fit(*arrays)
    with pytest.raises(ParityError):
        fitted.save(tmp_path / "mine")
    with pytest.raises(BundleError):
        ImageClassifier.load(tmp_path / "mine")
    # Nothing is left that would block the next attempt.
    assert not (tmp_path / "mine").exists()


def test_a_loaded_run_has_its_history_if_there_is_one(trained, tmp_path):
    assert not hasattr(ImageClassifier.load(trained.run), "history_")
    shutil.copytree(trained.run, tmp_path / "run")
    history = History([EpochRow(1, "training", 1.0, 0.1, 0.5, 0.75, 0.25, 0.875)])
    history.write_csv(tmp_path / "run" / "history.csv")
    assert ImageClassifier.load(tmp_path / "run").history_ == history
    (tmp_path / "run" / "history.csv").write_text("epoch\n1\n", "utf-8")
    with pytest.raises(BundleError, match="is not the history of a training"):
        ImageClassifier.load(tmp_path / "run")


def test_loading_what_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"bundle\.json"):
        ImageClassifier.load(tmp_path)


def test_tensorflow_is_never_imported(backbone, folder, environment, tmp_path):
    code = f"""
import subprocess, sys
from kindsight import ImageClassifier
started = []
real = subprocess.Popen.__init__
def note(self, *a, **o):
    started.append(a)
    real(self, *a, **o)
subprocess.Popen.__init__ = note
classifier = ImageClassifier(size=64).fit({str(folder)!r})
classifier.predict({str(folder)!r})
classifier.score({str(folder)!r})
loaded = {{name.split(".")[0] for name in sys.modules}}
print(len(started), sorted({{"tensorflow", "keras", "sklearn", "scipy"}} & loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.stdout, done.stderr) == ("0 []\n", "")


@pytest.mark.slow
def test_everything_at_its_defaults(dataset, monkeypatch, tmp_path):
    # With the real Keras, and the backbone at its own size.
    monkeypatch.undo()
    fitted = ImageClassifier().fit(dataset)
    bundle = fitted.save(tmp_path / "mine")
    assert bundle.spec.size == (224, 224)
    agreement = bundle.facts["parity"]
    # Fewer where Keras has run this pairing before.
    assert agreement["images"] in (8, 3 * COUNT) and 0 < agreement["largest_difference"] <= 1e-4
    loaded = ImageClassifier.load(tmp_path / "mine")
    np.testing.assert_allclose(
        loaded.predict_proba(dataset), fitted.predict_proba(dataset), atol=1e-5
    )
    assert fitted.score(dataset) > 0.9


def test_a_fitted_classifier_exports_itself(classifier, arrays, new, tmp_path):
    classifier.fit(*arrays)
    (found,) = classifier.export(tmp_path / "out", images=8)
    assert found.status == "proved" and found.proof.images == 8
    assert found.proof.description.endswith("training images")
    (found,) = classifier.export(tmp_path / "other", "litert-float16", *new)
    assert found.proof.images == len(new[0])
    assert found.proof.exported_accuracy.accuracy == pytest.approx(classifier.score(*new))
