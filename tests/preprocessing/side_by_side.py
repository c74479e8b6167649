"""Runs the same code with Keras's module, the reference, and with ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from PIL import Image

__all__ = [
    "COURSE",
    "KERAS",
    "MEAN",
    "MOST",
    "OURS",
    "Difference",
    "compare",
    "examples",
    "random_images",
    "run_both",
    "same_state",
    "write_class_folders",
]

OURS = importlib.import_module("kindsight.preprocessing.image")
KERAS = importlib.import_module("keras.src.legacy.preprocessing.image")
Run = Callable[[ModuleType], Any]

# Tolerances of float pixels, of 255: maximum and mean.
MOST, MEAN = 0.05, 0.002
COURSE = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}


def examples(count: int = 100) -> settings:
    """Return Hypothesis settings for slow machines."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


class Difference:
    """Mean and maximum difference of arrays."""

    def __init__(self) -> None:
        self.mean, self.most, self.count = 0.0, 0.0, 0

    def add(self, keras: np.ndarray, ours: np.ndarray) -> None:
        assert (keras.shape, keras.dtype) == (ours.shape, ours.dtype)
        apart = np.abs(keras.astype(np.float64) - ours.astype(np.float64))
        if apart.size:
            self.most = max(self.most, float(apart.max()))
            self.mean += float(apart.sum())
            self.count += apart.size

    def within(self, mean: float, most: float) -> bool:
        assert self.count, "nothing was compared"
        assert self.most <= most, f"maximum {self.most}, more than {most}"
        assert self.mean / self.count <= mean, f"mean {self.mean / self.count}, more than {mean}"
        return True


def run_both(run: Run, seed: int = 0) -> tuple[Any, Any]:
    """Run with Keras and ours from the same NumPy seed; check that both draw equally often."""
    results, states = [], []
    for module in (KERAS, OURS):
        np.random.seed(seed)
        results.append(run(module))
        states.append(np.random.get_state())
    assert same_state(*states), "the random draws differ"
    return results[0], results[1]


def same_state(first: Any, second: Any) -> bool:
    return first[2:] == second[2:] and np.array_equal(first[1], second[1])


def compare(keras: Any, ours: Any, difference: Difference | None = None) -> Difference:
    """Compare nested batches: images with a tolerance, everything else exactly."""
    difference = difference or Difference()
    if not isinstance(keras, np.ndarray | list | tuple):
        keras = np.asarray(keras)  # pandas has its own string arrays
    assert type(keras) is type(ours)
    if isinstance(keras, np.ndarray):
        if keras.ndim == 4:
            difference.add(keras, ours)
        else:
            assert keras.dtype == ours.dtype
            assert np.array_equal(keras, ours)
    else:
        assert len(keras) == len(ours)
        for one, other in zip(keras, ours, strict=True):
            compare(one, other, difference)
    return difference


def random_images(
    rng: np.random.RandomState, count: int, height: int, width: int, channels: int, dtype: str
) -> np.ndarray:
    """Return noise and ramps, which reveal different errors of a warp."""
    shape = (count, height, width, channels)
    noise = rng.uniform(0, 255, shape)
    rows = np.linspace(0, 255, height)[:, None, None]
    noise[::2] = 0.5 * (noise[::2] * (rng.rand(channels) < 0.5) + rows)
    return noise.astype(dtype)


def write_class_folders(root: Path) -> Path:
    """Write class folders with images in every format that Keras reads, and other files."""
    rng = np.random.RandomState(7)
    for name, endings in (
        ("cat", ("jpg", "jpeg", "png", "bmp", "ppm", "tif", "JPG", "grey.jpg", "alpha.png")),
        ("dog", ("jpg", "palette.png", "one.png", "deep.png", "cmyk.jpg")),
    ):
        for number, ending in enumerate(endings):
            folder = root / name / ("more" if number % 4 == 3 else "")
            folder.mkdir(parents=True, exist_ok=True)
            size = (int(rng.randint(1, 60)), int(rng.randint(1, 60)))
            pixels = rng.randint(0, 256, (*size, 3), dtype=np.uint8)
            _image(pixels, ending).save(folder / f"p{number:02}.{ending}")
    (root / "cat" / "more" / "z.jpg").write_bytes((root / "cat" / "p00.jpg").read_bytes())
    (root / "cat" / "a").mkdir()
    (root / "cat" / "a" / "z.png").write_bytes((root / "cat" / "p02.png").read_bytes())
    (root / "dog" / "notes.txt").write_text("not an image")
    Image.fromarray(pixels).save(root / "dog" / "x.webp")
    Image.fromarray(pixels).save(root / "dog" / "y.gif")
    (root / "dog" / ".DS_Store").write_bytes(b"")
    (root / "beside.jpg").write_bytes((root / "cat" / "p00.jpg").read_bytes())
    return root


def _image(pixels: np.ndarray, ending: str) -> Image.Image:
    image = Image.fromarray(pixels)
    if ending == "deep.png":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    modes = {
        "grey.jpg": "L",
        "alpha.png": "RGBA",
        "palette.png": "P",
        "one.png": "1",
        "cmyk.jpg": "CMYK",
    }
    return image.convert(modes.get(ending, "RGB"))
