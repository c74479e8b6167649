"""Policies that have a name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

from kindsight.augment.policy import Augment
from kindsight.errors import SettingsError

__all__ = [
    "RECIPES",
    "from_keras",
    "recipe",
]

# SECTION: From the arguments of Keras's ImageDataGenerator to a policy that does what was meant.

AUGMENTING: dict[str, Any] = {
    "rotation_range": 0,
    "width_shift_range": 0.0,
    "height_shift_range": 0.0,
    "brightness_range": None,
    "shear_range": 0.0,
    "zoom_range": 0.0,
    "channel_shift_range": 0.0,
    "fill_mode": "nearest",
    "cval": 0.0,
    "horizontal_flip": False,
    "vertical_flip": False,
}
"""The arguments that change images by chance, with Keras's defaults."""

LEFT_OUT = {
    "rescale": "pixels stay 0-255, scaling lives inside the network",
    "data_format": "images are (height, width, 3)",
    "dtype": "images are uint8",
    "validation_split": "what is kept for validation is never augmented",
    "interpolation_order": "a warp is always bilinear, which is order 1",
}
"""Arguments that are no augmentation, with what holds in their place."""

REFUSED = (
    "featurewise_center",
    "featurewise_std_normalization",
    "samplewise_center",
    "samplewise_std_normalization",
    "zca_whitening",
    "zca_epsilon",
    "preprocessing_function",
)
"""Arguments that change every image, and have no place in a policy."""


def from_keras(*, size: tuple[int, int] | None = None, **arguments: Any) -> Augment:
    """Make a policy of the arguments of Keras's ImageDataGenerator, its traps mended.

    What was mended or left out is said in the policy's `notes`, a sentence each:

    - ``shear_range`` below 1 is taken for radians, as it was when tutorials began to write 0.2, and
      as it still looks: in Keras it has long been degrees, and 0.2 of them do nothing. From 1 on
      it is degrees.
    - ``zoom_range`` is a factor on what is seen, so that 0.8 enlarges: the scale is its inverse.
      Keras draws it for height and width separately and so distorts; here proportions are kept.
      Give :class:`Augment` an `aspect` to distort on purpose.
    - ``brightness_range`` only changes the brightness; Keras stretches the contrast of the
      image to 0-255, too.
    - ``channel_shift_range``, which adds one number to all channels, becomes the factor of
      brightness that does as much to a middle grey. Up to 1 it is taken to be meant for pixels
      from 0 to 1, as it does nothing to pixels from 0 to 255.
    - Shifts from 1 on are pixels, and need `size`. Where Keras is given a list of shifts to choose
      from, everything up to the greatest is drawn.

    Parameters
    ----------
    size : (height, width), optional
        The images' size in pixels, to turn shifts in pixels into shares.
    **arguments
        As ImageDataGenerator takes them. Those that do no augmentation, such as ``rescale``, are
        left out with a note.

    Returns
    -------
    Augment

    Raises
    ------
    SettingsError
        For values that cannot be, names that ImageDataGenerator does not have, and arguments that
        a policy cannot stand for, such as ``zca_whitening`` or ``preprocessing_function``.

    Examples
    --------
    >>> policy = from_keras(rotation_range=20, shear_range=0.2)
    >>> policy
    Augment(rotation=20, shear=11.5)
    >>> print(policy.notes[0])
    shear_range=0.2 is taken for radians, 11.5 degrees: 0.2 degrees would do nothing.
    """
    _check_names(arguments)
    given = {**AUGMENTING, **arguments}
    notes: list[str] = []
    faults: list[str] = []

    def part(make: Callable[..., Any], *names: str) -> Any:
        try:
            return make(*(given[name] for name in names), notes)
        except SettingsError as error:
            faults.append(str(error))
        except (TypeError, ValueError):
            shown = ", ".join(f"{name}={given[name]!r}" for name in names)
            faults.append(f"A value must be one that ImageDataGenerator takes. Received: {shown}.")
        return None

    heights, widths = size or (None, None)
    settings = {
        "rotation": part(lambda angle, _: min(abs(float(angle)), 180.0), "rotation_range"),
        "shift": (
            part(lambda v, notes: _shift("height", v, heights, notes), "height_shift_range"),
            part(lambda v, notes: _shift("width", v, widths, notes), "width_shift_range"),
        ),
        "scale": part(_scale, "zoom_range"),
        "shear": part(_shear, "shear_range"),
        "brightness": part(_brightness, "brightness_range", "channel_shift_range"),
        "fill": given["fill_mode"],
        "fill_value": part(lambda value, _: round(value), "cval"),
        "horizontal_flip": part(lambda value, _: bool(value), "horizontal_flip"),
        "vertical_flip": part(lambda value, _: bool(value), "vertical_flip"),
    }
    if faults:
        raise SettingsError("\n".join(faults))
    notes += [
        f"{name} is left out: {why}." for name, why in LEFT_OUT.items() if arguments.get(name)
    ]
    return Augment(**settings, notes=tuple(notes))


def _check_names(arguments: dict[str, Any]) -> None:
    known = [*AUGMENTING, *LEFT_OUT, *REFUSED]
    faults = []
    for name, value in arguments.items():
        if name in REFUSED and value and name != "zca_epsilon":
            faults.append(
                f"{name} changes every image alike and cannot be part of a policy. Leave it out "
                "here, and do it to the images themselves."
            )
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            faults.append(f"ImageDataGenerator has no argument {name}.{hint}")
    if faults:
        raise SettingsError("\n".join(faults))


def _shift(side: str, value: Any, pixels: int | None, notes: list[str]) -> float:
    """Return a share of the side."""
    listed = hasattr(value, "__len__")
    greatest = max(abs(float(one)) for one in value) if listed else abs(float(value))
    if listed:
        notes.append(
            f"{side}_shift_range: every shift up to {greatest:g} is drawn, not only those listed."
        )
    if greatest < 1:
        return greatest
    if pixels is None:
        raise SettingsError(
            f"{side}_shift_range={value!r} is in pixels, so the images' size must be known. Give "
            "size=(height, width), or a share below 1."
        )
    return round(greatest / pixels, 4)


def _scale(zoom: Any, notes: list[str]) -> tuple[float, float]:
    """Return the factors of size; Keras's zoom is that of the part that is seen."""
    low, high = (float(one) for one in zoom) if hasattr(zoom, "__len__") else (1 - zoom, 1 + zoom)
    if low == high == 1:
        return 1.0, 1.0
    if not 0 < low <= high:
        raise ValueError
    notes.append(
        f"zoom_range={zoom!r} keeps the proportions; ImageDataGenerator draws it for height and "
        "width separately."
    )
    return round(1 / high, 4), round(1 / low, 4)


def _shear(shear: Any, notes: list[str]) -> float:
    """Return degrees."""
    value = abs(float(shear))
    if not 0 < value < 1:
        return value
    degrees = round(math.degrees(value), 1)
    notes.append(
        f"shear_range={shear!r} is taken for radians, {degrees:g} degrees: {shear!r} degrees would "
        "do nothing."
    )
    return degrees


def _brightness(factors: Any, shift: Any, notes: list[str]) -> tuple[float, float]:
    """Return the factors of both arguments together."""
    low, high = (1.0, 1.0) if factors is None else (float(one) for one in factors)
    if factors is not None:
        notes.append(
            "brightness_range changes the brightness alone; ImageDataGenerator stretches the "
            "contrast, too."
        )
    added = abs(float(shift))
    if added:
        levels = added * 255 if added <= 1 else added
        notes.append(
            f"channel_shift_range={shift!r} is taken for brightness: up to {levels:g} levels more "
            "or less at a middle grey."
        )
        low, high = low * (1 - min(levels / 127.5, 1)), high * (1 + levels / 127.5)
    return round(low, 4), round(high, 4)


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
