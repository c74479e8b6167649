"""Policies of every kind for property tests, and sampled written by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kindsight.augment import Augment
from kindsight.augment.sampling import Transforms, sample_transforms


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(math.ceil(low), math.floor(high)) | st.floats(low, high)


def factors(low: float, high: float) -> st.SearchStrategy[object]:
    pairs = st.tuples(numbers(low, high), numbers(low, high)).map(sorted).map(tuple)
    return pairs | numbers(0, 0.9)


POLICIES = st.builds(
    Augment,
    rotation=numbers(0, 180),
    shift=numbers(0, 1) | st.tuples(numbers(0, 1), numbers(0, 1)),
    scale=factors(0.1, 10),
    aspect=numbers(1, 4),
    shear=numbers(0, 75),
    horizontal_flip=st.booleans(),
    vertical_flip=st.booleans(),
    perspective=st.floats(0, 0.2),
    fill=st.sampled_from(["nearest", "reflect", "wrap", "constant"]),
    fill_value=st.integers(0, 255) | st.tuples(*[st.integers(0, 255)] * 3),
    brightness=factors(0, 10),
    contrast=factors(0, 10),
    saturation=factors(0, 10),
    hue=numbers(0, 180),
    blur=numbers(0, 50),
    noise=numbers(0, 128),
    jpeg_quality=st.integers(1, 100),
    erasing=st.floats(0, 0.8),
    auto=st.booleans(),
    mixup=numbers(0, 100),
    cutmix=numbers(0, 100),
)


def transforms(count: int = 1, **values: Any) -> Transforms:
    """Return what nothing sampled for `count` images, but for the values given, alike for all."""
    nothing = sample_transforms(Augment(), seed=0, epoch=0, index=np.arange(count))
    known = {field.name: getattr(nothing, field.name) for field in fields(Transforms)}
    return replace(
        nothing,
        **{
            name: np.broadcast_to(np.asarray(value, known[name].dtype), known[name].shape)
            for name, value in values.items()
        },
    )


def noise(seed: int, *shape: int) -> np.ndarray:
    """Return an image, or several, of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
