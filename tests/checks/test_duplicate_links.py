"""The near-duplicate search against a comparison of all pairs, and how little of it is done."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from check_images import scene
from hypothesis import given
from hypothesis import strategies as st

from kindsight.checks import CheckContext, Measurements, run_checks
from kindsight.checks.duplicates import comparing, hash_index, search
from kindsight.checks.duplicates.comparing import correlations, orient_images
from kindsight.checks.duplicates.linking import Compared, link_pairs
from kindsight.checks.duplicates.registration import best_shifts, register
from kindsight.checks.duplicates.search import DUPLICATE_KINDS, find_duplicates
from kindsight.checks.measure import NUMERIC, TEXT
from kindsight.checks.rules.duplicates import NearDuplicates
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.disjoint_sets import DisjointSets
from kindsight.images.hashes import ORIENTATIONS, oriented_hashes, perceptual_hash, small_grey
from kindsight.training.near_duplicates import measure_similarity

FRAMES = 8


def frames(track: int, count: int = FRAMES) -> list[np.ndarray]:
    """Return grey frames, uint8 (64, 64), of a camera that trembles, turns and comes nearer."""
    grey = cv2.cvtColor(scene(track, 200, 200), cv2.COLOR_RGB2GRAY)
    random = np.random.default_rng(track)
    found = []
    for step in range(count):
        turn = cv2.getRotationMatrix2D((100, 100), random.uniform(-2, 2), 1 + 0.01 * step)
        turn[:, 2] += random.uniform(-4, 4, 2)
        moved = cv2.warpAffine(grey, turn, (200, 200), borderMode=cv2.BORDER_REFLECT)
        found.append(small_grey(moved, 64))
    return found


def mixture(seed: int) -> np.ndarray:
    """Return tracks, images that are alone, and rotated, mirrored and re-encoded copies, mixed."""
    tracks = [image for track in range(4) for image in frames(1_000 * seed + track)]
    alone = [frames(1_000 * seed + 500 + n, 1)[0] for n in range(20)]
    coded = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1] for image in alone[:6]]
    copies = [cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in coded]
    turned = [np.ascontiguousarray(np.rot90(image, n % 4)) for n, image in enumerate(alone[4:9])]
    images = np.stack([*tracks, *alone, *copies, *turned, alone[12][:, ::-1], alone[12]])
    return images[np.random.default_rng(seed).permutation(len(images))]


class Fetched:
    """Hands out small images and counts how often and how many."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.calls, self.rows = images, 0, 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) > 0).all()
        self.calls, self.rows = self.calls + 1, self.rows + len(rows)
        return self.images[rows]


def context_of(images, fetch=None, **fields) -> CheckContext:
    n = len(images)
    numbers = np.zeros(n, NUMERIC)
    found = measure_similarity(images)
    for name in found.dtype.names:
        numbers[name] = found[name]
    digests = [bytes(image).hex()[:4000] for image in images]
    dataset = ImageDataset(path=tuple(map(str, range(n))), digest=tuple(digests))
    text = {name: np.full(n, "", object) for name in TEXT}
    return CheckContext(dataset, Measurements(numbers, text, fetch or Fetched(images)), **fields)


def components(n: int, pairs) -> set[frozenset[int]]:
    """Return the connected components of two or more rows, by repeated passes over all pairs."""
    colour = list(range(n))
    changed = True
    while changed:
        changed = False
        for one, other in pairs:
            low = min(colour[one], colour[other])
            changed |= colour[one] != low or colour[other] != low
            colour[one] = colour[other] = low
    members: dict[int, set[int]] = {}
    for row in range(n):
        members.setdefault(colour[row], set()).add(row)
    return {frozenset(rows) for rows in members.values() if len(rows) > 1}


def every_pair(images: np.ndarray) -> dict[str, list[tuple[int, int]]]:
    """Return all pairs of duplicates by kind, each compared alone, without any index."""
    found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in DUPLICATE_KINDS}
    turned = [
        ("rotated" if any(orientation) else "reencoded", orient_images(images, orientation))
        for orientation in ORIENTATIONS
    ]
    first = np.stack([perceptual_hash(small_grey(image)) for image in images])
    others = [oriented_hashes(first, orientation) for orientation in ORIENTATIONS]

    def differing(one, other) -> tuple[int, int]:
        bits = [bin(int(x) ^ int(y)).count("1") for x, y in zip(one, other, strict=True)]
        return bits[0], sum(bits)

    for i, j in combinations(range(len(images)), 2):
        if (images[i] == images[j]).all():
            found["identical"].append((i, j))
            continue
        for (kind, seen), hashes in zip(turned, others, strict=True):
            low, every = differing(first[i], hashes[j])
            if low <= 7 and every <= 28 and correlations(images[[i]], seen[[j]])[0] >= 0.9:
                found[kind].append((i, j))
        if differing(first[i], others[0][j])[0] <= 11:
            shift = best_shifts(images[[i, j]], np.array([[0, 1]]))
            if shift.correlation[0] >= 0.48:
                start = int(shift.down[0]), int(shift.right[0])
                if register(images[i], images[j], *start).correlation >= 0.9:
                    found["near"].append((i, j))
    return found


@pytest.mark.parametrize("seed", range(2))
def test_the_groups_are_those_of_all_pairs(seed):
    images = mixture(seed)
    found, pairs = find_duplicates(context_of(images)), every_pair(images)
    assert len(pairs["near"]) > 40 and pairs["rotated"] and pairs["identical"]
    for end in range(1, 5):
        kinds = DUPLICATE_KINDS[:end]
        wanted = components(len(images), [pair for kind in kinds for pair in pairs[kind]])
        assert {frozenset(rows.tolist()) for rows in found.groups(kinds)} == wanted
    assert found.complete


@pytest.mark.parametrize("together", [None, np.arange(1_000) % 3])
def test_the_groups_do_not_depend_on_how_many_candidates_wait(together, monkeypatch):
    images = np.stack([*mixture(0), *frames(77, 40)])
    if together is not None:
        together = together[: len(images)]
    whole = find_duplicates(context_of(images, together=together))
    monkeypatch.setattr(search, "HELD_PAIRS", 8)  # linked in blocks of some pairs
    parts = find_duplicates(context_of(images, together=together))
    for end in range(1, 5):
        wanted = [rows.tolist() for rows in whole.groups(DUPLICATE_KINDS[:end])]
        assert [rows.tolist() for rows in parts.groups(DUPLICATE_KINDS[:end])] == wanted
    assert parts.complete


def test_what_is_not_compared_is_counted(monkeypatch):
    monkeypatch.setattr(search, "PAIRS_AT_LEAST", 3)
    monkeypatch.setattr(search, "PAIRS_PER_IMAGE", 0)
    images = mixture(0)
    context = context_of(images)
    found = find_duplicates(context)
    assert not found.complete and found.left_out["near"] > 0
    (result,) = run_checks(context, checks=[NearDuplicates()])
    assert f"at least {found.left_out['near']:,} similar pairs were not" in result.reason
    assert result.recall is None


def test_the_recall_is_in_the_result(monkeypatch):
    monkeypatch.setattr(hash_index, "KEY_COST", 1)
    monkeypatch.setattr(hash_index, "COMPARED_AT_LEAST", 400)
    monkeypatch.setattr(hash_index, "COMPARED_PER_HASH", 1)
    context = context_of(mixture(0))
    found = find_duplicates(context)
    assert not found.complete and found.recall["near"].value < 1
    (result,) = run_checks(context, checks=[NearDuplicates()])
    recall = found.recall["near"]
    assert result.recall == {
        "value": round(recall.value, 4), "images": recall.hashes, "pairs": recall.pairs,
        "found": recall.found,
    }  # fmt: skip
    assert f"{recall.value:.1%} of the similar pairs are found" in result.reason


@pytest.mark.parametrize("numbers", [1, 2, 5])
def test_groups_that_a_split_divides_do_not_depend_on_what_is_left_out(numbers):
    images = mixture(0)
    together = np.random.default_rng(numbers).integers(0, numbers, len(images))
    full = find_duplicates(context_of(images))
    less = find_duplicates(context_of(images, together=together))
    for end in range(1, 5):
        every, some = (
            {
                frozenset(rows.tolist())
                for rows in found.groups(DUPLICATE_KINDS[:end])
                if len(np.unique(together[rows])) > 1
            }
            for found in (full, less)
        )
        assert every == some
    assert all(  # nothing is linked that is no duplicate
        any(set(rows.tolist()) <= set(group.tolist()) for group in full.groups())
        for rows in less.groups()
    )


def test_frames_of_one_set_are_not_compared():
    images = np.stack([image for track in range(6) for image in frames(track)])
    together = np.repeat(np.arange(6), FRAMES)
    fetch = Fetched(images)
    found = find_duplicates(context_of(images, fetch, together=together))
    assert not found.groups() and not fetch.calls


def test_images_are_fetched_in_blocks():
    images = np.stack([image for track in range(6) for image in frames(50 + track, 30)])
    fetch = Fetched(images)
    found = find_duplicates(context_of(images, fetch))
    assert sorted(map(len, found.groups())) == [30] * 6
    # 174 links; 2,610 pairs of frames of one track.
    assert fetch.calls < 40 and fetch.rows < 12 * len(images)


def test_progress_of_a_long_search(monkeypatch):
    from kindsight.checks import context as module

    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)
    images, shown = mixture(1), []
    find_duplicates(context_of(images, progress=lambda *numbers: shown.append(numbers)))
    stages, done, total = zip(*shown, strict=True)
    assert set(stages) == {"duplicates"} and len(set(total)) == 1
    assert sorted(done) == list(done) and done[-1] == total[0]
    shown.clear()
    monkeypatch.setattr(module, "DELAY_SECONDS", 60.0)
    find_duplicates(context_of(images, progress=lambda *numbers: shown.append(numbers)))
    assert not shown


def test_too_many_registrations_are_reported(monkeypatch):
    monkeypatch.setattr(comparing, "REGISTERED_AT_LEAST", 0)
    monkeypatch.setattr(comparing, "REGISTERED_PER_IMAGE", 0)
    found = find_duplicates(context_of(mixture(0)))
    assert not found.complete
    assert {len(rows) for rows in found.groups(("identical",))} == {2}


pairs_of_rows = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=150)


@given(pairs_of_rows, st.integers(0, 2**20))
def test_links_are_those_of_all_confirmed_pairs(pairs, seed):
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    random = np.random.default_rng(seed)
    true = {frozenset(pair) for pair in pairs if random.random() < 0.5}
    compared, decided = [], []

    def compare(some):
        compared.extend(map(tuple, some.tolist()))
        confirmed = np.array([frozenset(pair) in true for pair in some.tolist()])
        return Compared(confirmed, np.ones(len(some)))

    sets = DisjointSets(25)
    linked, values = link_pairs(
        sets, np.array(pairs, np.int64).reshape(-1, 2), compare, decided.append
    )
    assert {frozenset(rows.tolist()) for rows in sets.groups()} == components(25, true)
    assert components(25, linked.tolist()) == components(25, true)
    assert {frozenset(pair) for pair in linked.tolist()} <= true and len(values) == len(linked)
    assert all(compared.count(pair) <= pairs.count(pair) for pair in compared)
    assert decided[-1] == len(pairs) and sorted(decided) == decided


def test_few_pairs_of_a_clique_are_compared():
    every = np.array(list(combinations(range(200), 2)), np.int64)
    every = np.random.default_rng(0).permutation(every)
    calls = []

    def compare(some):
        calls.append(len(some))
        return Compared(np.ones(len(some), bool), np.ones(len(some)))

    sets = DisjointSets(200)
    link_pairs(sets, every, compare)
    assert len(sets.groups()) == 1 and sum(calls) < 2 * 200 and len(calls) <= 8
    calls.clear()
    link_pairs(DisjointSets(200), every, lambda some: calls.append(len(some)) or Compared(
        np.zeros(len(some), bool), np.zeros(len(some))
    ))  # fmt: skip
    assert sum(calls) == len(every) and len(calls) < 12
