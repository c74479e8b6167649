r"""Time the checks of many images, from cached measurements, in one process.

Example::

    python benchmarks/check_job.py --rows 1000000 --work /tmp/check
    python benchmarks/check_job.py --rows 100000 --kind frames --work /tmp/frames
    python benchmarks/check_job.py --hashes 10000000

No images are generated, only their measurements: numbers, a small grey image of clouds at every
scale, and its perceptual hash. Features are derived from the hash. Measurements are read from the
cache, all checks run (with features and out-of-fold predictions, which are generated), the report
is written, and the images are split with near-duplicates in groups. The kinds are ``ordinary`` (of
a hundred images, one is a re-encoded copy and one a shifted copy), ``frames`` (scenes of a hundred
frames), ``alike`` (all images show one scene) and ``blank`` (half of the images are blank).

``--hashes`` times the search for similar hashes alone. The last line of the output is JSON: seconds
and peak resident memory (MB) at the end of each stage. 1,000,000 rows take 6 GB of disk space.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, OutOfFoldPredictions, RowFeatures, all_checks, run_checks
from kindsight.checks.duplicates.hash_index import NearPairSearch
from kindsight.checks.duplicates.search import LOW_BITS, NEAR_BITS, find_duplicates
from kindsight.checks.measure import NUMERIC, TEXT, MeasuredImage
from kindsight.checks.measurements import (
    Measurements,
    MeasurementTable,
    cached_measurements,
    measurements_path,
)
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.digest import content_digest
from kindsight.errors import DatasetError
from kindsight.images.hashes import perceptual_hashes, small_grey
from kindsight.runs.checking import CheckReport, write_report
from scale_job import Stages, peak_megabytes

CLASSES = 20
BLOCK = 1_000
SIDE, WAVES = 64, 16
WIDTH = 128
"""Columns of the generated features."""

FRAMES = 100
"""Frames of a scene."""


def scenes(random: np.random.Generator, count: int) -> np.ndarray:
    """Return clouds at every scale, float32 (count, SIDE + 8, SIDE + 8)."""
    place = np.arange(SIDE + 8)
    basis = np.cos(np.pi * np.arange(WAVES)[:, None] * (2 * place + 1) / (2 * len(place)))
    fall = 1.0 / (1.0 + np.add.outer(np.arange(WAVES), np.arange(WAVES)))
    waves = random.normal(size=(count, WAVES, WAVES)).astype(np.float32) * (90 * fall)
    waves[:, 0, 0] = 0
    return (128 + basis.T @ waves @ basis).astype(np.float32)


def blocks(kind: str, count: int) -> Iterator[np.ndarray]:
    """Yield small grey images of a kind, uint8 (BLOCK or fewer, SIDE, SIDE)."""
    one = scenes(np.random.default_rng(1), 1)
    for at in range(0, count, BLOCK):
        random = np.random.default_rng([2, at])
        n = min(BLOCK, count - at)
        wide = one.repeat(n, axis=0) if kind == "alike" else scenes(random, n)
        shift = np.zeros((n, 2), np.int64)
        if kind == "frames":
            wide = wide[np.arange(n) // FRAMES * FRAMES]
            shift = random.integers(0, 3, (n, 2))
        elif kind == "ordinary":
            wide[99::100], wide[98::100] = (
                wide[0::100][: len(wide[99::100])],
                wide[1::100][: len(wide[98::100])],
            )
            shift[98::100] = 2
        images = np.stack(
            [image[y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(wide, shift, strict=True)]
        )
        if kind == "blank":
            images[::2] = 200
        images += random.normal(0, 1.5, images.shape)
        yield images.clip(0, 255).astype(np.uint8)


def measured(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return plausible measurements of small images."""
    n = len(images)
    rows = np.zeros(n, NUMERIC)
    for name in NUMERIC.names or ():
        if NUMERIC[name].kind == "f":
            rows[name] = random.lognormal(3, 0.3, n)
    for name in ("taken", "transparency", "thumbnail_difference"):
        rows[name] = np.nan
    rows["height"], rows["width"] = 480, 640
    rows["bytes"], rows["frames"], rows["orientation"] = random.integers(30_000, 90_000, n), 1, 1
    flat = images.reshape(n, -1).astype(np.float32)
    rows["brightness"], rows["contrast"] = flat.mean(axis=1), flat.std(axis=1)
    rows["uniformity"] = np.where(flat.std(axis=1) < 4, 1.0, 0.3)
    rows["entropy"], rows["p99"], rows["p95"], rows["p05"] = 6, 200, 180, 40
    rows["chroma"], rows["softness"], rows["blur"] = 40, 0.1, random.normal(0.4, 0.08, n)
    rows["hash"] = perceptual_hashes(np.stack([small_grey(image) for image in images]))
    return rows


def digest_of(row: int) -> str:
    """Return a digest that no other row has."""
    return content_digest(str(row))


def generate(kind: str, count: int, cache: Cache) -> ImageDataset:
    """Write the measurements of a dataset to a cache."""
    dataset = ImageDataset(
        path=[f"class {row % CLASSES:02d}/{row:08d}.jpg" for row in range(count)],
        label=[f"class {row % CLASSES:02d}" for row in range(count)],
        digest=[digest_of(row) for row in range(count)],
    )
    text = dict.fromkeys(TEXT, "") | {"format": "JPEG", "mode": "RGB", "subsampling": "4:2:0"}
    with closing(MeasurementTable(measurements_path(cache, dataset))) as table:
        row = 0
        for images in blocks(kind, count):
            numbers = measured(images, np.random.default_rng([3, row]))
            table.put(
                [
                    MeasuredImage(digest_of(row + i), numbers[i], text, images[i])
                    for i in range(len(images))
                ]
            )
            row += len(images)
    return dataset


class Vectors:
    """Features derived from the hashes of images."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes
        self._project = np.random.default_rng(4).normal(size=(256, WIDTH)).astype(np.float32)
        self.shape = (len(hashes), WIDTH)

    def __len__(self) -> int:
        return len(self._hashes)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the features of some rows, float32 (m, WIDTH)."""
        octets = np.ascontiguousarray(self._hashes[rows]).view(np.uint8)
        bits = np.unpackbits(octets.reshape(-1, 32), axis=1).astype(np.float32)
        return (bits - 0.5) @ self._project


def out_of_fold(dataset: ImageDataset) -> OutOfFoldPredictions:
    """Return generated predictions: all correct, except for one in a hundred."""
    random, targets = np.random.default_rng(5), dataset.targets
    probabilities = random.uniform(0, 0.02, (len(targets), CLASSES))
    wrong = random.random(len(targets)) < 0.01
    best = np.where(wrong, random.integers(0, CLASSES, len(targets)), targets)
    probabilities[np.arange(len(targets)), best] = 1.0
    return OutOfFoldPredictions(
        np.arange(len(targets)), probabilities / probabilities.sum(axis=1, keepdims=True)
    )


def check(kind: str, count: int, work: Path, ignored: Collection[str]) -> dict[str, object]:
    """Generate a dataset, check it, write the report and split the images."""
    stages, cache = Stages(), Cache(work / "cache")
    with stages.measured("generate"):
        dataset = generate(kind, count, cache)
    stages.megabytes["before"] = peak_megabytes()
    with stages.measured("measurements"):
        measurements = cached_measurements(dataset, cache)
    assert isinstance(measurements, Measurements)
    context = CheckContext(
        dataset, measurements,
        compute_features=lambda: RowFeatures(np.arange(count), Vectors(measurements.hash)),
        compute_out_of_fold=lambda: out_of_fold(dataset),
    )  # fmt: skip
    with stages.measured("duplicates"):
        duplicates = find_duplicates(context)
    results = []
    for rule in all_checks():
        with stages.measured(rule.code):
            results += run_checks(context, checks=[rule], ignore=ignored, full=True)
    report = CheckReport("generated", context, tuple(results), (), {}, ())
    with stages.measured("report"):
        folder = write_report(report, work / "report", cache=cache)
    with stages.measured("split"):
        groups = [rows.tolist() for rows in duplicates.groups()]
        settings = SplitSettings(group_near_duplicates=True)
        try:
            split, _ = settings.split_without_leakage(dataset, groups)
            counts: object = split.split_counts()
        except DatasetError as error:  # images that are all alike are one group
            counts = str(error)
    return {
        "rows": count, "kind": kind, "seconds": stages.seconds, "megabytes": stages.megabytes,
        "groups": len(groups), "grouped": sum(map(len, groups)), "complete": duplicates.complete,
        "left_out": duplicates.left_out, "findings": sum(len(r.findings) for r in results),
        "files": {file.name: file.stat().st_size for file in folder.iterdir()},
        "split": counts,
    }  # fmt: skip


def search(count: int) -> dict[str, object]:
    """Search for similar hashes among unrelated ones."""
    stages, random = Stages(), np.random.default_rng(0)
    hashes = random.integers(0, 2**63, count, dtype=np.uint64) << np.uint64(1)
    others = random.integers(0, 2**63, count, dtype=np.uint64) << np.uint64(1)
    found: dict[str, object] = {"hashes": count}
    searches: dict[str, Callable[[], NearPairSearch]] = {
        "near": lambda: NearPairSearch(hashes, NEAR_BITS),
        "copies": lambda: NearPairSearch(hashes, LOW_BITS),
        "one orientation": lambda: NearPairSearch(hashes, LOW_BITS, others),
    }
    stages.megabytes["before"] = peak_megabytes()
    for name, make in searches.items():
        with stages.measured(name):
            started = time.process_time()
            some = make()
            pairs = sum(len(block.first) for block in some)
        found[name] = {
            "pairs": pairs, "radius": some.radius, "cpu": time.process_time() - started
        }  # fmt: skip
    return {**found, "seconds": stages.seconds, "megabytes": stages.megabytes}


def main() -> None:
    """Read the command line and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="images that are checked")
    parser.add_argument(
        "--kind", choices=("ordinary", "frames", "alike", "blank"), default="ordinary"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="CODE",
        help="check to leave out, such as KS305, which takes longest; may be repeated",
    )  # fmt: skip
    parser.add_argument("--hashes", type=int, default=0, metavar="N", help="hashes to compare")
    parser.add_argument("--work", type=Path, metavar="DIR", help="a folder that is empty or new")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.hashes:
        print(json.dumps(search(options.hashes)))
    else:
        print(json.dumps(check(options.kind, options.rows, options.work, options.ignore)))


if __name__ == "__main__":
    main()
