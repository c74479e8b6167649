"""Examples of the checks of splits and balance: KS501 to KS603."""

from __future__ import annotations

import numpy as np

from .contract import SMALL, Example, example, many, plain, saved
from .still_life import fruit

__all__: list[str] = []


@example("KS501")
def leaked() -> Example:
    """Put one file into the train and test splits."""
    return Example(
        "The test split contains an image of the train split.",
        {**plain("train/apple/1.jpg", "train/pear/1.jpg", "test/apple/2.jpg"),
         "test/pear/7.jpg": saved(fruit("pear", 1))},
        ("train/pear/1.jpg", "test/pear/7.jpg"),
    )  # fmt: skip


@example("KS502")
def leaked_copies() -> Example:
    """Put a mirrored copy of a train image into the test split."""
    mirror = np.ascontiguousarray(fruit("pear", 1)[:, ::-1])
    return Example(
        "The test split contains a mirrored copy of a train image.",
        {**plain("train/apple/1.jpg", "train/pear/1.jpg", "test/apple/2.jpg"),
         "test/pear/7.jpg": saved(mirror)},
        ("train/pear/1.jpg", "test/pear/7.jpg"),
    )  # fmt: skip


@example("KS503")
def missing_class() -> Example:
    """Test on a class without train images."""
    return Example(
        "The test split contains lemons, the train split does not.",
        plain("train/apple/1.jpg", "train/pear/1.jpg", "test/apple/2.jpg", "test/pear/2.jpg",
              "test/lemon/1.jpg"),
        ("lemon",),
        ("train/apple/1.jpg", "train/pear/1.jpg", "test/pear/2.jpg", "test/lemon/1.jpg"),
    )  # fmt: skip


@example("KS504")
def splits_from_sources() -> Example:
    """Photograph the test split with another camera."""
    return Example(
        "The test images are smaller and brighter: another camera took them.",
        {
            **{f"train/{path}": data for path, data in many("apple", 24, **SMALL).items()},
            **{
                f"test/apple/{n}.png": saved(
                    (fruit("apple", n, 48, 48) * 0.7 + 70).astype(np.uint8), "PNG"
                )
                for n in range(25, 49)
            },
        },
        ("train", "test"),
        ("train/apple/1.jpg", "train/apple/2.jpg", "test/apple/25.png", "test/apple/26.png"),
        {"train/apple/1.jpg": "80 x 60, JPEG", "test/apple/25.png": "48 x 48, PNG"},
    )


@example("KS505")
def classes_from_sources() -> Example:
    """Take one class from the web and the other with a phone."""
    return Example(
        "All pears have one size and all apples another, so their size reveals the class.",
        {**many("apple", 24, **SMALL), **many("pear", 24, height=54, width=54)},
        ("apple", "pear"),
        ("apple/1.jpg", "apple/2.jpg", "pear/1.jpg", "pear/2.jpg"),
        {"apple/1.jpg": "80 x 60", "pear/1.jpg": "54 x 54"},
    )


@example("KS601")
def few() -> Example:
    """Collect few lemons."""
    return Example(
        "Three lemons: two for training and one for validation.",
        {**many("apple", 20, **SMALL), **many("lemon", 3, **SMALL)},
        ("lemon",),
        ("apple/1.jpg", "lemon/1.jpg", "lemon/2.jpg", "lemon/3.jpg"),
        {"apple/1.jpg": "1 of 20"},
    )


@example("KS602")
def uneven() -> Example:
    """Collect ten times as many apples."""
    return Example(
        "Forty apples and four lemons: always predicting *apple* is correct for 10 of 11 images.",
        {**many("apple", 40, **SMALL), **many("lemon", 4, **SMALL)},
        ("lemon", "apple"),
        ("apple/1.jpg", "apple/2.jpg", "apple/3.jpg", "lemon/1.jpg"),
        {"apple/1.jpg": "1 of 40", "lemon/1.jpg": "1 of 4"},
    )


@example("KS603")
def wide_interval() -> Example:
    """Have enough train images and few test images."""
    return Example(
        "Twenty pears, four of them for testing: one error is 25 points of recall.",
        {**many("apple", 20, **SMALL), **many("pear", 20, **SMALL)},
        ("apple", "pear"),
        ("apple/1.jpg", "apple/2.jpg", "pear/1.jpg", "pear/2.jpg"),
    )
