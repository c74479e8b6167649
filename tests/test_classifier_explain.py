"""ImageClassifier.explain: maps, overlays and nearest images for all forms of images and models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr
from sklearn.base import clone

from fake_keras import use_fake_keras
from kindsight import ImageClassifier, ImageDataset
from kindsight.errors import ImageError, UsageError
from kindsight.explain import explain_images
from kindsight.models.formats.tflite import read_tflite
from kindsight.models.pooled_maps import MapNetwork
from shapes import CLASSES, shape, write_small_network

COUNT = 10
GRAD_CAM = "grad-cam"


def images_of(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([shape(name, first + n) for n in range(count) for name in CLASSES])
    return images, np.array(CLASSES * count)


@pytest.fixture
def quick_check(monkeypatch):
    use_fake_keras(monkeypatch)


@pytest.fixture(scope="module")
def fitted(backbone):
    return ImageClassifier(size=64).fit(*images_of(0, COUNT))


@pytest.fixture(scope="module")
def new():
    return images_of(500, 1)[0]


def check(found, classifier, images):
    assert [each.prediction.best for each in found] == classifier.predict(images).tolist()
    for each, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(each.image, image)
        for name, placed in each.maps.items():
            assert placed.values.shape == image.shape[:2]
            assert placed.values.min() >= 0 and placed.values.max() <= 1
            assert each.overlay(name).shape == image.shape
    assert any(np.ptp(placed.values) > 0 for each in found for placed in each.maps.values())


def test_arrays_files_and_datasets_have_the_same_maps(quick_check, fitted, new, tmp_path):
    found = fitted.explain(new, methods=[GRAD_CAM], nearest=2)
    check(found, fitted, new)
    files = []
    for number, image in enumerate(new):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    for other in (files, tmp_path, ImageDataset.from_files(files)):
        again = fitted.explain(other, methods=[GRAD_CAM], nearest=0)
        for one, two in zip(found, again, strict=True):
            np.testing.assert_array_equal(one.maps["grad-cam"].values, two.maps["grad-cam"].values)
            assert two.nearest == ()
    # a path is what explain_images takes, too
    bundle = fitted.save(tmp_path / "saved")
    (single,) = explain_images(bundle, [files[0]], methods=[GRAD_CAM])
    np.testing.assert_array_equal(single.maps["grad-cam"].values, found[0].maps["grad-cam"].values)


def test_nearest_training_images(quick_check, fitted):
    images, labels = images_of(0, COUNT)
    changed = images[:3].copy()
    changed[:, 30, 30] = 128  # one pixel: another file, nearly the same image
    for each, label in zip(
        fitted.explain(changed, methods=[GRAD_CAM], nearest=4), labels, strict=False
    ):
        similarities = [near.similarity for near in each.nearest]
        assert len(similarities) == 4 and similarities == sorted(similarities, reverse=True)
        assert each.nearest[0].label == label and similarities[0] > 0.9
        assert all(near.jpeg and near.file is None for near in each.nearest)  # in memory
        assert each.notes == ()
    for each in fitted.explain(images[:3], methods=[GRAD_CAM], nearest=4):
        assert each.notes == ("The classifier was trained on this image.",)
        assert len(each.nearest) == 4 and each.nearest[0].similarity < 1 - 1e-6  # not itself


def test_nearest_files_are_named(quick_check, backbone, new, tmp_path):
    images, labels = images_of(0, COUNT)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "photos" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    classifier = ImageClassifier(size=64).fit(tmp_path / "photos")
    (found, *_) = classifier.explain(new, methods=[GRAD_CAM], nearest=1)
    near = found.nearest[0]
    assert near.file == str(tmp_path / "photos" / near.path)


def test_a_loaded_classifier_explains_the_same(quick_check, fitted, new, tmp_path):
    fitted.save(tmp_path / "saved")
    loaded = ImageClassifier.load(tmp_path / "saved")
    before = fitted.explain(new, methods=[GRAD_CAM], nearest=1)
    after = loaded.explain(new, methods=[GRAD_CAM], nearest=1)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.maps["grad-cam"].values, two.maps["grad-cam"].values)
        assert len(one.nearest) == 1 and two.nearest == ()
        assert any("No nearest training images" in note for note in two.notes)


def test_a_run_has_its_training_images(trained, new):
    (found, *_) = ImageClassifier.load(trained.run).explain(new, methods=[GRAD_CAM])
    assert len(found.nearest) == 5 and found.nearest[0].file is not None


def test_target_and_versus_are_labels_of_the_kind_given(quick_check, backbone, new):
    images, labels = images_of(0, COUNT)
    numbers = np.searchsorted(CLASSES, labels)
    classifier = ImageClassifier(size=64).fit(images, numbers)
    (found, *_) = classifier.explain(
        new, methods=[GRAD_CAM], target=1, versus=np.int64(2), nearest=0
    )
    assert (found.target, found.versus) == ("1", "2")
    with pytest.raises(UsageError, match="`class` must be a class of the classifier; got '9'"):
        classifier.explain(new, target=9)
    with pytest.raises(UsageError, match="`method` must be grad-cam or occlusion; got 'lime'"):
        classifier.explain(new, methods=["lime"])


def test_errors(quick_check, fitted, new, tmp_path):
    with pytest.raises(UsageError, match="not fitted"):
        ImageClassifier().explain(new)
    with pytest.raises(UsageError, match="not fitted"):
        clone(fitted).explain(new)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        fitted.explain([broken], methods=[GRAD_CAM])


KINDS = {
    "small-cnn": {"model": "small-cnn", "size": 48, "epochs": 2, "filters": (8, 8), "dense": ()},
    "transfer": {"model": "own", "freeze": "all", "epochs": 2},
    "fine-tuned": {"model": "own", "fine_tune": "light"},
    "ensemble": {"model": "efficientnet-lite0+own", "size": 64, "tta_flips": 2},
}


def shuffled(bundle, folder):
    """Write the network with the values of each kernel shuffled; return its bundle."""
    file, random = read_tflite(bundle.tflite), np.random.default_rng(0)
    tensors = file.model.subgraphs[0].tensors
    for number in sorted(
        {each.buffer for each in tensors if not each.type and len(each.shape) > 1}
    ):
        buffer = file.model.buffers[number]
        values = np.asarray([] if buffer.data is None else buffer.data, np.uint8).tobytes()
        if len(values) >= 64:
            buffer.data = random.permutation(np.frombuffer(values, "<f4")).view(np.uint8)
    folder.mkdir()
    (folder / bundle.tflite.name).write_bytes(bytes(file.to_bytes()))
    return replace(bundle, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_explained(kind, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("kindsight.training.fine_tuning.train.is_clearly_better", lambda *_: True)
    own = write_small_network(tmp_path / "own.keras", 64)
    options = dict(KINDS[kind])
    options["model"] = options["model"].replace("own", str(own))
    classifier = ImageClassifier(**options, seed=1).fit(*images_of(0, 40))
    assert hasattr(classifier, "fine_tuning_") == (kind == "fine-tuned")
    new = images_of(500, 4)[0]
    found = classifier.explain(new, nearest=3)
    check(found, classifier, new)
    for each in found:
        assert set(each.maps) == {GRAD_CAM, "occlusion"}, each.notes
        assert len(each.nearest) == 3
    bundle = classifier.save(tmp_path / "saved")
    flattened = [each.is_flattened for each in MapNetwork(bundle.tflite).maps]
    assert flattened == [kind == "small-cnn"] * len(flattened)
    again = ImageClassifier.load(tmp_path / "saved").explain(new, nearest=0)
    for one, two in zip(found, again, strict=True):
        for name in one.maps:
            np.testing.assert_allclose(one.maps[name].values, two.maps[name].values, atol=1e-5)
    # Other weights give other maps (J. Adebayo et al., "Sanity checks for saliency maps", 2018).
    other = shuffled(bundle, tmp_path / "shuffled")
    changed = explain_images(other, ImageDataset.from_arrays(new), methods=[GRAD_CAM])
    pairs = [
        (one.maps[GRAD_CAM].values.ravel(), two.maps[GRAD_CAM].values.ravel())
        for one, two in zip(found, changed, strict=True)
        if two.prediction.error is None  # shuffled weights may give infinite logits
    ]
    correlations = [
        spearmanr(*pair).statistic for pair in pairs if all(np.ptp(each) > 0 for each in pair)
    ]
    assert not correlations or abs(np.mean(correlations)) < 0.7
