"""Generate many images: frames of videos, small images and photographs that are all different.

The seed and the number of an image determine it. All kinds have the same number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

__all__ = [
    "CLASSES",
    "FRAMES",
    "KINDS",
    "frame",
    "photograph",
    "unrelated",
    "write_images",
    "write_links",
]

CLASSES = 43
FRAMES = 30
"""Frames of a track, as in the recordings of German traffic signs."""

SIDE = 96
"""Height and width in pixels at which scenes are drawn, before they are shrunk."""

HEIGHT, WIDTH = 600, 800
"""Size of a photograph in pixels."""

Pixels = np.ndarray


def frame(number: int, seed: int = 0) -> Pixels:
    """Return a frame of a track of :data:`FRAMES`, uint8 (side, side, 3), 20 to 60 pixels.

    A track is one object on one background. From frame to frame, the camera comes closer (the frame
    grows from 20 to 60 pixels), trembles by up to 2% of the side, turns by up to 2 degrees and
    changes its exposure by up to 10%; each frame has different noise.
    """
    track, step = divmod(number, FRAMES)
    scene = _scene(np.random.default_rng([seed, 1, track]), track % CLASSES)
    random = np.random.default_rng([seed, 2, number])
    turn = cv2.getRotationMatrix2D(
        (SIDE / 2, SIDE / 2), random.uniform(-2, 2), 1.0 + 0.1 * step / FRAMES
    )
    turn[:, 2] += random.uniform(-0.02, 0.02, 2) * SIDE
    moved = cv2.warpAffine(scene, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    return _photograph(moved, 20 + round(40 * step / (FRAMES - 1)), random)


def unrelated(number: int, seed: int = 0) -> Pixels:
    """Return an image of a unique scene, uint8 (side, side, 3), 40 to 64 pixels."""
    random = np.random.default_rng([seed, 3, number])
    return _photograph(_scene(random, number % CLASSES), int(random.integers(40, 65)), random)


def photograph(number: int, seed: int = 0) -> Pixels:
    """Return an image of a unique scene, uint8 (600, 800, 3), with grain at every scale."""
    random = np.random.default_rng([seed, 5, number])
    scene = _scene(random, number % CLASSES)
    large = cv2.resize(scene, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    top, left = random.integers(0, 200, 2)
    large *= random.uniform(0.9, 1.1)
    large += _grain()[top : top + HEIGHT, left : left + WIDTH]
    return large.clip(0, 255).astype(np.uint8)


@cache
def _grain() -> Pixels:
    """Return texture that makes a JPEG of quality 90 as large as a photograph's, float32."""
    random = np.random.default_rng(6)
    shape = (HEIGHT + 200, WIDTH + 200)
    grain = np.zeros((*shape, 3), np.float32)
    for cells, strength in ((50, 8), (100, 7), (200, 6), (400, 5), (800, 4)):
        noise = random.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        grain += cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return grain


KINDS: dict[str, Callable[[int, int], Pixels]] = {
    "tracks": frame, "unrelated": unrelated, "photographs": photograph,
}  # fmt: skip
"""The kinds of datasets."""


def write_images(kind: str, folder: Path, count: int, seed: int = 0) -> None:
    """Write `count` files of a kind to class folders, on all cores: photographs as JPEG files."""
    for label in range(CLASSES):
        (folder / f"{label:02d}").mkdir(parents=True, exist_ok=True)
    numbers = np.array_split(np.arange(count), max(1, count // 500))
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(_write, kind, folder, some.tolist(), seed) for some in numbers]
        for job in jobs:
            job.result()


def write_links(kind: str, folder: Path, count: int, different: int, seed: int = 0) -> None:
    """Write `different` files of a kind, and hard links to them until there are `count`.

    Each link has a unique name in the class folder of its file.
    """
    write_images(kind, folder, min(count, different), seed)
    originals = sorted(path for path in folder.glob("*/*") if path.is_file())
    for number in range(len(originals), count):
        turn, original = divmod(number, len(originals))
        path = originals[original]
        path.with_name(f"{turn:04d}-{path.name}").hardlink_to(path)


def _write(kind: str, folder: Path, numbers: Iterable[int], seed: int) -> None:
    cv2.setNumThreads(1)
    for number in numbers:
        track = number // FRAMES if kind == "tracks" else number
        name = f"{track:05d}_{number % FRAMES:02d}" if kind == "tracks" else f"{number:06d}"
        path = folder / f"{track % CLASSES:02d}" / name
        pixels = KINDS[kind](number, seed)
        if kind == "photographs":
            path.with_suffix(".jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))
        else:
            cv2.imwrite(str(path.with_suffix(".png")), pixels[:, :, ::-1])


def _scene(random: np.random.Generator, label: int) -> Pixels:
    """Return clouds of colour with the sign of a class on them, float32 (SIDE, SIDE, 3)."""
    scene = np.zeros((SIDE, SIDE, 3), np.float32)
    for cells in (3, 6, 12, 24):
        noise = random.normal(0, 50 / cells**0.4, (cells, cells, 3)).astype(np.float32)
        scene += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    scene += random.uniform(60, 180, 3)
    for _ in range(4):
        corners = random.integers(0, SIDE, (3, 2))
        cv2.fillPoly(scene, [corners], random.uniform(0, 255, 3).tolist())
    centre, reach = random.uniform(0.42, 0.58, 2) * SIDE, random.uniform(0.28, 0.38) * SIDE
    shape = np.random.default_rng([4, label])  # the same in every image of the class
    angles = np.arange(3 + label % 5) * 2 * np.pi / (3 + label % 5) + shape.uniform(0, np.pi)
    outline = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(scene, [outline.round().astype(np.int32)], shape.uniform(0, 255, 3).tolist())
    for _ in range(3):
        ends = (centre + reach * shape.uniform(-0.6, 0.6, (2, 2))).round().astype(int)
        cv2.line(scene, ends[0].tolist(), ends[1].tolist(), shape.uniform(0, 255, 3).tolist(), 5)
    return scene


def _photograph(scene: Pixels, side: int, random: np.random.Generator) -> Pixels:
    """Return the scene at another exposure and size, with noise, uint8 (side, side, 3)."""
    small = cv2.resize(scene, (side, side), interpolation=cv2.INTER_AREA)
    small = small * random.uniform(0.9, 1.1) + random.normal(0, 3, small.shape)
    return small.clip(0, 255).round().astype(np.uint8)
