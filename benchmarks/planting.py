"""Known faults planted in copies of class folders, for the proof of checks.

Everything follows from the seed: which images, which fault, how strong.
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
    """A file that was planted.

    Parameters
    ----------
    kind : str
        A key of :data:`COPIES` or :data:`FAULTS`.
    path : str
        Of the file, relative to the folder, with forward slashes.
    original : str
        Of the image that it is a copy of, or the same as `path` where it took its place.
    """

    kind: str
    path: str
    original: str


def _file(image: Pixels, quality: int = 92, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({} if kind == "PNG" else {"quality": quality}))
    return file.getvalue()


def _encoded(image: Pixels, chance: Random) -> bytes:
    """Store it anew: as JPEG or WebP of any quality from 30 on, or as PNG."""
    return _file(image, chance.randint(30, 95), chance.choice(["JPEG", "JPEG", "WEBP", "PNG"]))


def _resized(image: Pixels, chance: Random) -> bytes:
    """Bring each side to between a third and twice its length."""
    factor = chance.choice([chance.uniform(1 / 3, 0.9), chance.uniform(1.1, 2.0)])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return _file(cv2.resize(image, None, fx=factor, fy=factor, interpolation=way), 85)


def _mirrored(image: Pixels, chance: Random) -> bytes:
    return _file(np.ascontiguousarray(image[:, ::-1]), chance.randint(60, 95))


def _turned(image: Pixels, chance: Random) -> bytes:
    """Turn it by one, two or three quarters, and mirror half of them too."""
    turned = np.rot90(image, chance.randint(1, 3))
    chosen = turned[:, ::-1] if chance.random() < 0.5 else turned
    return _file(np.ascontiguousarray(chosen), chance.randint(60, 95))


def _cut(image: Pixels, chance: Random, least: float, most: float) -> Pixels:
    """Return a rectangle of the image, its sides shares of the image's, anywhere."""
    height, width = image.shape[:2]
    high, wide = (round(side * chance.uniform(least, most)) for side in (height, width))
    top, left = chance.randint(0, height - high), chance.randint(0, width - wide)
    return np.ascontiguousarray(image[top : top + high, left : left + wide])


def _cropped(image: Pixels, chance: Random) -> bytes:
    return _file(_cut(image, chance, 0.9, 0.95), chance.randint(80, 95))


def _part(image: Pixels, chance: Random) -> bytes:
    return _file(_cut(image, chance, 0.75, 0.85), chance.randint(80, 95))


Maker = Callable[[Pixels, Random], bytes]

COPIES: Mapping[str, tuple[str, Maker]] = {
    "re-encoded": ("KS302", _encoded),
    "resized": ("KS302", _resized),
    "mirrored": ("KS303", _mirrored),
    "turned": ("KS303", _turned),
    "cropped to 90-95% of each side": ("KS304", _cropped),
    "parts, 75-85% of each side": ("KS305", _part),
}
"""Copies that are put beside the image they were made of, with the check that is to name them."""


def _blurred(image: Pixels, chance: Random) -> bytes:
    """Blur it by a Gaussian of 1.5 to 4% of the shorter side."""
    reach = chance.uniform(0.015, 0.04) * min(image.shape[:2])
    return _file(np.asarray(cv2.GaussianBlur(image, (0, 0), reach)))


def _dark(image: Pixels, chance: Random) -> bytes:
    """Leave a tenth to a quarter of the light."""
    return _file((image * chance.uniform(0.1, 0.25)).astype(np.uint8))


def _blank(image: Pixels, chance: Random) -> bytes:
    """Leave one tone of any brightness, with a sensor's noise."""
    draws = np.random.default_rng(chance.getrandbits(32))
    noise = draws.normal(chance.uniform(5, 250), chance.uniform(0, 2), image.shape)
    return _file(noise.clip(0, 255).astype(np.uint8))


FAULTS: Mapping[str, tuple[str, Maker | None]] = {
    "blurred": ("KS202", _blurred),
    "dark": ("KS203", _dark),
    "blank": ("KS201", _blank),
    "truncated": ("KS102", None),
}
"""Faults that take the place of an image, with the check that is to name them."""


def plant_faults(data: Path, folder: Path, each: int, seed: int) -> list[Planted]:
    """Copy class folders, and plant every kind of copy and fault in images of their own.

    Parameters
    ----------
    data : pathlib.Path
        A folder of class folders.
    folder : pathlib.Path
        Where the copy is made.
    each : int
        How many of each kind.
    seed : int
        Of the choice of images, and of how strong a fault is.
    """
    shutil.copytree(data, folder)
    chance = random.Random(f"faults {seed}")
    files = [file for some in class_files(folder).values() for file in some]
    chosen = iter(chance.sample(files, each * (len(COPIES) + len(FAULTS))))
    planted = []
    for kind, (_, make) in {**COPIES, **FAULTS}.items():
        for number in range(each):
            file = next(chosen)
            original = file.relative_to(folder).as_posix()
            if kind in COPIES:
                assert make is not None
                made = make(_pixels(file), chance)
                # The name says nothing of where it came from, and no ending lies.
                target = file.with_name(f"{seed}-{kind.split(',')[0][:9]}-{number}{_ending(made)}")
            else:
                target = file
                made = _truncated(file, chance) if make is None else make(_pixels(file), chance)
            target.write_bytes(made)
            planted.append(Planted(kind, target.relative_to(folder).as_posix(), original))
    return planted


def _truncated(file: Path, chance: Random) -> bytes:
    """Return a third to nine tenths of the file's bytes."""
    data = file.read_bytes()
    return data[: round(chance.uniform(1 / 3, 0.9) * len(data))]


def _pixels(file: Path) -> Pixels:
    return np.asarray(Image.open(file).convert("RGB"))


def _ending(data: bytes) -> str:
    return {b"\x89P": ".png", b"RI": ".webp"}.get(data[:2], ".jpg")


def swap_labels(classes: Classes, folder: Path, share: float, seed: int) -> dict[str, str]:
    """Lay class folders out with some images in the wrong one.

    Parameters
    ----------
    classes : mapping
        Files by class, as :func:`folders.class_files` lists them.
    folder : pathlib.Path
        Where they are laid out.
    share : float
        Of all images, at random over all classes, 0 to 1; each goes to any other class.
    seed : int
        Of the choice.

    Returns
    -------
    dict of str to str
        From the path of each swapped file, relative to `folder`, to the class it is of.
    """
    chance = random.Random(f"labels {seed} {share}")
    every = [(name, file) for name, files in classes.items() for file in files]
    wrong = set(chance.sample(range(len(every)), round(share * len(every))))
    swapped = {}
    for place, (name, file) in enumerate(every):
        label = name
        if place in wrong:
            label = chance.choice([other for other in classes if other != name])
        # Classes may use the same names of files.
        target = folder / label / f"{name}-{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if place in wrong:
            swapped[target.relative_to(folder).as_posix()] = name
    return swapped
