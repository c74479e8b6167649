"""Predictions of a bundle: order, errors and evaluation."""

import csv
import io
import itertools

import numpy as np
import pytest
from PIL import Image

from kindsight.bundle import load_bundle
from kindsight.dataset import ImageDataset
from kindsight.errors import DatasetError, UsageError
from kindsight.images import read_image, resize_image
from kindsight.models.runtime import Interpreter
from kindsight.predictor import AHEAD, BATCH, Prediction, Predictor
from shapes import encoded, shape


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(trained.run)


@pytest.fixture(scope="module")
def files(photos):
    """Every fourth readable image."""
    return sorted(path for path in photos.rglob("* *.*"))[::4]


def table(predictions):
    return np.stack([prediction.probabilities for prediction in predictions])


def test_a_prediction_step_by_step(trained, photos):
    # Read, resize, run, divide by the temperature, softmax.
    bundle, file = load_bundle(trained.run), photos / "ring" / "ring 004.jpg"
    pixels = resize_image(read_image(file, target=(64, 64)), bundle.spec)
    logits = Interpreter(bundle.tflite)(pixels).astype(np.float64)
    powers = np.exp(logits / bundle.temperature)
    (prediction,) = Predictor(trained.run).predict([file])
    assert prediction.path == str(file) and prediction.error is None
    assert prediction.classes == ("bar", "chequer", "ring")
    np.testing.assert_array_equal(prediction.logits, logits.astype(np.float32))
    np.testing.assert_allclose(prediction.probabilities, powers / powers.sum(), atol=1e-6)
    assert prediction.probabilities.dtype == np.float32


def test_properties_of_a_prediction():
    prediction = Prediction(
        "a", ("x", "y", "z"), probabilities=np.array([0.2, 0.5, 0.3], np.float32)
    )
    assert prediction.label == "y" and prediction.confidence == pytest.approx(0.5)
    assert [name for name, _ in prediction.top(2)] == ["y", "z"]
    assert [share for _, share in prediction.top(9)] == pytest.approx([0.5, 0.3, 0.2])
    assert prediction.top(0) == []
    nothing = Prediction("a", ("x", "y", "z"))
    assert (nothing.label, nothing.confidence, nothing.top(2)) == (None, None, [])


def test_predictions_are_in_the_order_of_the_paths(predictor, files):
    predictions = list(predictor.predict(files))
    assert [prediction.path for prediction in predictions] == [str(file) for file in files]
    backwards = list(predictor.predict(reversed(files)))
    np.testing.assert_array_equal(table(backwards)[::-1], table(predictions))
    assert len(np.unique(table(predictions), axis=0)) > len(files) // 2
    assert table(predictions).sum(1) == pytest.approx(1, abs=1e-6)


def test_the_number_of_workers_changes_nothing(trained, predictor, files):
    alone = list(Predictor(trained.run, workers=1).predict(files))
    np.testing.assert_array_equal(table(alone), table(predictor.predict(files)))


def test_predictions_equal_those_of_the_validation_table(trained, photos, predictor):
    # The table comes from the head in NumPy on cached features; these from the LiteRT file.
    with (trained.run / "validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    predictions = list(predictor.predict(photos / row["path"] for row in rows))
    assert [prediction.best for prediction in predictions] == [row["prediction"] for row in rows]
    wanted = [[float(row[f"p_{name}"]) for name in trained.classes] for row in rows]
    np.testing.assert_allclose(table(predictions), wanted, atol=1e-4)


def test_unreadable_images_have_an_error(predictor, photos):
    given = [
        photos / "ring" / "ring 004.jpg",
        photos / "chequer" / "letter.jpg",
        photos / "absent.jpg",
        photos / "chequer" / "empty.png",
        photos / "bar" / "cut.jpg",
        photos / "bar",
        photos / "ring" / "ring 005.webp",
    ]
    predictions = list(predictor.predict(given))
    assert [prediction.path for prediction in predictions] == [str(path) for path in given]
    codes = [prediction.error.code if prediction.error else None for prediction in predictions]
    wrong = ["not-an-image", "missing", "empty", "truncated", "not-an-image"]
    assert codes == [None, *wrong, None]
    for path, prediction in zip(given[1:6], predictions[1:6], strict=True):
        assert (prediction.label, prediction.probabilities, prediction.logits) == (None, None, None)
        assert prediction.error.path == str(path) and prediction.error.reason


def test_invalid_file_names(predictor):
    predictions = list(predictor.predict(["a\0b", "\ud800.jpg", ""]))
    assert [prediction.error is None for prediction in predictions] == [False] * 3


def test_an_endless_iterable_is_consumed_as_needed(predictor, photos):
    taken = []

    def names():
        for number in itertools.count():
            taken.append(number)
            yield photos / "ring" / f"ring {number % 28:03d}.png"

    predictions = predictor.predict(names())
    assert taken == []
    first = list(itertools.islice(predictions, 50))
    assert [prediction.path[-7:] for prediction in first[:2]] == ["000.png", "001.png"]
    assert len(taken) <= 50 + BATCH * AHEAD * (predictor._pool.workers + 1)
    predictions.close()


def test_no_paths(predictor):
    assert list(predictor.predict([])) == []


def test_the_content_of_a_file_with_a_name(predictor, photos):
    path = photos / "ring" / "ring 000.png"
    (expected,) = predictor.predict([path])
    prediction = predictor.predict_bytes(path.read_bytes(), "ring")
    assert prediction.path == "ring"
    np.testing.assert_array_equal(prediction.logits, expected.logits)
    assert predictor.predict_bytes(b"").error.code == "empty"


def test_a_single_image_is_a_list_of_one(predictor, photos):
    file = photos / "ring" / "ring 004.jpg"
    data = file.read_bytes()
    (expected,) = predictor.predict([file])
    for image in (file, str(file), data, bytearray(data), io.BytesIO(data), Image.open(file)):
        (prediction,) = predictor.predict(image)
        assert prediction.label == expected.label, type(image)
        assert len(prediction.path) < 400
    with pytest.raises(UsageError, match=r"\[image\]"):  # may be several grey images
        predictor.predict(read_image(file))
    for wrong in (None, 3, {"a": data}):
        with pytest.raises(UsageError, match="list of paths, arrays or images; got") as error:
            predictor.predict(wrong)
        assert len(str(error.value)) < 400


def test_all_kinds_of_images_give_the_same_prediction(predictor, tmp_path):
    pixels = shape("ring", 50)
    file = tmp_path / "ring.png"
    file.write_bytes(encoded(pixels, "png"))
    data = file.read_bytes()
    kinds = {
        "path": (file, str(file)), "text": (str(file), str(file)), "bytes": (data, "image-000002"),
        "memory": (io.BytesIO(data), "image-000003"), "file": (file.open("rb"), str(file)),
        "opened": (Image.open(file), str(file)),
        "pillow": (Image.fromarray(pixels), "image-000006"),
        "array": (pixels, "image-000007"), "floats": (pixels.astype(float), "image-000008"),
        "lists": (pixels.tolist(), "image-000009"),
    }  # fmt: skip
    predictions = list(predictor.predict(image for image, _ in kinds.values()))
    assert [prediction.path for prediction in predictions] == [name for _, name in kinds.values()]
    for kind, prediction in zip(kinds, predictions, strict=True):
        np.testing.assert_array_equal(prediction.logits, predictions[0].logits, err_msg=kind)
    several = list(predictor.predict(np.stack([pixels, pixels])))
    np.testing.assert_array_equal(several[1].logits, predictions[0].logits)
    names = list(predictor.predict(np.array([str(file)])))
    assert [prediction.path for prediction in names] == [str(file)]
    dataset = list(predictor.predict(ImageDataset.from_files([file])))
    np.testing.assert_array_equal(dataset[0].logits, predictions[0].logits)


def test_unreadable_bytes_and_files_have_an_error(predictor, photos):
    cut = (photos / "bar" / "cut.jpg").read_bytes()
    images = [b"", b"text", cut, io.BytesIO(), io.BytesIO(cut), Image.open(io.BytesIO(cut))]
    predictions = list(predictor.predict(images))
    codes = [prediction.error.code for prediction in predictions]
    assert codes == ["empty", "not-an-image", "truncated", "empty", "truncated", "truncated"]
    assert predictions[2].error.path == "image-000002"


def test_what_is_no_image_is_an_error(predictor):
    image = shape("ring", 50)
    wrong = [
        (None, "NoneType"), (3, "int"), ({}, "dict"), (io.StringIO("a"), "'rb'"),
        (image / 255, "between 0 and 1"), (image > 99, "bool"), (image[..., :2], "image 1"),
        (np.dstack([image, image[..., :1]]), "alpha"), (image * 2.5, "from"),
        (image[:0], "empty"), ([[1, 2], [3]], "no shape"), (np.array(["a", "b"]), "shape"),
    ]  # fmt: skip
    for value, words in wrong:
        with pytest.raises(UsageError, match=words) as error:
            list(predictor.predict([image, value]))
        assert len(str(error.value)) < 400


def test_predict_dataset(predictor, photos):
    dataset = ImageDataset.from_folder(photos)[::7]
    predictions = list(predictor.predict_dataset(dataset))
    assert [prediction.path for prediction in predictions] == list(dataset.path)
    direct = list(predictor.predict(dataset.file(row) for row in range(len(dataset))))
    for one, other in zip(predictions, direct, strict=True):
        assert (one.error is None) == (other.error is None)
        if one.error is None:
            np.testing.assert_array_equal(one.logits, other.logits)
        else:
            assert (one.error.path, one.error.code) == (one.path, other.error.code)


def test_arrays_give_the_same_predictions_as_files(predictor, tmp_path):
    images = [shape("ring", 50), shape("bar", 51, side=100), shape("chequer", 52)[:, :, 1]]
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(encoded(image, "png"))
    from_files = list(predictor.predict(files))
    predictions = list(predictor.predict_dataset(ImageDataset.from_arrays(images)))
    assert [prediction.path for prediction in predictions] == [f"array-{n:06d}" for n in range(3)]
    np.testing.assert_array_equal(table(predictions), table(from_files))


def test_infinite_logits_are_an_error(predictor, files, monkeypatch):
    real = type(predictor._pool).run_both

    def run_both(pool, images):
        pairs = zip(real(pool, images), images, strict=True)
        return [
            (row * np.nan if image[0, 0, 0] % 2 else row, score) for (row, score), image in pairs
        ]

    monkeypatch.setattr(type(predictor._pool), "run_both", run_both)
    predictions = list(predictor.predict(files))
    codes = {prediction.error.code if prediction.error else None for prediction in predictions}
    assert codes == {None, "corrupt"} and len(predictions) == len(files)


# Scores -----------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_predictions(predictor, photos):
    dataset = ImageDataset.from_folder(photos)
    scores = predictor.evaluate(dataset)
    assert [error.path for error in scores.problems] == [
        "bar/cut.jpg",
        "chequer/empty.png",
        "chequer/letter.jpg",
    ]
    assert len(scores.dataset) == len(scores.probabilities) == 91
    assert (scores.evaluation.images, scores.evaluation.copies) == (90, 1)
    right = [
        prediction.best == label
        for prediction, label in zip(predictor.predict_dataset(dataset), dataset.label, strict=True)
        if prediction.error is None
    ]
    once = dict(zip(scores.digests, right, strict=True))
    assert scores.evaluation.accuracy == pytest.approx(np.mean(list(once.values())))
    assert (scores.unknown_classes, scores.absent_classes) == ({}, ())


def test_copies_of_a_file_count_once(predictor, photos, tmp_path):
    """Three files are one image; the metrics are those of the images without copies."""
    dataset = ImageDataset.from_folder(photos)
    wanted = predictor.evaluate(dataset)
    row = next(n for n, name in enumerate(wanted.dataset.path) if "ring" in name)
    copies = []
    for number in range(2):
        copies.append(tmp_path / f"copy-{number}.jpg")
        copies[-1].write_bytes((photos / wanted.dataset.path[row]).read_bytes())
    paths = [*(photos / name for name in wanted.dataset.path), *copies]
    labels = [*wanted.dataset.label, *([wanted.dataset.label[row]] * 2)]
    scores = predictor.evaluate(ImageDataset.from_files(paths, labels))
    assert len(scores.probabilities) == wanted.evaluation.images + wanted.evaluation.copies + 2
    assert scores.evaluation.copies == wanted.evaluation.copies + 2
    assert {**scores.evaluation.to_dict(), "copies": 0} == {
        **wanted.evaluation.to_dict(),
        "copies": 0,
    }
    assert scores.trained_images() == wanted.trained_images()


def labelled(*labels):
    """Make images: "ring:star" is a ring labelled star."""
    kinds = [label.split(":")[0] for label in labels]
    names = [label.split(":")[-1] for label in labels]
    images = [shape(kind, 200 + number) for number, kind in enumerate(kinds)]
    return ImageDataset.from_arrays(images, names)


def test_unknown_classes_are_not_scored(predictor):
    known = labelled("ring", "ring", "bar", "chequer")
    wanted = predictor.evaluate(known)
    # The unknown classes sort before, between and after the classes that are known.
    mixed = labelled(
        "ring", "ring", "bar", "chequer", "ring:zebra", "bar:apple", "bar:apple", "bar:c"
    )
    scores = predictor.evaluate(mixed)
    assert scores.unknown_classes == {"apple": 2, "c": 1, "zebra": 1}
    assert scores.evaluation.to_dict() == wanted.evaluation.to_dict()
    assert scores.evaluation.images == 4 and scores.absent_classes == ()
    assert [item["support"] for item in scores.evaluation.to_dict()["classes"]] == [1, 1, 2]


def test_absent_classes_are_named(predictor):
    scores = predictor.evaluate(labelled("ring", "ring", "chequer"))
    assert scores.absent_classes == ("bar",) and scores.unknown_classes == {}
    assert scores.evaluation.images == 3 and np.isfinite(scores.evaluation.balanced_accuracy)


def test_labels_are_matched_by_name_not_by_index(predictor):
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
    assert scores.evaluation.images == 2 and scores.unknown_classes == {}


def test_nothing_to_score(predictor, tmp_path):
    with pytest.raises(DatasetError, match="None of the classes of the data is known to the"):
        predictor.evaluate(labelled("ring:a", "bar:b"))
    with pytest.raises(UsageError, match="at least one labelled image"):
        predictor.evaluate(ImageDataset.from_files([tmp_path / "absent.jpg"], ["ring"]))
