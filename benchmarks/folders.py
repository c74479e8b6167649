"""Images in class folders: choosing some, and laying them out for all sides alike."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Classes", "class_files", "first_of_each", "hold_out", "lay_out", "name_list"]

Classes = Mapping[str, Sequence[Path]]
"""Files by class."""

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def class_files(root: Path) -> dict[str, list[Path]]:
    """List the images of a folder of class folders, by class, sorted by name.

    Raises
    ------
    SystemExit
        If there are fewer than two class folders with images in them.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    found = {
        folder.name: sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        for folder in folders
    }
    found = {name: files for name, files in found.items() if files}
    if len(found) < 2:
        raise SystemExit(
            f"The data must be a folder of class folders. Received: {root}, in which "
            f"{len(found)} folders hold images."
        )
    return found


def first_of_each(classes: Classes, limit: int | None) -> dict[str, list[Path]]:
    """Take about `limit` images in all, equally many of each class; all of them for None."""
    share = None if limit is None else max(5, limit // len(classes))
    return {name: list(files[:share]) for name, files in classes.items()}


def hold_out(
    classes: Classes, share: float = 0.2, seed: int = 0
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Divide the images into (train, validation), the same share of each class.

    Parameters
    ----------
    classes : mapping
    share : float
        Of the validation part; at least one image of each class.
    seed : int
        Another seed divides them otherwise.
    """
    train, validation = {}, {}
    for name, files in classes.items():
        order = sorted(files)
        random.Random(f"{seed} {name}").shuffle(order)
        held = max(1, round(share * len(order)))
        validation[name], train[name] = sorted(order[:held]), sorted(order[held:])
    return train, validation


def lay_out(classes: Classes, target: Path) -> Path:
    """Copy images into class folders below `target`, and return it.

    Copies, since kindsight refuses links that lead out of the data's folder.
    """
    for name, files in classes.items():
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
    return target


def name_list(classes: Classes, count: int, file: Path) -> Path:
    """Write `count` names of images, one a line, beginning anew when they are used up."""
    names = [str(path.resolve()) for files in classes.values() for path in files]
    repeated = [names[place % len(names)] for place in range(count)]
    file.write_text("\n".join(repeated) + "\n", encoding="utf-8")
    return file
