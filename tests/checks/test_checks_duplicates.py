"""KS301 to KS305: planted duplicates are found, and nothing else."""

from __future__ import annotations

from unittest import mock

import cv2
import numpy as np
import pytest
from check_images import context_of, file_of, run, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.checks import CheckContext
from kindsight.checks.duplicates import hash_index
from kindsight.checks.duplicates.comparing import (
    SharedBackground,
    orient_images,
    undo_orientation,
)
from kindsight.checks.duplicates.hash_index import NearPairSearch
from kindsight.checks.duplicates.registration import register
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.dataset.splits.disjoint_sets import DisjointSets
from kindsight.images.hashes import ORIENTATIONS, small_grey

OTHERS = {f"other/{n}.jpg": scene(n, 200, 260) for n in range(30)}


def moved(image, seed=0):
    """Return the next image of a burst: slightly shifted, rotated and scaled."""
    random = np.random.default_rng(seed)
    height, width = image.shape[:2]
    transform = cv2.getRotationMatrix2D((width / 2, height / 2), random.choice([-1.5, 1.5]), 1.05)
    transform[:, 2] += random.choice([-0.03, 0.03], 2) * (width, height)
    return cv2.warpAffine(image, transform, (width, height), borderMode=cv2.BORDER_REFLECT)


def resized(image, factor):
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    a, b, c = scene(101, 200, 260), scene(102, 200, 260), scene(103, 200, 260)
    files = {
        **OTHERS,
        "x/a.jpg": a,
        "x/a again.jpg": file_of(a),
        "y/a once more.jpg": file_of(a),
        "x/a cheap.jpg": file_of(a, quality=30),
        "x/a small.jpg": resized(a, 0.5),
        "x/a.webp": file_of(a, "webp", quality=60),
        "x/a brighter.png": np.minimum(a.astype(int) + 15, 255).astype(np.uint8),
        "x/b.jpg": b,
        "x/b mirrored.jpg": b[:, ::-1],
        "y/b on its side.png": np.rot90(b),
        "y/b turned small.jpg": resized(np.rot90(b, 2).copy(), 0.6),
        "x/c.jpg": c,
        "x/c next.jpg": moved(c, 3),
        "x/c cut.jpg": c[4:-6, 10:-2],
    }
    return context_of(folder / "photos", folder / "cache", files)


def groups(result):
    return [set(finding.paths) for finding in result.findings]


def test_identical_files(planted):
    result = run("KS301", planted)
    assert groups(result) == [{"x/a.jpg", "x/a again.jpg", "y/a once more.jpg"}]
    assert result.findings[0].message == "These 3 files are identical, byte for byte."


def test_reencoded_copies(planted):
    (found,) = groups(run("KS302", planted))
    others = {"x/a cheap.jpg", "x/a small.jpg", "x/a.webp", "x/a brighter.png"}
    assert others < found and len(found) == 5  # and one of the three identical files


def test_rotated_or_mirrored_copies(planted):
    assert groups(run("KS303", planted)) == [
        {"x/b.jpg", "x/b mirrored.jpg", "y/b on its side.png", "y/b turned small.jpg"}
    ]


def test_near_duplicates(planted):
    assert groups(run("KS304", planted)) == [{"x/c.jpg", "x/c next.jpg", "x/c cut.jpg"}]


def test_groups_across_kinds(planted):
    found = find_duplicates(planted)
    assert sorted(len(rows) for rows in found.groups()) == [3, 4, 7]
    assert sorted(len(rows) for rows in found.groups(("identical",))) == [3]
    assert found.complete and found.n == len(planted.dataset)
    assert find_duplicates(planted) is found


def test_different_images_are_no_duplicates(make_context):
    context = make_context(OTHERS)
    for code in ("KS301", "KS302", "KS303", "KS304"):
        assert run(code, context).state == "passed"


def test_blank_images_are_no_duplicates(make_context):
    tones = {f"a/{n}.png": np.full((40, 40, 3), 8 * n, np.uint8) for n in range(20)}
    assert find_duplicates(make_context({**tones, "b/x.png": scene(1)})).groups() == []


def cell(seed):
    """Return an image of a solar cell: a background shared by all cells, and some flaws."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:96, 0:96] / 96
    image = 150 + 30 * np.sin(np.pi * y) - 80 * (np.abs(y % 0.33 - 0.16) < 0.02)
    for _ in range(8):
        down, right, reach = random.uniform(0.1, 0.9, 3)
        spot = np.exp(-((y - down) ** 2 + (x - right) ** 2) / (0.02 + 0.02 * reach) ** 2)
        image -= random.uniform(20, 50) * spot
    image += random.normal(0, 3, image.shape)
    return np.repeat(image.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def test_a_shared_background_is_removed(make_context, monkeypatch):
    cells = {f"a/{n}.png": cell(n) for n in range(200)}
    copies = {f"b/{n}.jpg": file_of(cell(n), quality=50) for n in range(5)}
    for n in range(5, 13):
        lying = np.rot90(cell(n), n % 4)
        copies[f"b/{n}.png"] = np.ascontiguousarray(lying[:, ::-1] if n < 9 else lying)
    context = make_context({**cells, **copies})
    wanted = {frozenset({f"a/{n}.png", name}) for n, name in enumerate(copies)}

    def found():
        again = CheckContext(context.dataset, context.measurements)
        paths = context.dataset.path
        return {frozenset(paths[row] for row in rows) for rows in find_duplicates(again).groups()}

    assert found() == wanted
    # Otherwise different cells are linked.
    monkeypatch.setattr(
        SharedBackground, "ambiguous", lambda self, pairs: np.zeros(len(pairs), bool)
    )
    assert found() > wanted


@given(st.sampled_from(ORIENTATIONS))
def test_undo_orientation(orientation):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8), np.uint8)
    assert (undo_orientation(orient_images(images, orientation), orientation) == images).all()
    assert orientation == ORIENTATIONS[0] or (orient_images(images, orientation) != images).any()


def test_a_burst_is_no_shared_background(make_context):
    burst = scene(101, 200, 260)
    others = {f"other/{n}.jpg": scene(n, 200, 260) for n in range(80)}
    context = make_context({**others, **{f"x/{n}.jpg": moved(burst, n) for n in range(20)}})
    rows = [row for row, path in enumerate(context.dataset.path) if path.startswith("x/")]
    background = SharedBackground(context.measurements.small_images, context.readable_rows)
    pairs = np.array([(rows[0], row) for row in rows[1:]], np.int64)
    assert not background.ambiguous(pairs).any()
    assert [group.tolist() for group in find_duplicates(context).groups()] == [rows]


def test_many_copies_of_few_images_are_no_shared_background(make_context):
    files = {
        f"x/{n}-{quality}.jpg": file_of(scene(n, 200, 260), quality=quality)
        for n in range(3)
        for quality in range(36, 96, 2)
    }
    others = {f"other/{n}.jpg": scene(n, 200, 260) for n in range(10, 40)}
    context = make_context({**files, **others})
    paths = context.dataset.path
    wanted = {frozenset(name for name in files if name.startswith(f"x/{n}-")) for n in range(3)}
    found = {frozenset(paths[row] for row in rows) for rows in find_duplicates(context).groups()}
    assert found == wanted


def test_residuals_are_orthogonal_to_the_components():
    greys = np.stack([small_grey(cell(n)[..., 0], 64) for n in range(100)])
    background = SharedBackground(lambda rows: greys[rows], np.arange(100))
    left = background.residuals(greys).reshape(100, -1)
    # Independently: the mean and six singular vectors of a hundred.
    vectors = greys.reshape(100, -1) - greys.reshape(100, -1).mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = vectors.mean(axis=0)
    common = np.vstack([mean, np.linalg.svd(vectors - mean, full_matrices=False)[2][:6]])
    inside = np.linalg.lstsq(common.T, vectors.T, rcond=None)[0].T @ common
    assert left == pytest.approx(vectors - inside, abs=1e-4)


# The index against a comparison of all pairs.


def brute_force(hashes, radius, others=None):
    """Return {(i, j): distance} of all pairs within a distance; i < j among the same hashes."""
    second = hashes if others is None else others
    found = {}
    for i in range(len(hashes)):
        for j in range(i + 1 if others is None else 0, len(second)):
            distance = bin(int(hashes[i]) ^ int(second[j])).count("1")
            if distance <= radius:
                found[i, j] = distance
    return found


def indexed(search):
    """Return {(i, j): distance} of a search, in which no pair is twice."""
    rows = [row for block in search for row in zip(*map(np.ndarray.tolist, block), strict=True)]
    found = {(i, j): distance for i, j, distance in rows}
    assert len(found) == len(rows)
    return found


def near_to_each_other(seed, n=160):
    """Return hashes in clusters: each differs from one of a few in up to 14 bits."""
    random = np.random.default_rng(seed)
    centres = random.integers(0, 2**64, 12, dtype=np.uint64)
    hashes = centres[random.integers(0, 12, n)]
    for k in range(n):
        for bit in random.choice(64, random.integers(0, 15), replace=False):
            hashes[k] ^= np.uint64(1) << np.uint64(bit)
    return hashes


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([0, 2, 3, 5, 7, 10, 11, 15]),
    st.sampled_from([0, 1, 2, 30, 160, 300]), st.sampled_from([1, 1_000, 20_000]),
)  # fmt: skip
def test_the_index_equals_brute_force(seed, radius, n, key_cost):
    hashes = near_to_each_other(seed, n)
    with mock.patch.object(hash_index, "KEY_COST", key_cost):  # many keys, or few
        search = NearPairSearch(hashes, radius)
    assert search.complete and search.radius == radius
    assert indexed(search) == brute_force(hashes, radius)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 7, 11]), st.sampled_from([1, 40, 200]))
def test_the_index_compares_two_sets_of_hashes(seed, radius, n):
    hashes, others = near_to_each_other(seed), near_to_each_other(seed, n)[::-1].copy()
    with mock.patch.object(hash_index, "KEY_COST", 1):
        search = NearPairSearch(hashes, radius, others)
    assert indexed(search) == brute_force(hashes, radius, others)


def test_large_blocks_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr(hash_index, "TILE", 50)
    hashes = near_to_each_other(3, 300)
    assert indexed(NearPairSearch(hashes, 11)) == brute_force(hashes, 11)
    for block in NearPairSearch(hashes, 11):
        assert len(block.first) <= 50


def test_the_recall_of_a_search_that_is_not_exact_is_measured(monkeypatch):
    monkeypatch.setattr(hash_index, "KEY_COST", 1)
    monkeypatch.setattr(hash_index, "COMPARED_AT_LEAST", 11_000)
    monkeypatch.setattr(hash_index, "COMPARED_PER_HASH", 1)
    hashes = near_to_each_other(1, 400)
    search = NearPairSearch(hashes, 11)
    assert not search.complete and 0 <= search.radius < 11
    found, true = indexed(search), brute_force(hashes, 11)
    assert found.items() < true.items()
    assert brute_force(hashes, search.radius).items() <= found.items()
    # All 400 hashes are sampled, so each pair counts from both sides.
    assert search.recall == (400, 2 * len(true), 2 * len(found))
    assert search.recall.value == len(found) / len(true)


def test_equal_bands_need_no_quadratic_comparisons(monkeypatch):
    monkeypatch.setattr(hash_index, "KEY_COST", 1)
    monkeypatch.setattr(hash_index, "COMPARED_AT_LEAST", 1_000)
    monkeypatch.setattr(hash_index, "COMPARED_PER_HASH", 1)
    hashes = np.random.default_rng(0).integers(0, 4, 5_000, dtype=np.uint64)
    search = NearPairSearch(hashes, 11)
    assert search.radius == -1 and search.recall.found == 0
    linked, count = DisjointSets(len(hashes)), 0
    for block in search:
        linked.merge(np.stack((block.first, block.second), axis=1))
        count += len(block.first)
    assert count <= 4 * 64 * len(hashes)
    assert len(linked.groups()) == 1  # all equal, linked through their neighbours


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_groups_are_connected_components(pairs):
    sets = DisjointSets(30)
    for at in range(0, len(pairs), 7):
        sets.merge(np.array(pairs[at : at + 7], np.int64).reshape(-1, 2))
    # Independently: each pass propagates the smallest number along the pairs.
    colour = list(range(30))
    for _ in range(30):
        for one, other in pairs:
            colour[one] = colour[other] = min(colour[one], colour[other])
    assert sets.roots().tolist() == colour
    assert all(len(rows) > 1 for rows in sets.groups())


def test_registration_aligns_bursts():
    grey = [cv2.cvtColor(scene(n, 200, 260), cv2.COLOR_RGB2GRAY) for n in range(4)]
    small = [small_grey(image, 64) for image in grey]
    for n in range(4):
        assert register(small[n], small_grey(moved(grey[n], n), 64)).correlation > 0.9
        assert register(small[n], small[(n + 1) % 4]).correlation < 0.6
