"""Images for ``check.py``: copies of real ones with planted faults, and generated ones."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

__all__ = ["FAULTS", "generate", "plant"]

Pixels = np.ndarray


def _levels(image: Pixels, factor: float, offset: float) -> Pixels:
    return np.clip(image * factor + offset, 0, 255).astype(np.uint8)


def _scaled(image: Pixels, factor: float) -> Pixels:
    size = [max(8, round(side * factor)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _strip(image: Pixels) -> Pixels:
    return image[: max(8, image.shape[1] // 4)]


FAULTS: dict[str, Callable[[Pixels], Pixels]] = {
    "dark": lambda p: _levels(p, 0.15, 0),
    "bright": lambda p: _levels(p, 0.05, 242),
    "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), p.shape[1] / 60),
    "blank": lambda p: np.full_like(p, 128),
    "grey": lambda p: cv2.cvtColor(p, cv2.COLOR_RGB2GRAY),
    "strip": _strip,
    "huge": lambda p: cv2.resize(p, (3200, 3000)),
    "same": lambda p: p,
    "stored": lambda p: p,
    "smaller": lambda p: _scaled(p, 0.6),
}
"""The planted faults by name."""


def plant(data: Path, folder: Path, each: int = 10, seed: int = 0) -> Path:
    """Copy class folders and add `each` images per fault next to their originals."""
    shutil.copytree(data, folder)
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    random.Random(seed).shuffle(files)
    for name, fault in FAULTS.items():
        for file in files[:each]:
            changed = fault(np.asarray(Image.open(file).convert("RGB")))
            target = file.with_name(f"{file.stem}-{name}.jpg")
            if name == "same":
                shutil.copy(file, target)
            else:
                Image.fromarray(changed).save(target, quality=70 if name == "stored" else 95)
        files = files[each:]
    return folder


def generate(folder: Path, count: int, first: int = 0, workers: int = 2) -> Path:
    """Generate images of 160 x 120 in ten classes; one in a hundred is a re-encoded copy.

    Images `first` to `count` are written to class folders in `folder`; they do not depend on the
    number of worker processes.
    """
    for label in range(10):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
    step = 500
    ranges = [(folder, at, min(at + step, count)) for at in range(first, count, step)]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_generate, ranges))
    return folder


def _generate(job: tuple[Path, int, int]) -> None:
    folder, first, last = job
    for number in range(first, last):
        copy = number % 100 == 99
        data = _random_jpeg(number - 1 if copy else number, quality=60 if copy else 85)
        (folder / f"class {number % 10}" / f"{number:06}.jpg").write_bytes(data)


def _random_jpeg(seed: int, quality: int) -> bytes:
    """Return a JPEG with noise at all scales, like a photograph, and a few edges."""
    rng = np.random.default_rng(seed)
    image = np.zeros((120, 160, 3), np.float32)
    for side in (3, 6, 12, 24, 48):
        coarse = rng.normal(size=(side, side, 3)).astype(np.float32)
        image += cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_LINEAR) * 60 / side**0.5
    for _ in range(4):
        centre = [int(rng.integers(0, size)) for size in (160, 120)]
        colour = [float(value) for value in rng.uniform(-90, 90, 3)]
        cv2.circle(image, centre, int(rng.integers(6, 30)), colour, -1)
    file = io.BytesIO()
    levels = (image + 128 + rng.uniform(-20, 20)).clip(0, 255).astype(np.uint8)
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def first_names(paths: Sequence[str], limit: int = 5) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(paths[:limit]) + more
