r"""Measure the recall of each step of the near-duplicate search on planted near-duplicates.

Example::

    python benchmarks/duplicate_recall.py --data cats-dogs/ --data sign-digits/ --each 200

Some images of each folder are copied: re-encoded, brightened or darkened, resized, cropped by 2 to
5% of each side, and moved as in a burst (shifted by 2%, rotated by 1.5 degrees, scaled by 5%). The
steps are those of the search: whether the hashes are within the radius of copies (7 of 64 bits and
28 of all) or of near-duplicates (11 of 64), and whether image and copy end up in one group.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from folders import class_files
from kindsight.checks import CheckContext, Measurements
from kindsight.checks.duplicates.search import ALL_BITS, LOW_BITS, NEAR_BITS, find_duplicates
from kindsight.checks.measure import NUMERIC, TEXT, MeasuredImage, measure_image
from kindsight.dataset import ImageDataset
from kindsight.images.hashes import hamming
from kindsight.threads import count_cores, map_ordered
from output import Row, Section, add_output_options, print_sections
from planted_data import COPIES

Pixels = np.ndarray
Change = Callable[[Pixels, random.Random], "bytes | Pixels"]


def brightened(image: Pixels, rng: random.Random) -> Pixels:
    """Multiply all levels by 0.8 to 1.2."""
    return (image * rng.uniform(0.8, 1.2)).clip(0, 255).astype(np.uint8)


def cropped(image: Pixels, rng: random.Random) -> Pixels:
    """Remove 2 to 5% of each side's length."""
    height, width = image.shape[:2]
    high, wide = (round(side * rng.uniform(0.95, 0.98)) for side in (height, width))
    top, left = rng.randint(0, height - high), rng.randint(0, width - wide)
    return np.ascontiguousarray(image[top : top + high, left : left + wide])


def moved(image: Pixels, rng: random.Random) -> Pixels:
    """Return the next photograph of a burst."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(
        (width / 2, height / 2), rng.uniform(-1.5, 1.5), rng.uniform(1, 1.05)
    )
    turn[:, 2] += rng.uniform(-0.02, 0.02) * width, rng.uniform(-0.02, 0.02) * height
    moved = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)


CHANGES: dict[str, Change] = {
    "re-encoded": COPIES["re-encoded"][1], "brightened or darkened": brightened,
    "resized": COPIES["resized"][1], "cropped by 2-5%": cropped, "next of a burst": moved,
}  # fmt: skip


def measure(data: Path, each: int, seed: int = 0) -> Section:
    """Plant copies among the images of a folder and search for them."""
    files = [file for some in class_files(data).values() for file in some]
    rng = random.Random(f"recall {seed}")
    made: list[tuple[str, int, int]] = []  # change, row of the original, row of the copy
    images: list[bytes | Pixels] = [file.read_bytes() for file in files]
    for name, change in CHANGES.items():
        for original in rng.sample(range(len(files)), min(each, len(files))):
            pixels = np.asarray(Image.open(files[original]).convert("RGB"))
            made.append((name, original, len(images)))
            images.append(change(pixels, rng))
    measured = list(map_ordered(measure_image, images, count_cores()))
    context = context_of(measured)
    groups = np.arange(len(images))
    for rows in find_duplicates(context).groups():
        groups[rows] = rows[0]
    section = Section(f"Recall of planted near-duplicates, {len(files):,} images of {data.name}")
    hashes = context.measurements.hash
    for name in CHANGES:
        one, other = np.array([pair[1:] for pair in made if pair[0] == name]).T
        low = hamming(hashes[one, :1], hashes[other, :1])
        every = hamming(hashes[one], hashes[other])
        for step, found in {
            f"hashes within {LOW_BITS} of 64 and {ALL_BITS} of 255 bits": (low <= LOW_BITS)
            & (every <= ALL_BITS),
            f"hashes within {NEAR_BITS} of 64 bits": low <= NEAR_BITS,
            "in one group": groups[one] == groups[other],
        }.items():
            section.rows.append(Row(f"{name}: {step}", [float(found.mean())], "%"))
    section.notes.append(f"{each} copies of each kind.")
    return section


def context_of(measured: Sequence[MeasuredImage]) -> CheckContext:
    """Return the context of measured images."""
    small = np.stack([one.small for one in measured])
    numbers = np.array([one.numeric for one in measured], NUMERIC)
    text = {name: np.array([one.text[name] for one in measured], object) for name in TEXT}
    dataset = ImageDataset(
        path=tuple(map(str, range(len(measured)))), digest=tuple(one.digest for one in measured)
    )
    return CheckContext(dataset, Measurements(numbers, text, lambda rows: small[rows]))


def main() -> None:
    """Measure and print the sections."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR",
        help="images in class folders; may be given several times",
    )  # fmt: skip
    parser.add_argument("--each", type=int, default=200, metavar="N", help="[default: 200]")
    add_output_options(parser)
    options = parser.parse_args()
    print_sections([measure(data, options.each) for data in options.data], options)


if __name__ == "__main__":
    main()
