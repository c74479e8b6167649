"""Predictions of a cluster are those of this machine, whatever the kind of image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fake_executor import use_fake_executor
from kindsight import network_outputs
from kindsight.bundle import load_bundle
from kindsight.dataset import ImageDataset
from kindsight.errors import BundleError, DatasetError, UsageError
from kindsight.export.images import images_of_run, reference_of
from kindsight.network_outputs import Needs, NetworkWorker
from kindsight.predictor import Predictor
from shapes import encoded, shape


def rows(predictions):
    """Return all that predictions have, exactly."""
    return [
        (
            each.to_dict(),
            None if each.logits is None else each.logits.tobytes(),
            None if each.probabilities is None else each.probabilities.tobytes(),
            each.clipped, each.ood_score, str(each.error),
        )
        for each in predictions
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local(trained):
    return Predictor(trained.run, sets=0.9)


@pytest.mark.parametrize("workers", [1, 3])
def test_files_readable_or_not(local, trained, photos, monkeypatch, workers):
    executor = use_fake_executor(monkeypatch, workers=workers)
    monkeypatch.setattr(network_outputs, "BLOCK", 10)
    files = [*sorted(photos.rglob("*.*")), photos / "absent.png", photos / "bar", "a\0b", ""]
    with Predictor(trained.run, sets=0.9, on="ray") as predictor:
        assert predictor.on_cluster and not local.on_cluster
        assert rows(predictor.predict(files)) == rows(local.predict(files))
    assert executor.tasks == -(-len(files) // 10) and executor.made <= workers
    assert not predictor.on_cluster


def test_relative_names_are_read_from_anywhere(trained, photos, local, monkeypatch, tmp_path):
    executor = use_fake_executor(monkeypatch)
    monkeypatch.chdir(photos)
    names = ["ring/ring 004.jpg", "./bar/../ring/ring 000.png", "none/../ring/ring 000.png"]
    predictor = Predictor(trained.run, on="ray", sets=0.9)
    expected = rows(local.predict(names))
    stream = predictor.predict(names)
    assert rows(stream) == expected
    assert executor.checked and all(str(photos) in path for path in executor.checked)


def test_every_kind_of_image(trained, local, photos, monkeypatch):
    use_fake_executor(monkeypatch)
    path = photos / "ring" / "ring 004.jpg"
    data = path.read_bytes()
    pixels = shape("ring", 50)

    def images():
        return [
            path, str(path), data, bytearray(data), io.BytesIO(data), Image.open(path), pixels,
            pixels.astype(np.float64), pixels.tolist(), b"no image", io.BytesIO(b"none either"),
            np.str_(path), Image.open(path).convert("L"),
        ]  # fmt: skip

    predictor = Predictor(trained.run, on="ray", sets=0.9)
    assert rows(predictor.predict(images())) == rows(local.predict(images()))
    for wrong in ([object()], [np.zeros((2, 2, 7))]):
        for each in (local, predictor):
            with pytest.raises((UsageError, DatasetError)) as error:
                list(each.predict(wrong))
            assert str(error.value)


def test_arrays_and_files_of_a_dataset(trained, local, photos, monkeypatch):
    use_fake_executor(monkeypatch)
    monkeypatch.setattr(network_outputs, "BLOCK_BYTES", 40_000)
    predictor = Predictor(trained.run, on="ray", sets=0.9)
    arrays = [shape("bar", number, side=40 + number) for number in range(9)]
    for dataset in (
        ImageDataset.from_folder(photos),
        ImageDataset.from_arrays([*arrays, shape("ring", 9)[:, :, 1]]),
    ):
        assert rows(predictor.predict_dataset(dataset)) == rows(local.predict_dataset(dataset))


def test_an_evaluation_is_the_same(trained, photos, monkeypatch):
    executor = use_fake_executor(monkeypatch, workers=3)
    monkeypatch.setattr(network_outputs, "BLOCK", 7)
    dataset = ImageDataset.from_folder(photos)
    expected = Predictor(trained.run).evaluate(dataset)
    found = Predictor(trained.run, on="ray").evaluate(dataset)
    assert executor.tasks
    assert found.evaluation.to_dict() == expected.evaluation.to_dict()
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert list(found.digests) == list(expected.digests)
    assert found.trained_on.tolist() == expected.trained_on.tolist()
    assert found.trained_on.any()
    assert [str(error) for error in found.problems] == [str(error) for error in expected.problems]
    assert found.dataset == expected.dataset and found.reasons == expected.reasons


def test_an_image_that_ends_its_process_is_unreadable_alone(trained, local, photos, monkeypatch):
    files = sorted((photos / "ring").glob("ring 0*.png"))[:12]
    bad = str(files[5])
    executor = use_fake_executor(monkeypatch, loses=lambda block: bad in block.sources)
    monkeypatch.setattr(network_outputs, "BLOCK", 4)
    found = list(Predictor(trained.run, on="ray", sets=0.9).predict(files))
    assert executor.isolated == 1
    assert [each.error is not None for each in found] == [k == 5 for k in range(12)]
    assert found[5].error.code == "corrupt" and "crashed each time" in found[5].error.reason
    assert found[5].path == bad
    expected = rows(local.predict(files))
    assert [row for k, row in enumerate(rows(found)) if k != 5] == [
        row for k, row in enumerate(expected) if k != 5
    ]


def test_a_lost_image_of_an_evaluation(trained, photos, monkeypatch):
    bad = str((photos / "ring" / "ring 004.jpg").absolute())
    use_fake_executor(monkeypatch, loses=lambda block: bad in block.sources)
    dataset = ImageDataset.from_folder(photos)
    scores = Predictor(trained.run, on="ray").evaluate(dataset)
    assert "ring/ring 004.jpg" in [error.path for error in scores.problems]
    assert len(scores.dataset) == len(dataset) - len(scores.problems)


def test_a_network_that_arrives_damaged_is_not_run(trained, local):
    from fake_executor import Value

    worker = NetworkWorker(
        Value(b"damaged"), "00" * 16, "model.tflite", local.bundle.spec, 3, Needs()
    )
    with pytest.raises(BundleError, match=r"model\.tflite arrived damaged"):
        worker()


def test_no_images(trained, monkeypatch):
    executor = use_fake_executor(monkeypatch)
    assert list(Predictor(trained.run, on="ray").predict([])) == [] and executor.tasks == 0


def test_the_content_of_a_file_is_predicted_here(trained, local, monkeypatch):
    executor = use_fake_executor(monkeypatch)
    data = encoded(shape("ring", 3), "png")
    found = Predictor(trained.run, on="ray", sets=0.9).predict_bytes(data, "a")
    assert rows([found]) == rows([local.predict_bytes(data, "a")]) and executor.tasks == 0


def test_an_export_is_compared_with_the_same_predictions(trained, monkeypatch):
    executor = use_fake_executor(monkeypatch)
    bundle = load_bundle(trained.run)
    images = images_of_run(bundle, 7)
    expected, found = reference_of(bundle, images), reference_of(bundle, images, on="ray")
    assert executor.tasks == 1 and len(found.predictions) == 7
    assert rows(found.predictions) == rows(expected.predictions)
    assert found.pixels.tobytes() == expected.pixels.tobytes() and found.rows == expected.rows
