"""Small synthetic images of three classes for the tests: rings, bars and chequers with noise."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("bar", "chequer", "ring")


def shape(kind: str, seed: int, side: int = 72) -> np.ndarray:
    """Return an image uint8 (side, side + 8, 3): one faint coloured shape on grey noise.

    A head trained on a few dozen of them has an accuracy of about 90%, not 100%.
    """
    random = np.random.default_rng([seed, CLASSES.index(kind)])
    height, width = side, side + 8
    y, x = np.mgrid[0:height, 0:width]
    y = y - height * random.uniform(0.4, 0.6)
    x = x - width * random.uniform(0.4, 0.6)
    if kind == "ring":
        inside = np.abs(np.hypot(x, y) - side * 0.28) < side * 0.07
    elif kind == "bar":
        angle = random.uniform(0, np.pi)
        inside = np.abs(x * np.cos(angle) + y * np.sin(angle)) < side * 0.08
    else:
        inside = ((x // 9 + y // 9) % 2 == 0) & (np.maximum(np.abs(x), np.abs(y)) < side * 0.35)
    image = np.full((height, width, 3), random.uniform(90, 160))
    image[inside] += random.uniform(-30, 30, 3)
    image += random.normal(0, 25, image.shape)
    return image.clip(0, 255).round().astype(np.uint8)


def encoded(pixels: np.ndarray, ending: str, mode: str | None = None) -> bytes:
    """Return an image file with these pixels."""
    image = Image.fromarray(pixels)
    if mode is not None:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper()))
    return file.getvalue()


def write_shapes(folder: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Write class folders; most images are PNG, some have other formats."""
    kinds = [("png", None)] * 3 + [("jpg", None), ("jpg", "CMYK"), ("webp", None)] + [("gif", "L")]
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed = first + number
            ending, mode = kinds[seed % len(kinds)]
            data = encoded(shape(name, seed), ending, mode)
            (folder / name / f"{name} {seed:03d}.{ending}").write_bytes(data)
    return folder


def write_photos(folder: Path) -> Path:
    """Write the folder that the shared run is trained on: 90 images and four special files.

    The special files are a copy of a ring under another name, a truncated JPEG, an empty file, and
    a text file with the name of an image.
    """
    write_shapes(folder, {"bar": 32, "chequer": 30, "ring": 28})
    (folder / "ring" / "copy.png").write_bytes((folder / "ring" / "ring 000.png").read_bytes())
    jpeg = (folder / "bar" / "bar 003.jpg").read_bytes()
    (folder / "bar" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "chequer" / "empty.png").write_bytes(b"")
    (folder / "chequer" / "letter.jpg").write_bytes(b"Dear reader, this is no image.\n" * 9)
    return folder


def write_small_network(file, size):
    """Write a small convolutional network as a user's own model file; return its name."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Rescaling(1 / 255), layers.Conv2D(5, 3, strides=4, activation="relu")]
    keras.Sequential([keras.Input((size, size, 3)), *stack], name=file.stem).save(file)
    return str(file)
