"""KS305: crops are found among nearest neighbours, by template matching of many pairs at once."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from check_images import context_of, file_of, run, scene

from kindsight.checks import CheckContext, RowFeatures
from kindsight.checks.duplicates import crops, nearest
from kindsight.checks.duplicates.crops import CropComparison, find_crops
from kindsight.checks.duplicates.nearest import nearest_pairs
from kindsight.checks.duplicates.registration import high_pass, high_pass_all
from kindsight.checks.duplicates.search import Duplicates
from kindsight.checks.duplicates.template_matching import locate_crops, resize_all
from kindsight.images.hashes import small_grey

OTHERS = {f"other/{n}.jpg": scene(n, 200, 260) for n in range(30)}
# Corners of the crops, which have about half of the area.
LANDSCAPE, PORTRAIT = scene(101, 240, 300), scene(102, 300, 200)
FILES = {
    **OTHERS,
    "x/whole.jpg": LANDSCAPE,
    "y/part.jpg": file_of(LANDSCAPE[30:210, 20:240]),
    "x/tall.jpg": file_of(PORTRAIT[70:280, 30:190]),
    "y/tall.jpg": PORTRAIT,
}
PAIRS = [{"x/whole.jpg", "y/part.jpg"}, {"x/tall.jpg", "y/tall.jpg"}]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Return images with two crops, and features that are nearly equal for a crop and its image."""
    folder = tmp_path_factory.mktemp("crops")
    measured = context_of(folder / "photos", folder / "cache", FILES)
    paths = measured.dataset.path
    vectors = np.random.default_rng(0).normal(size=(len(paths), 40)).astype(np.float32)
    for one, other in PAIRS:
        vectors[paths.index(one)] = vectors[paths.index(other)] + 0.1
    return CheckContext(
        measured.dataset,
        measured.measurements,
        compute_features=lambda: RowFeatures(measured.readable_rows, vectors),
    )


def groups(context):
    return [set(finding.paths) for finding in run("KS305", context).findings]


def test_crops_of_other_images(context):
    assert run("KS305", replace(context, compute_features=None)).state == "not applicable"
    found = groups(context)
    assert len(found) == 2 and all(pair in found for pair in PAIRS)


def test_crops_are_the_same_in_blocks_of_any_size(context, monkeypatch):
    monkeypatch.setattr(crops, "COARSE_BLOCK", 7)
    monkeypatch.setattr(crops, "FINE_BLOCK", 1)
    monkeypatch.setattr(crops, "READ_BLOCK", 5)
    assert groups(replace(context, _cache={})) == groups(context)


def test_known_duplicates_are_not_repeated(context):
    paths = context.dataset.path
    known = replace(context, _cache={})
    whole, part = sorted((paths.index("x/whole.jpg"), paths.index("y/part.jpg")))

    pairs = {"near": np.array([[whole, part]])}
    known.cached("duplicates", lambda: Duplicates(pairs, {}, len(paths)))
    assert groups(known) == PAIRS[1:]


def test_only_the_smaller_image_is_a_crop(context):
    paths = context.dataset.path
    compare = CropComparison(context)
    forwards = np.array([[paths.index(name) for name in pair] for pair in (
        ("x/whole.jpg", "y/part.jpg"), ("y/tall.jpg", "x/tall.jpg"), ("other/0.jpg", "other/1.jpg")
    )])  # fmt: skip
    coarse = compare.coarse(forwards)
    assert (coarse[:2, 0] > 0.7).all() and (coarse[2] < 0.58).all()
    assert compare.compare(forwards).confirmed.tolist() == [True, True, False]
    assert not compare.compare(forwards[:, ::-1]).confirmed.any()


def test_progress_of_each_step(context, monkeypatch):
    monkeypatch.setattr("kindsight.checks.context.DELAY_SECONDS", 0.0)
    reported: dict[str, list[tuple[int, int]]] = {}

    def report(stage, done, total):
        reported.setdefault(stage, []).append((done, total))

    find_crops(replace(context, progress=report, _cache={}))
    assert {"neighbours", "crops", "alignment"} <= set(reported)
    for states in reported.values():
        done, total = zip(*states, strict=True)
        assert sorted(done) == list(done) and set(total) == {total[0]} and done[-1] == total[0]


@pytest.mark.parametrize("interrupted", ["neighbours", "crops", "alignment"])
def test_an_interrupt_ends_each_step(context, monkeypatch, interrupted):
    monkeypatch.setattr("kindsight.checks.context.DELAY_SECONDS", 0.0)

    def stop(stage, done, total):
        if stage == interrupted:
            raise KeyboardInterrupt

    stopped = replace(context, progress=stop, _cache={})
    with pytest.raises(KeyboardInterrupt):
        find_crops(stopped)
    stopped.progress = None  # nothing incomplete was cached
    assert len(find_crops(stopped)[0]) == 2


# Template matching, against OpenCV's for one pair.


def located(whole, crop, sides, scales, sigma):
    """Return the best correlation and its height, width, top and left."""
    best, place = 0.0, None
    for scale in scales:
        height, width = (max(8, min(len(whole), round(len(whole) * scale * s))) for s in sides)
        piece = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        found = cv2.matchTemplate(
            high_pass(whole, sigma), high_pass(piece, sigma), cv2.TM_CCOEFF_NORMED
        )
        if found.max() > best:
            best = found.max()
            place = (height, width, *np.unravel_index(found.argmax(), found.shape))
    return best, place


@pytest.mark.parametrize("side", [32, 64])
def test_template_matching_of_many_pairs(side):
    random = np.random.default_rng(1)
    grey = [cv2.cvtColor(scene(n, 200, 260), cv2.COLOR_RGB2GRAY) for n in range(6)]
    images = np.stack([small_grey(image, side) for image in grey])
    crop = grey[0][20:160, 50:240]
    images = np.concatenate((images, small_grey(crop, side)[None]))
    pairs = np.array([(i, j) for i in range(7) for j in range(7)])
    sides = random.choice([0.3, 0.6, 0.8, 1.0], (len(pairs), 2))
    sides /= sides.max(axis=1, keepdims=True)
    scales = (1.0, 0.9, 0.73)
    found = locate_crops(images, pairs, sides, scales, 2.0)
    for number, (whole, piece) in enumerate(pairs.tolist()):
        best, place = located(images[whole], images[piece], sides[number], scales, 2.0)
        height, width, top, left = place
        assert found.correlation[number] == pytest.approx(best, abs=1e-4)
        assert found.transform[number] == pytest.approx(
            np.array([[width / side, 0, left], [0, height / side, top]]), abs=1e-6
        )


def test_uniform_images_fit_nowhere():
    images = np.zeros((3, 32, 32), np.uint8)
    images[1] = 200
    images[2, :, 16:] = 255  # the left part is uniform
    pairs = np.array([(0, 1), (1, 2), (2, 0), (2, 1)])
    found = locate_crops(images, pairs, np.ones((4, 2)), (1.0, 0.5), 2.0)
    assert found.correlation.tolist() == [0, 0, 0, 0]


def test_many_images_are_filtered_as_one_by_one():
    images = np.random.default_rng(2).integers(0, 256, (5, 32, 32), np.uint8)
    resized = resize_all(images, 22, 29)
    for one, small in zip(images, resized, strict=True):
        expected = cv2.resize(one, (29, 22), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - expected).max() <= 1  # rounding
    for one, fine in zip(resized, high_pass_all(resized, 2.0), strict=True):
        assert fine == pytest.approx(high_pass(one, 2.0), abs=1e-3)


# Nearest neighbours.


def test_approximate_nearest_pairs(monkeypatch):
    random = np.random.default_rng(0)
    first = random.normal(size=(1_500, 60)).astype(np.float32)
    second = first + random.normal(scale=0.4, size=first.shape).astype(np.float32)
    vectors = np.concatenate([first, second])
    exact = {tuple(pair) for pair in nearest_pairs(vectors, 1, 0.7).tolist()}
    planted = {(n, n + 1_500) for n in range(1_500)}
    assert len(planted & exact) >= 1_490
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 10)
    found = {tuple(pair) for pair in nearest_pairs(vectors, 1, 0.7).tolist()}
    assert len(found & exact) >= 0.97 * len(exact)


def unit_vectors(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_clusters_of_nearly_identical_images_are_bounded():
    random = np.random.default_rng(3)
    centre = random.normal(size=40)
    dense = centre + 0.05 * random.normal(size=(1_200, 40))  # in nearly all clusters together
    dense[600:] = dense[:600] + 1e-4 * random.normal(size=(600, 40))  # pairs
    same = np.tile(random.normal(size=40), (800, 1))
    unit = unit_vectors(np.concatenate((dense, same, random.normal(size=(1_000, 40)))))
    clusters = nearest._clusters(unit, 0)
    # Eight clusters for each image, and 2 sqrt(3,000) = 109 centres: 220 images on average.
    assert max(map(len, clusters)) <= 4 * 221
    common = {tuple(pair) for members in clusters for pair in _planted(members)}
    assert len(common) >= 0.99 * 600
    assert set(np.concatenate(clusters).tolist()) == set(range(len(unit)))


def _planted(members):
    """Yield the pairs (n, n + 600) of dense images in a cluster."""
    inside = set(members.tolist())
    return ((n, n + 600) for n in range(600) if n in inside and n + 600 in inside)
