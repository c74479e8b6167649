"""List, limit, split and copy images in class folders."""

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
    """Return the images of a folder of class folders by class, sorted by name.

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
            f"The data must be a folder of two or more class folders; {root} has "
            f"{len(found)} folders with images."
        )
    return found


def first_of_each(classes: Classes, limit: int | None) -> dict[str, list[Path]]:
    """Return about `limit` images, equally many per class; all for None."""
    count = None if limit is None else max(5, limit // len(classes))
    return {name: list(files[:count]) for name, files in classes.items()}


def hold_out(
    classes: Classes, fraction: float = 0.2, seed: int = 0
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Return a stratified random split (train, validation).

    `fraction` of each class is for validation, at least one image.
    """
    train, validation = {}, {}
    for name, files in classes.items():
        order = sorted(files)
        random.Random(f"{seed} {name}").shuffle(order)
        count = max(1, round(fraction * len(order)))
        validation[name], train[name] = sorted(order[:count]), sorted(order[count:])
    return train, validation


def lay_out(classes: Classes, target: Path) -> Path:
    """Copy images into class folders below `target`, and return it.

    Copies, because kindsight rejects links that lead out of the data folder.
    """
    for name, files in classes.items():
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
    return target


def name_list(classes: Classes, count: int, file: Path) -> Path:
    """Write `count` paths of images, one per line, repeating them if there are fewer."""
    names = [str(path.resolve()) for files in classes.values() for path in files]
    repeated = [names[row % len(names)] for row in range(count)]
    file.write_text("\n".join(repeated) + "\n", encoding="utf-8")
    return file
