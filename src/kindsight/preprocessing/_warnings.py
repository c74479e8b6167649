"""Warnings about pitfalls of Keras's generator, and checks of its settings.

The behaviour itself stays the same, since a drop-in has to give the same results. Each pitfall was
reported in a public tracker; the guide links to the reports. Where Keras warns too, the message
contains Keras's text, since programs match on it.
"""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError


class KerasTrapWarning(UserWarning):
    """Keras's generator behaves here in a way that is rarely intended.

    Each kind is issued once (once for each folder, if it is about the files of a folder). To
    silence all of them: ``warnings.simplefilter("ignore", KerasTrapWarning)``.
    """


TRAPS = {
    "shear-degrees": (
        "shear_range={value} is {value} degrees, which has almost no effect; tutorials assumed "
        "radians. The same number in radians is shear_range={degrees:.3g}."
    ),
    "swapped-shifts": (
        "width_shift_range moves images vertically and height_shift_range horizontally: Keras "
        "swaps them. Got width_shift_range={width!r} and height_shift_range={height!r}; swap the "
        "two values."
    ),
    "shift-of-one": (
        "{name}=1 means whole pixels below 1, so it never moves an image. Use {name}=[0, 1] for up "
        "to one pixel, or a number below 1, such as 0.2, for a fraction of the side."
    ),
    "zoom-stretches": (
        "zoom_range={value!r} zooms height and width independently, which changes the aspect ratio "
        "by up to {most:.3g} to 1. To preserve it, override get_random_transform() and set "
        "params['zy'] = params['zx']."
    ),
    "off-centre": (
        "Images of {height}x{width} are not square, and Keras rotates, shears and zooms them about "
        "row {width}/2 and column {height}/2 instead of the centre. Use a square target_size."
    ),
    "augmented-validation": (
        "subset='validation' of a generator with augmentation gives augmented validation images, "
        "so the validation accuracy is not that of the original images. Use a second "
        "ImageDataGenerator with the same validation_split and rescale and nothing else for "
        "subset='validation'."
    ),
    "weights-not-split": (
        "subset='training' takes the last images and labels, but the first sample weights, so the "
        "weights belong to other images. Split the arrays yourself and omit subset."
    ),
    "sorted-split": (
        "validation_split takes the first rows of the table without shuffling, so {missing} of "
        "{total} classes are in one subset only ({names}). Shuffle the rows first: "
        "dataframe.sample(frac=1, random_state=0)."
    ),
    "channel-shift-small": (
        "channel_shift_range={value} applies to pixels of 0 to 255, before rescale, so it has "
        "almost no effect. For {value:.0%} use {pixels:.0f}."
    ),
    "channel-shift-large": (
        "channel_shift_range={value} exceeds the whole range of these pixels ({low:.3g} to "
        "{high:.3g}), so most shifts give a uniform image. Use the units of the pixels."
    ),
    "brightness-rounds": (
        "brightness_range truncates pixels to integers; these pixels go from {low:.3g} to "
        "{high:.3g}, so they become 0 or 1. Use pixels of 0 to 255 and rescale=1/255, which is "
        "applied after the brightness."
    ),
    "brightness-stretches": (
        "brightness_range expects pixels of 0 to 255, and some of these images go from {low:.3g} "
        "to {high:.3g}: each one is stretched to 0 to 255 first, and has 256 levels afterwards. "
        "Scale them to 0 to 255 before."
    ),
    "brightness-scale": (
        "{name}() with scale=True, the default, stretches the image's own range to 0 to 255 first, "
        "so even a brightness of 1 changes it. Use scale=False with pixels of 0 to 255."
    ),
    "not-fitted": (
        "This ImageDataGenerator specifies `{setting}`, but it hasn't been fit on any training "
        "data, so the setting has no effect. Call `.fit()` with an array of training images first."
    ),
    "shuffled-names": (
        "class_mode=None with shuffle=True: predictions come in shuffled order, but .filenames is "
        "sorted, so the two do not match. Use shuffle=False for predictions."
    ),
    "skipped-files": (
        "{count} files of {folder} are skipped, since Keras does not read their format: "
        "{examples}. It reads {formats}; convert the others if they are images."
    ),
    "links-not-followed": (
        "{count} linked subfolders of {folder} are not entered: {examples}. Use follow_links=True, "
        "unless a link leads to a folder that contains it."
    ),
    "odd-classes": (
        "These subfolders of {folder} count as classes, although {why}: {examples}. Remove them, "
        "or select the classes with classes=[...]."
    ),
    "several-bands": (
        'Using ".tiff" files with multiple bands will cause distortion: Keras reads each file as '
        "one ordinary image, such as {examples}. Check the result, or convert the files."
    ),
    "orientation-ignored": (
        "Keras ignores the orientation in the metadata of images such as {examples}, so they are "
        "rotated or flipped. Apply it to the files (PIL.ImageOps.exif_transpose), both for "
        "training and for prediction."
    ),
    "ignored-arguments": (
        "flow_from_dataframe ignores unknown arguments: {names}. Check the spelling; "
        "keep_aspect_ratio is an argument of DataFrameIterator."
    ),
    "forked-random-state": (
        "use_multiprocessing=True starts all worker processes with the same random state, so they "
        "repeat the same augmentations. Turn it off: this module already uses all cores."
    ),
}
"""Name of each trap to its message; the fields in braces are filled in."""

_issued: set[tuple[str, str]] = set()
_unfitted: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def warn_trap(trap: str, about: str = "", **values: object) -> None:
    """Issue a warning of :data:`TRAPS` once for each `about`, attributed to the user's own line."""
    with _lock:
        if (trap, about) in _issued:
            return
        _issued.add((trap, about))
    _warn(trap, **values)


def warn_unfitted(generator: Any) -> None:
    """Warn once of each setting of a generator whose statistics are not computed yet."""
    statistics = {
        "featurewise_center": generator.mean,
        "featurewise_std_normalization": generator.std,
        "zca_whitening": generator.zca_whitening_matrix,
    }
    for setting, value in statistics.items():
        if value is None and getattr(generator, setting):
            with _lock:
                issued = _unfitted.setdefault(generator, set())
                if setting in issued:
                    continue
                issued.add(setting)
            _warn("not-fitted", setting=setting)


def _warn(trap: str, **values: object) -> None:
    warn_user(f"{TRAPS[trap].format(**values)} [{trap}]", KerasTrapWarning)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the line of the first caller outside this package and Keras."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith(("kindsight.preprocessing", "keras.")):
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def reset_warnings() -> None:
    """Let every trap be issued again."""
    with _lock:
        _issued.clear()
        _unfitted.clear()


# Smaller values are probably in other units: radians, or a fraction of the range of pixels.
_SMALL = 1


def check_generator(generator: Any) -> None:
    """Warn of settings that do something other than their name says."""
    shear = generator.shear_range
    if _is_number(shear) and 0 < abs(shear) <= _SMALL:
        warn_trap("shear-degrees", value=shear, degrees=float(np.rad2deg(shear)))
    low, high = generator.zoom_range
    if low != high and min(low, high) > 0:
        most = max(low, high) / min(low, high)
        warn_trap("zoom-stretches", value=generator.zoom_range, most=most)
    width, height = generator.width_shift_range, generator.height_shift_range
    if not np.array_equal(np.asarray(width), np.asarray(height)):
        warn_trap("swapped-shifts", width=width, height=height)
    for name in ("width_shift_range", "height_shift_range"):
        value = getattr(generator, name)
        if isinstance(value, int) and value == 1:
            warn_trap("shift-of-one", name=name)


def is_ours(generator: object) -> bool:
    """Return whether a generator is of this package, not Keras's or another one."""
    return hasattr(generator, "_draws_without_foreign_code")


def check_shape(generator: Any, height: int, width: int) -> None:
    """Warn if images are not square and the generator rotates, shears or zooms."""
    rotates = any(_is_set(generator, name) for name in ("rotation_range", "shear_range"))
    if height != width and (rotates or generator.zoom_range != [1, 1]):
        warn_trap("off-centre", height=height, width=width)


def check_subset(generator: Any, subset: str | None) -> None:
    """Warn if the validation subset is augmented."""
    if subset == "validation" and augments(generator):
        warn_trap("augmented-validation")


def check_pixels(generator: Any, low: float, high: float) -> None:
    """Warn of ranges that do not fit pixels from `low` to `high`."""
    shift = generator.channel_shift_range
    if _is_number(shift) and 0 < abs(shift) <= _SMALL and high > 2:
        warn_trap("channel-shift-small", value=shift, pixels=255 * shift)
    if _is_number(shift) and high > low and abs(shift) > high - low:
        warn_trap("channel-shift-large", value=shift, low=low, high=high)
    if generator.brightness_range is not None:
        if low >= 0 and 0 < high <= 1:
            warn_trap("brightness-rounds", low=low, high=high)
        if low < 0 or high > 255:
            warn_trap("brightness-stretches", low=low, high=high)


def brightness_pair(brightness_range: Any) -> Sequence[float] | None:
    """Return a valid brightness range or None; raise :class:`SettingsError` for anything else."""
    if brightness_range is None:
        return None
    if not isinstance(brightness_range, tuple | list) or len(brightness_range) != 2:
        # Keras's text has the one backtick.
        raise SettingsError(
            "`brightness_range should be tuple or list of two floats, such as (0.8, 1.2). "
            f"Received: {brightness_range!r}"
        )
    return brightness_range


def zoom_pair(zoom_range: Any) -> list[Any]:
    """Return the lowest and the highest zoom; raise :class:`SettingsError` for invalid ones."""
    if isinstance(zoom_range, Real):
        return [1 - zoom_range, 1 + zoom_range]
    values = list(zoom_range) if hasattr(zoom_range, "__len__") else []
    if len(values) != 2 or not all(isinstance(value, Real) for value in values):
        raise SettingsError(
            "`zoom_range` should be a float or a tuple or list of two floats, such as 0.2 or "
            f"(0.8, 1.2). Received: {zoom_range!r}"
        )
    return values


def augments(generator: Any) -> bool:
    """Return whether a generator changes images at random."""
    names = (
        "rotation_range", "width_shift_range", "height_shift_range", "shear_range",
        "channel_shift_range", "horizontal_flip", "vertical_flip",
    )  # fmt: skip
    changes = any(_is_set(generator, name) for name in names)
    return changes or generator.brightness_range is not None or generator.zoom_range != [1, 1]


def _is_set(generator: Any, name: str) -> bool:
    value: NDArray[Any] = np.asarray(getattr(generator, name))
    return bool(np.any(value != 0))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
