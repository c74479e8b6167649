"""From a bundle to answers: the order kept, errors as rows, and fair scores."""

import csv
import itertools

import numpy as np
import pytest

from kindsight.bundle import load_bundle
from kindsight.dataset import ImageDataset
from kindsight.errors import UsageError
from kindsight.images import read_image, resize_image
from kindsight.models.runtime import Interpreter
from kindsight.predictor import AHEAD, BUNDLE, Prediction, Predictor
from shapes import encoded, shape


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(trained.run)


@pytest.fixture(scope="module")
def files(photos):
    """Every fourth of the images that can be read."""
    return sorted(path for path in photos.rglob("* *.*"))[::4]


def table(answers):
    return np.stack([answer.probabilities for answer in answers])


def test_an_answer_by_hand(trained, photos):
    # Read, resized, run, divided by the temperature, and the softmax, each step on its own.
    bundle, file = load_bundle(trained.run), photos / "ring" / "ring 004.jpg"
    pixels = resize_image(read_image(file, target=(64, 64)), bundle.spec)
    logits = Interpreter(bundle.tflite)(pixels).astype(np.float64)
    powers = np.exp(logits / bundle.temperature)
    (answer,) = Predictor(trained.run).predict([file])
    assert answer.path == str(file) and answer.error is None
    assert answer.classes == ("bar", "chequer", "ring")
    np.testing.assert_array_equal(answer.logits, logits.astype(np.float32))
    np.testing.assert_allclose(answer.probabilities, powers / powers.sum(), atol=1e-6)
    assert answer.probabilities.dtype == np.float32


def test_what_an_answer_says():
    answer = Prediction("a", ("x", "y", "z"), probabilities=np.array([0.2, 0.5, 0.3], np.float32))
    assert answer.label == "y" and answer.confidence == pytest.approx(0.5)
    assert [name for name, _ in answer.top(2)] == ["y", "z"]
    assert [share for _, share in answer.top(9)] == pytest.approx([0.5, 0.3, 0.2])
    assert answer.top(0) == []
    nothing = Prediction("a", ("x", "y", "z"))
    assert (nothing.label, nothing.confidence, nothing.top(2)) == (None, None, [])


def test_the_order_is_kept(predictor, files):
    answers = list(predictor.predict(files))
    assert [answer.path for answer in answers] == [str(file) for file in files]
    backwards = list(predictor.predict(reversed(files)))
    np.testing.assert_array_equal(table(backwards)[::-1], table(answers))
    assert len(np.unique(table(answers), axis=0)) > len(files) // 2
    assert table(answers).sum(1) == pytest.approx(1, abs=1e-6)


def test_as_many_workers_as_are_wanted(trained, predictor, files):
    alone = list(Predictor(trained.run, workers=1).predict(files))
    np.testing.assert_array_equal(table(alone), table(predictor.predict(files)))


def test_the_answers_are_those_of_the_validation_table(trained, photos, predictor):
    # The table was made by the head as NumPy arrays on cached features, these by the LiteRT file.
    with (trained.run / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = list(predictor.predict(photos / row["path"] for row in rows))
    assert [answer.label for answer in answers] == [row["prediction"] for row in rows]
    wanted = [[float(row[f"p_{name}"]) for name in trained.classes] for row in rows]
    np.testing.assert_allclose(table(answers), wanted, atol=1e-4)


def test_what_cannot_be_read_is_a_row_and_the_rest_goes_on(predictor, photos):
    given = [
        photos / "ring" / "ring 004.jpg",
        photos / "chequer" / "letter.jpg",
        photos / "absent.jpg",
        photos / "chequer" / "empty.png",
        photos / "bar" / "cut.jpg",
        photos / "bar",
        photos / "ring" / "ring 005.webp",
    ]
    answers = list(predictor.predict(given))
    assert [answer.path for answer in answers] == [str(path) for path in given]
    codes = [answer.error.code if answer.error else None for answer in answers]
    wrong = ["not-an-image", "missing", "empty", "truncated", "not-an-image"]
    assert codes == [None, *wrong, None]
    for path, answer in zip(given[1:6], answers[1:6], strict=True):
        assert (answer.label, answer.probabilities, answer.logits) == (None, None, None)
        assert answer.error.path == str(path) and answer.error.reason


def test_names_that_no_file_can_have(predictor):
    answers = list(predictor.predict(["a\0b", "\ud800.jpg", ""]))
    assert [answer.error is None for answer in answers] == [False] * 3


def test_an_endless_list_is_taken_as_needed(predictor, photos):
    taken = []

    def names():
        for number in itertools.count():
            taken.append(number)
            yield photos / "ring" / f"ring {number % 28:03d}.png"

    answers = predictor.predict(names())
    assert taken == []
    first = list(itertools.islice(answers, 50))
    assert [answer.path[-7:] for answer in first[:2]] == ["000.png", "001.png"]
    assert len(taken) <= 50 + BUNDLE * AHEAD * (predictor._pool.workers + 1)
    answers.close()


def test_nothing_given_nothing_said(predictor):
    assert list(predictor.predict([])) == []


def test_a_single_path_is_refused_at_once(predictor, photos):
    for path in ("a.jpg", photos / "a.jpg", b"a.jpg"):
        with pytest.raises(UsageError, match="Put it in a list"):
            predictor.predict(path)


def test_a_dataset_is_answered_in_its_order(predictor, photos):
    dataset = ImageDataset.from_folder(photos)[::7]
    answers = list(predictor.predict_dataset(dataset))
    assert [answer.path for answer in answers] == list(dataset.path)
    direct = list(predictor.predict(dataset.file(row) for row in range(len(dataset))))
    for one, other in zip(answers, direct, strict=True):
        assert (one.error is None) == (other.error is None)
        if one.error is None:
            np.testing.assert_array_equal(one.logits, other.logits)
        else:
            assert (one.error.path, one.error.code) == (one.path, other.error.code)


def test_arrays_are_answered_as_files_are(predictor, tmp_path):
    images = [shape("ring", 50), shape("bar", 51, side=100), shape("chequer", 52)[:, :, 1]]
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(encoded(image, "png"))
    from_files = list(predictor.predict(files))
    answers = list(predictor.predict_dataset(ImageDataset.from_arrays(images)))
    assert [answer.path for answer in answers] == [f"array-{n:06d}" for n in range(3)]
    np.testing.assert_array_equal(table(answers), table(from_files))


def test_answers_that_are_not_finite_are_rows_with_errors(predictor, files, monkeypatch):
    real = type(predictor._pool).run_all

    def run_all(pool, images):
        pairs = zip(real(pool, images), images, strict=True)
        return [row * np.nan if image[0, 0, 0] % 2 else row for row, image in pairs]

    monkeypatch.setattr(type(predictor._pool), "run_all", run_all)
    answers = list(predictor.predict(files))
    codes = {answer.error.code if answer.error else None for answer in answers}
    assert codes == {None, "corrupt"} and len(answers) == len(files)


# Scores -----------------------------------------------------------------------------------------


def test_scores_are_those_of_the_answers(predictor, photos):
    dataset = ImageDataset.from_folder(photos)
    scores = predictor.evaluate(dataset)
    assert [error.path for error in scores.problems] == [
        "bar/cut.jpg",
        "chequer/empty.png",
        "chequer/letter.jpg",
    ]
    assert len(scores.dataset) == len(scores.probabilities) == scores.evaluation.images == 91
    right = [
        answer.label == label
        for answer, label in zip(predictor.predict_dataset(dataset), dataset.label, strict=True)
        if answer.error is None
    ]
    assert scores.evaluation.accuracy == pytest.approx(np.mean(right))
    assert (scores.unknown, scores.absent) == ({}, ())


def labelled(*labels):
    """Images of the kinds named before the colon, labelled as said after it."""
    kinds = [label.split(":")[0] for label in labels]
    names = [label.split(":")[-1] for label in labels]
    images = [shape(kind, 200 + number) for number, kind in enumerate(kinds)]
    return ImageDataset.from_arrays(images, names)


def test_unknown_classes_are_named_and_not_scored(predictor):
    known = labelled("ring", "ring", "bar", "chequer")
    wanted = predictor.evaluate(known)
    # The strangers sort before, between and after the classes that are known.
    mixed = labelled(
        "ring", "ring", "bar", "chequer", "ring:zebra", "bar:apple", "bar:apple", "bar:c"
    )
    scores = predictor.evaluate(mixed)
    assert scores.unknown == {"apple": 2, "c": 1, "zebra": 1}
    assert scores.evaluation.to_dict() == wanted.evaluation.to_dict()
    assert scores.evaluation.images == 4 and scores.absent == ()
    assert [item["support"] for item in scores.evaluation.to_dict()["classes"]] == [1, 1, 2]


def test_absent_classes_are_named(predictor):
    scores = predictor.evaluate(labelled("ring", "ring", "chequer"))
    assert scores.absent == ("bar",) and scores.unknown == {}
    assert scores.evaluation.images == 3 and np.isfinite(scores.evaluation.balanced_accuracy)


def test_labels_are_matched_by_name_never_by_place(predictor):
    # In the data "ring" is class 0 of two; in the classifier it is class 2 of three.
    dataset = labelled(*["ring"] * 12, *["ring:star"] * 3)
    assert dataset.classes == ("ring", "star")
    scores = predictor.evaluate(dataset)
    confusion = np.array(scores.evaluation.to_dict()["confusion"])
    assert confusion[2].sum() == 12 and confusion[:2].sum() == 0
    assert scores.evaluation.accuracy > 0.7


def test_images_without_label_are_not_scored(predictor):
    dataset = labelled("ring", "bar", "chequer")
    scores = predictor.evaluate(dataset.with_columns(label=["ring", None, "chequer"]))
    assert scores.evaluation.images == 2 and scores.unknown == {}


def test_nothing_to_score(predictor, tmp_path):
    with pytest.raises(UsageError, match="at least one labelled image"):
        predictor.evaluate(labelled("ring:a", "bar:b"))
    with pytest.raises(UsageError, match="at least one labelled image"):
        predictor.evaluate(ImageDataset.from_files([tmp_path / "absent.jpg"], ["ring"]))
