"""What of the old generator's behaviour surprises people: said once, with the cure.

The behaviour itself stays as it is, since the point of a drop-in is to give the same answers.
Each trap was reported in a public tracker at least once; the guide says where.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError

__all__ = [
    "TRAPS",
    "KerasTrapWarning",
    "augments",
    "check_generator",
    "check_pixels",
    "check_shape",
    "check_subset",
    "forget_warnings",
    "is_ours",
    "pair_or_none",
    "warn_of",
    "zoom_pair",
]


class KerasTrapWarning(UserWarning):
    """Keras's old generator does something here that is rarely what was meant.

    Said once for each kind of trap (and once for each folder, where it is about a folder's files).
    To silence them all: ``warnings.simplefilter("ignore", KerasTrapWarning)``.
    """


TRAPS = {
    "shear-degrees": (
        "shear_range={value} means {value} degrees, which does next to nothing: tutorials took it "
        "for radians. For what they meant write shear_range={degrees:.3g}."
    ),
    "swapped-shifts": (
        "width_shift_range moves images up and down and height_shift_range left and right: "
        "Keras has them the wrong way round. Received width_shift_range={width!r} and "
        "height_shift_range={height!r}: swap the two values."
    ),
    "shift-of-one": (
        "{name}=1 is a whole number of pixels below 1, so it never moves anything. For up to one "
        "pixel write {name}=[0, 1]; for a fraction of the side, a number below 1 such as 0.2."
    ),
    "zoom-stretches": (
        "zoom_range={value!r} draws the zoom of height and width apart, so images are stretched "
        "as well, up to {most:.3g} to 1. To keep proportions, let a subclass's "
        "get_random_transform() set both to one: params['zy'] = params['zx']."
    ),
    "off-centre": (
        "Images of {height}x{width} are not square, and Keras then rotates, shears and zooms "
        "about the wrong point: row {width}/2 and column {height}/2. Use a square target_size."
    ),
    "augmented-validation": (
        "subset='validation' of a generator that augments gives augmented validation images, so "
        "the validation score is not that of the images themselves. Make a second "
        "ImageDataGenerator with the same validation_split and rescale and nothing else, and take "
        "subset='validation' from it."
    ),
    "weights-not-split": (
        "subset='training' takes the last images and labels but the first of the weights, so the "
        "weights belong to other images. Cut the arrays yourself and leave subset out."
    ),
    "sorted-split": (
        "validation_split takes the first rows of the table without shuffling: of the classes, "
        "{missing} of {total} are in one part only ({names}). Shuffle the rows first: "
        "dataframe.sample(frac=1, random_state=0)."
    ),
    "channel-shift-small": (
        "channel_shift_range={value} is in the units that pixels have before rescale, and these go "
        "from 0 to 255, so it changes next to nothing. For {value:.0%} write {pixels:.0f}."
    ),
    "channel-shift-large": (
        "channel_shift_range={value} is more than the whole range of these images, whose pixels "
        "go from {low:.3g} to {high:.3g}: most shifts leave them flat. Give it in the images' "
        "own units."
    ),
    "brightness-rounds": (
        "brightness_range cuts pixels to whole numbers, and these images' pixels go from "
        "{low:.3g} to {high:.3g}, so they come out as 0 or 1. Give images of 0 to 255 and let "
        "rescale=1/255 do the scaling, which comes after the brightness."
    ),
    "brightness-stretches": (
        "brightness_range takes pixels for 0 to 255, and some of these images go from {low:.3g} "
        "to {high:.3g}: each is stretched to 0 to 255 by itself first, and comes back with 256 "
        "levels. Bring them to 0 to 255 before."
    ),
    "brightness-scale": (
        "{name}() with scale=True, its default, first stretches the image's own darkest and "
        "brightest pixel to 0 and 255, so a brightness of 1 changes it too. For brightness alone "
        "pass scale=False, with pixels of 0 to 255."
    ),
    "not-fitted": (
        "{settings} needs statistics of your images, and there are none yet, so it does nothing. "
        "Call fit() with an array of training images first."
    ),
    "shuffled-names": (
        "class_mode=None with shuffle=True: predictions will come in shuffled order, while "
        ".filenames stays sorted, so that names and answers do not belong together. Pass "
        "shuffle=False to predict."
    ),
    "skipped-files": (
        "{count} files of {folder} were left out, since Keras does not read files of their kind: "
        "{examples}. It reads {formats}; convert the others if they are images."
    ),
    "odd-classes": (
        "These folders of {folder} count as classes although {why}: {examples}. Remove them, or "
        "name the classes with classes=[...]."
    ),
    "several-bands": (
        ".tiff files of several bands or pages are read as one ordinary image, such as "
        "{examples}. Check what comes out, or convert them."
    ),
    "not-turned": (
        "Images with a note of the camera's orientation, such as {examples}, are read as they "
        "are stored, so they lie on their side or stand on their head. Turn the files first "
        "(PIL.ImageOps.exif_transpose), for training and for use alike."
    ),
    "ignored-arguments": (
        "flow_from_dataframe takes any argument and ignores those that it does not know: {names}. "
        "Check the spelling; keep_aspect_ratio can be given to DataFrameIterator itself."
    ),
    "forked-chance": (
        "use_multiprocessing=True: the worker processes start from the same random state, so they "
        "draw the same augmentations over and over. Leave it off: the threads of this module use "
        "all cores already."
    ),
}
"""The traps by name; the words in braces are filled in where a trap is met."""

_said: set[tuple[str, str]] = set()
_lock = threading.Lock()


def warn_of(trap: str, about: str = "", **facts: object) -> None:
    """Warn of a trap, at the user's own line; the second time nothing is said.

    Parameters
    ----------
    trap : str
        A key of :data:`TRAPS`.
    about : str, optional
        What it is about, such as a folder: it is said once for each.
    **facts
        What the message is filled with.
    """
    with _lock:
        if (trap, about) in _said:
            return
        _said.add((trap, about))
    message = f"{TRAPS[trap].format(**facts)} [{trap}]"
    warnings.warn(message, KerasTrapWarning, stacklevel=_users_level())


def forget_warnings() -> None:
    """Let every trap be said once more."""
    with _lock:
        _said.clear()


def _users_level() -> int:
    """How far up from :func:`warn_of` the first line is that is neither ours nor Keras's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(("kindsight.preprocessing", "keras.")):
            break
        level, frame = level + 1, frame.f_back
    return level


# SECTION: Settings that cannot be, and those that lead into a trap with the images that are given.

# What is smaller is likely meant in other units: a shear in radians, a part of the pixels' range.
_SMALL = 1


def check_generator(generator: Any) -> None:
    """Warn of settings that do other things than they say."""
    shear = generator.shear_range
    if _is_number(shear) and 0 < abs(shear) <= _SMALL:
        warn_of("shear-degrees", value=shear, degrees=float(np.rad2deg(shear)))
    low, high = generator.zoom_range
    if low != high and min(low, high) > 0:
        warn_of("zoom-stretches", value=generator.zoom_range, most=max(low, high) / min(low, high))
    width, height = generator.width_shift_range, generator.height_shift_range
    if not _same(width, height):
        warn_of("swapped-shifts", width=width, height=height)
    for name in ("width_shift_range", "height_shift_range"):
        value = getattr(generator, name)
        if isinstance(value, int) and value == 1:
            warn_of("shift-of-one", name=name)


def is_ours(generator: object) -> bool:
    """Whether a generator is one of this room's, and not Keras's or somebody else's."""
    return hasattr(generator, "_draws_alone")


def check_shape(generator: Any, height: int, width: int) -> None:
    """Warn of images that are not square, where that matters."""
    turns = any(_asked(generator, name) for name in ("rotation_range", "shear_range"))
    if height != width and (turns or generator.zoom_range != [1, 1]):
        warn_of("off-centre", height=height, width=width)


def check_subset(generator: Any, subset: str | None) -> None:
    """Warn of a validation part that is augmented."""
    if subset == "validation" and augments(generator):
        warn_of("augmented-validation")


def check_pixels(generator: Any, low: float, high: float) -> None:
    """Warn of ranges that are in other units than the images' pixels.

    Parameters
    ----------
    generator : ImageDataGenerator
    low, high : float
        The darkest and the brightest pixel of all images.
    """
    shift = generator.channel_shift_range
    if _is_number(shift) and 0 < abs(shift) <= _SMALL and high > 2:
        warn_of("channel-shift-small", value=shift, pixels=255 * shift)
    if _is_number(shift) and high > low and abs(shift) > high - low:
        warn_of("channel-shift-large", value=shift, low=low, high=high)
    if generator.brightness_range is not None:
        if low >= 0 and 0 < high <= 1:
            warn_of("brightness-rounds", low=low, high=high)
        if low < 0 or high > 255:
            warn_of("brightness-stretches", low=low, high=high)


def pair_or_none(brightness_range: Any) -> Any:
    """Return a range of brightness if it is one; :class:`SettingsError` otherwise."""
    if brightness_range is not None and (
        not isinstance(brightness_range, tuple | list) or len(brightness_range) != 2
    ):
        raise SettingsError(
            "brightness_range must be a pair of factors such as (0.8, 1.2). "
            f"Received: {brightness_range!r}."
        )
    return brightness_range


def zoom_pair(zoom_range: Any) -> list[Any]:
    """Return the lowest and highest zoom; :class:`SettingsError` where there are none."""
    if isinstance(zoom_range, Real):
        return [1 - zoom_range, 1 + zoom_range]
    values = list(zoom_range) if hasattr(zoom_range, "__len__") else []
    if len(values) != 2 or not all(isinstance(value, Real) for value in values):
        raise SettingsError(
            "zoom_range must be a number such as 0.2, or a pair of factors such as (0.8, 1.2). "
            f"Received: {zoom_range!r}."
        )
    return values


def augments(generator: Any) -> bool:
    """Whether a generator changes images at random."""
    names = (
        "rotation_range",
        "width_shift_range",
        "height_shift_range",
        "shear_range",
        "channel_shift_range",
        "horizontal_flip",
        "vertical_flip",
    )
    asked = any(_asked(generator, name) for name in names)
    return asked or generator.brightness_range is not None or generator.zoom_range != [1, 1]


def _asked(generator: Any, name: str) -> bool:
    value: NDArray[Any] = np.asarray(getattr(generator, name))
    return bool(np.any(value != 0))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _same(first: float | Sequence[float], second: float | Sequence[float]) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))
