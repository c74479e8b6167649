"""Policies that have a name."""

from __future__ import annotations

import difflib

from kindsight.augment.keras_arguments import from_keras
from kindsight.augment.policy import Augment
from kindsight.errors import SettingsError

__all__ = ["RECIPES", "recipe"]

RECIPES: dict[str, Augment] = {
    "none": Augment(),
    "light": Augment(
        rotation=10,
        shift=0.05,
        scale=(0.9, 1.1),
        horizontal_flip=True,
        brightness=0.1,
        contrast=0.1,
        fill="reflect",
    ),
    # The course's own, through the same door as anybody's: see keras_arguments for shear and zoom.
    "classic": from_keras(
        rotation_range=40,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    ),
    "strong": Augment(
        rotation=30,
        shift=0.15,
        scale=(0.7, 1.4),
        aspect=1.2,
        shear=10,
        horizontal_flip=True,
        perspective=0.05,
        brightness=0.4,
        contrast=0.4,
        saturation=0.5,
        hue=15,
        blur=1.5,
        noise=10,
        jpeg_quality=40,
        erasing=0.25,
        fill="reflect",
    ),
    "auto": Augment(auto=True, horizontal_flip=True, fill="reflect"),
}
"""The recipes by name, from nothing to much.

``classic`` is what the course gives to ImageDataGenerator: rotation 40, shifts 0.2, shear 0.2,
zoom 0.2, horizontal flip, nearest fill. Its shear is 11.5 degrees: the course writes 0.2, which
meant radians when tutorials began to write it, while Keras has since taken it for 0.2 degrees, half
a pixel in 150. Its zoom keeps the proportions.
"""


def recipe(name: str) -> Augment:
    """Return the recipe of that name; SettingsError if there is none."""
    if isinstance(name, str) and name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(str(name), RECIPES, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingsError(f"recipe must be one of {', '.join(RECIPES)}. Received: {name!r}.{hint}")
