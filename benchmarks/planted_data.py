"""Plant known duplicates, faults and wrong labels in copies of class folders.

The seed determines the images, the faults and their strength.
"""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from folders import Classes, class_files

__all__ = ["COPIES", "FAULTS", "Planted", "plant_faults", "swap_labels"]

Pixels = np.ndarray
Random = random.Random


@dataclass(frozen=True)
class Planted:
    """A planted file.

    Parameters
    ----------
    kind : str
        A key of :data:`COPIES` or :data:`FAULTS`.
    path : str
        Relative to the folder, with forward slashes.
    original : str
        The image that was copied, or `path` itself if the file was replaced.
    """

    kind: str
    path: str
    original: str


def _encode(image: Pixels, quality: int = 92, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({} if kind == "PNG" else {"quality": quality}))
    return file.getvalue()


def _reencoded(image: Pixels, rng: Random) -> bytes:
    return _encode(image, rng.randint(30, 95), rng.choice(["JPEG", "JPEG", "WEBP", "PNG"]))


def _resized(image: Pixels, rng: Random) -> bytes:
    factor = rng.choice([rng.uniform(1 / 3, 0.9), rng.uniform(1.1, 2.0)])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return _encode(cv2.resize(image, None, fx=factor, fy=factor, interpolation=method), 85)


def _mirrored(image: Pixels, rng: Random) -> bytes:
    return _encode(np.ascontiguousarray(image[:, ::-1]), rng.randint(60, 95))


def _rotated(image: Pixels, rng: Random) -> bytes:
    """Rotate by 90, 180 or 270 degrees, and mirror half of the images."""
    rotated = np.rot90(image, rng.randint(1, 3))
    chosen = rotated[:, ::-1] if rng.random() < 0.5 else rotated
    return _encode(np.ascontiguousarray(chosen), rng.randint(60, 95))


def _crop(image: Pixels, rng: Random, least: float, most: float) -> bytes:
    """Crop a random rectangle whose sides are `least` to `most` of the image's."""
    height, width = image.shape[:2]
    high, wide = (round(side * rng.uniform(least, most)) for side in (height, width))
    top, left = rng.randint(0, height - high), rng.randint(0, width - wide)
    crop = np.ascontiguousarray(image[top : top + high, left : left + wide])
    return _encode(crop, rng.randint(80, 95))


def _cropped(image: Pixels, rng: Random) -> bytes:
    return _crop(image, rng, 0.9, 0.95)


def _cropped_smaller(image: Pixels, rng: Random) -> bytes:
    return _crop(image, rng, 0.75, 0.85)


Change = Callable[[Pixels, Random], bytes]

COPIES: Mapping[str, tuple[str, Change]] = {
    "re-encoded": ("KS302", _reencoded),
    "resized": ("KS302", _resized),
    "mirrored": ("KS303", _mirrored),
    "rotated": ("KS303", _rotated),
    "cropped to 90-95% of each side": ("KS304", _cropped),
    "cropped to 75-85% of each side": ("KS305", _cropped_smaller),
}
"""Copies placed next to their original, with the check that should find them."""


def _blurred(image: Pixels, rng: Random) -> bytes:
    """Blur with a Gaussian of 1.5 to 4% of the shorter side."""
    sigma = rng.uniform(0.015, 0.04) * min(image.shape[:2])
    return _encode(np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)))


def _dark(image: Pixels, rng: Random) -> bytes:
    return _encode((image * rng.uniform(0.1, 0.25)).astype(np.uint8))


def _blank(image: Pixels, rng: Random) -> bytes:
    """Return a uniform image of random brightness with sensor noise."""
    noise_rng = np.random.default_rng(rng.getrandbits(32))
    noise = noise_rng.normal(rng.uniform(5, 250), rng.uniform(0, 2), image.shape)
    return _encode(noise.clip(0, 255).astype(np.uint8))


FAULTS: Mapping[str, tuple[str, Change | None]] = {
    "blurred": ("KS202", _blurred),
    "dark": ("KS203", _dark),
    "blank": ("KS201", _blank),
    "truncated": ("KS102", None),
}
"""Faults that replace an image, with the check that should find them."""


def plant_faults(data: Path, folder: Path, each: int, seed: int) -> list[Planted]:
    """Copy class folders and plant every kind of copy and fault in different images.

    Parameters
    ----------
    data : pathlib.Path
        A folder of class folders.
    folder : pathlib.Path
        The folder of the copy.
    each : int
        Images per kind.
    seed : int
        Seed of the images and of the strength of the faults.
    """
    shutil.copytree(data, folder)
    rng = random.Random(f"faults {seed}")
    files = [file for some in class_files(folder).values() for file in some]
    chosen = iter(rng.sample(files, each * (len(COPIES) + len(FAULTS))))
    planted = []
    for kind, (_, change) in {**COPIES, **FAULTS}.items():
        for number in range(each):
            file = next(chosen)
            original = file.relative_to(folder).as_posix()
            if change is None:
                data_bytes = _truncated(file, rng)
            else:
                data_bytes = change(np.asarray(Image.open(file).convert("RGB")), rng)
            target = file
            if kind in COPIES:
                # The name does not contain the original's, and the suffix fits the format.
                suffix = {b"\x89P": ".png", b"RI": ".webp"}.get(data_bytes[:2], ".jpg")
                target = file.with_name(f"{seed}-{list(COPIES).index(kind)}-{number}{suffix}")
            target.write_bytes(data_bytes)
            planted.append(Planted(kind, target.relative_to(folder).as_posix(), original))
    return planted


def _truncated(file: Path, rng: Random) -> bytes:
    data = file.read_bytes()
    return data[: round(rng.uniform(1 / 3, 0.9) * len(data))]


def swap_labels(classes: Classes, folder: Path, fraction: float, seed: int) -> dict[str, str]:
    """Copy class folders with some images in a wrong class; return the correct class by path.

    Parameters
    ----------
    classes : mapping
        Files by class.
    folder : pathlib.Path
        The folder of the copy.
    fraction : float
        Fraction of all images that get a random other class.
    seed : int
    """
    rng = random.Random(f"labels {seed} {fraction}")
    files = [(name, file) for name, some in classes.items() for file in some]
    wrong = set(rng.sample(range(len(files)), round(fraction * len(files))))
    swapped = {}
    for row, (name, file) in enumerate(files):
        label = rng.choice([other for other in classes if other != name]) if row in wrong else name
        # Different classes may have files of the same name.
        target = folder / label / f"{name}-{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if row in wrong:
            swapped[target.relative_to(folder).as_posix()] = name
    return swapped
