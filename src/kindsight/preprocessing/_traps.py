"""What of the old generator's behaviour surprises people: said once, with the cure.

The behaviour itself stays as it is, since the point of a drop-in is to give the same answers.
Each trap was reported in a public tracker at least once; the guide says where.
"""

from __future__ import annotations

import sys
import threading
import warnings

__all__ = ["TRAPS", "KerasTrapWarning", "forget_warnings", "warn_of"]


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
        "width_shift_range moves pictures up and down and height_shift_range left and right: "
        "Keras has them the wrong way round. Received width_shift_range={width!r} and "
        "height_shift_range={height!r}: swap the two values."
    ),
    "shift-of-one": (
        "{name}=1 is a whole number of pixels below 1, so it never moves anything. For up to one "
        "pixel write {name}=[0, 1]; for a fraction of the side, a number below 1 such as 0.2."
    ),
    "zoom-stretches": (
        "zoom_range={value!r} draws the zoom of height and width apart, so pictures are stretched "
        "as well, up to {most:.3g} to 1. To keep proportions, let a subclass's "
        "get_random_transform() set both to one: params['zy'] = params['zx']."
    ),
    "off-centre": (
        "Pictures of {height}x{width} are not square, and Keras then rotates, shears and zooms "
        "about the wrong point: row {width}/2 and column {height}/2. Use a square target_size."
    ),
    "augmented-validation": (
        "subset='validation' of a generator that augments gives augmented validation pictures, so "
        "the validation score is not that of the pictures themselves. Make a second "
        "ImageDataGenerator with the same validation_split and rescale and nothing else, and take "
        "subset='validation' from it."
    ),
    "weights-not-split": (
        "subset='training' takes the last pictures and labels but the first of the weights, so the "
        "weights belong to other pictures. Cut the arrays yourself and leave subset out."
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
        "channel_shift_range={value} is more than the whole range of these pictures, whose pixels "
        "go from {low:.3g} to {high:.3g}: most shifts leave them flat. Give it in the pictures' "
        "own units."
    ),
    "brightness-rounds": (
        "brightness_range cuts pixels to whole numbers, and these pictures' pixels go from "
        "{low:.3g} to {high:.3g}, so they come out as 0 or 1. Give pictures of 0 to 255 and let "
        "rescale=1/255 do the scaling, which comes after the brightness."
    ),
    "brightness-stretches": (
        "brightness_range takes pixels for 0 to 255, and some of these pictures go from {low:.3g} "
        "to {high:.3g}: each is stretched to 0 to 255 by itself first, and comes back with 256 "
        "levels. Bring them to 0 to 255 before."
    ),
    "brightness-scale": (
        "{name}() with scale=True, its default, first stretches the picture's own darkest and "
        "brightest pixel to 0 and 255, so a brightness of 1 changes it too. For brightness alone "
        "pass scale=False, with pixels of 0 to 255."
    ),
    "not-fitted": (
        "{settings} needs statistics of your pictures, and there are none yet, so it does nothing. "
        "Call fit() with an array of training pictures first."
    ),
    "shuffled-names": (
        "class_mode=None with shuffle=True: predictions will come in shuffled order, while "
        ".filenames stays sorted, so that names and answers do not belong together. Pass "
        "shuffle=False to predict."
    ),
    "skipped-files": (
        "{count} files of {folder} were left out, since Keras does not read files of their kind: "
        "{examples}. It reads {formats}; convert the others if they are pictures."
    ),
    "odd-classes": (
        "These folders of {folder} count as classes although {why}: {examples}. Remove them, or "
        "name the classes with classes=[...]."
    ),
    "several-bands": (
        ".tiff files of several bands or pages are read as one ordinary picture, such as "
        "{examples}. Check what comes out, or convert them."
    ),
    "not-turned": (
        "Pictures with a note of the camera's orientation, such as {examples}, are read as they "
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
