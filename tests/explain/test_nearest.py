"""The nearest training images, and the feature vectors of a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import tiny_conv
from kindsight.bundle import load_bundle
from kindsight.explain.similarity import TrainingImages, feature_vector
from kindsight.models.pooled_maps import MapNetwork, PooledMap
from kindsight.runs.feature_vectors import run_vectors
from kindsight.runs.record import RunImage
from kindsight.runs.settings import TrainSettings


def training_images(vectors) -> TrainingImages:
    vectors = np.array(vectors, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple("abcdef"[: len(vectors)])
    return TrainingImages(
        names, names, names, vectors, len(names), lambda digest: digest.encode(), lambda path: None
    )


def test_the_highest_cosine_comes_first():
    images = training_images([[1, 0], [1, 1], [0, 1], [-1, 0]])
    found = images.nearest(np.array([1, 0.1], np.float32) / np.float32(1.01**0.5), 2)
    assert [each.path for each in found] == ["a", "b"]
    assert found[0].similarity == pytest.approx(1 / 1.01**0.5)
    assert (found[0].jpeg, found[0].file) == (b"a", None)


def test_the_image_itself_is_left_out():
    images = training_images([[1, 0], [1, 1], [0, 1]])
    found = images.nearest(np.array([1, 0], np.float32), 2, "a")
    assert [each.path for each in found] == ["b", "c"]
    assert len(images.nearest(np.array([1, 0], np.float32), 9)) == 3


def test_the_vector_is_the_mean_of_the_last_maps_of_each_network():
    maps = [
        PooledMap(1, 2, 2, 1, is_last=False),
        PooledMap(2, 1, 2, 2),
        PooledMap(3, 1, 2, 2, flips=(2,)),
        PooledMap(4, 1, 1, 1),
    ]
    values = [np.full((2, 2, 1), 9), np.array([[[3, 0], [3, 8]]]), np.ones((1, 2, 2)),
              np.array([[[7]]])]  # fmt: skip
    found = feature_vector(maps, [each.astype(np.float32) for each in values])
    # (3, 4) / 5 and 7 / 7, together of length 1
    np.testing.assert_allclose(found, np.array([0.6, 0.8, 1]) / 2**0.5, rtol=1e-6)


def run_with_images(tmp_path):
    bundle = load_bundle(tiny_conv.write_bundle(tmp_path / "run", tiny_conv.colour_weights()))
    images = []
    for number in range(6):
        label = tiny_conv.CLASSES[number % 2]
        path = tmp_path / "data" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (255 - number, 20, 20) if label == "red" else (20, 255 - number, 20)
        Image.fromarray(tiny_conv.patched(number % 4, colour)).save(path)
        from kindsight.digest import content_digest

        digest = content_digest(path.read_bytes())
        images.append(RunImage(f"{label}/{number}.png", label, "train", digest))
    settings = TrainSettings(str(tmp_path / "data"), model="small-cnn")
    return bundle, settings, images


def test_vectors_are_computed_once_and_survive_the_images(tmp_path):
    bundle, settings, images = run_with_images(tmp_path)
    cache = tmp_path / "cache"
    found = run_vectors(bundle, settings, images, cache=cache)
    assert (found.missing, found.problem, found.images.total) == (0, "", 6)
    network = MapNetwork(bundle.tflite)
    for path, vector in zip(found.images.paths, found.images.vectors, strict=True):
        pixels = np.asarray(Image.open(tmp_path / "data" / path))
        _, maps = network.run(pixels)
        np.testing.assert_allclose(vector, feature_vector(network.maps, maps), rtol=1e-5)
    row = found.images.paths.index("red/1.png")
    near = found.images.nearest(found.images.vectors[row], 3)
    assert [each.label for each in near] == ["red"] * 3
    assert near[0].file == str(tmp_path / "data" / near[0].path)

    (tmp_path / "data").rename(tmp_path / "moved")
    again = run_vectors(bundle, settings, images, cache=cache)
    np.testing.assert_array_equal(again.images.vectors, found.images.vectors)
    near = again.images.nearest(found.images.vectors[row], 1)[0]
    assert near.file is None and near.jpeg.startswith(b"\xff\xd8")


def test_images_that_are_gone_are_counted_with_the_reason(tmp_path):
    bundle, settings, images = run_with_images(tmp_path)
    (tmp_path / "data" / "red" / "1.png").unlink()
    found = run_vectors(bundle, settings, images, cache=tmp_path / "cache")
    assert len(found.images.paths) == 5 and found.missing == 1 and found.problem
    nowhere = run_vectors(bundle, None, images, cache=tmp_path / "other")
    assert nowhere.images.paths == () and "settings.toml" in nowhere.problem


def test_hostile_names_of_tables_are_not_opened(tmp_path):
    bundle, settings, images = run_with_images(tmp_path)
    for name in ("../../x", "/etc/passwd", 7, ""):
        bundle.facts["feature_cache"] = [{"table": name, "width": 3}]
        found = run_vectors(bundle, settings, images, cache=tmp_path / "cache")
        assert len(found.images.paths) == 6
