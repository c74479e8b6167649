"""What has to be said of data that do not say it themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kindsight.dataset.names import shown_list
from kindsight.errors import SettingsError

__all__ = [
    "COLUMNS",
    "DataOptions",
    "NamePattern",
]

# SECTION: A pattern on names: a regular expression, and the group of it that is meant.

LONGEST = 255
"""Characters of a name, or of a path, that are looked at: a pattern can be slow in long texts."""


class NamePattern:
    """A regular expression of which one group is what is looked for.

    Parameters
    ----------
    text : str
        The expression. With a ``/`` in it, it is looked for in the whole path, otherwise in the
        last part of it.
    group : str
        The name of the group that is meant; the first, if no group has that name.

    Raises
    ------
    SettingsError
        If it is no regular expression, or has no group.
    """

    def __init__(self, text: str, group: str) -> None:
        if fault := self.fault(text):
            raise SettingsError(f"A pattern on names {fault}")
        self.text = text
        self._pattern = re.compile(text)
        self._group: str | int = group if group in self._pattern.groupindex else 1
        self._whole = "/" in text

    @staticmethod
    def fault(text: object) -> str | None:
        """Say what is wrong with a pattern; None where nothing is."""
        rule = r"must be a regular expression with a group, such as '^(.+?)_\d+'."
        if not isinstance(text, str):
            return f"{rule} Received: {text!r}."
        try:
            groups = re.compile(text).groups
        except (re.error, RecursionError, OverflowError) as error:
            return f"{rule} Received: {text!r} ({error})."
        return None if groups else f"{rule} Received: {text!r}, without parentheses."

    def find(self, path: str) -> str | None:
        """Return what the pattern finds in a path; None where it finds nothing, or no text."""
        name = path if self._whole else path.rpartition("/")[2]
        match = self._pattern.search(name[:LONGEST])
        found = match[self._group] if match else None
        return (found.strip() or None) if found else None


COLUMNS = ("path", "label", "split", "group")
"""The columns of a table that mean something."""

_SHAPE = re.compile(r"(\d{1,5})x(\d{1,5})(?:x(\d{1,5}))?")


@dataclass(frozen=True)
class DataOptions:
    r"""How data are to be read, where their usual form does not say it.

    Parameters
    ----------
    label_from : str, optional
        A regular expression that finds an image's label in its name: the group called ``label``,
        or else the first, of the first match, as in ``^(.+?)_\d+``. It is looked for in the file's
        name; with a ``/`` in it, in the path below the data's folder.
    group_from : str, optional
        The same for the image's group (a patient, a scene): the group called ``group``, or else
        the first.
    columns : mapping of str to str, optional
        ``path``, ``label``, ``split`` or ``group`` -> the name that this column has in a table.
    label_names : sequence of str, optional
        What the labels 0, 1, 2, ... are called, where they are numbers.
    pixel_shape : str, optional
        ``HEIGHTxWIDTH`` or ``HEIGHTxWIDTHx3`` of images that are given as rows of pixels, or
        ``3xHEIGHTxWIDTH`` where all red pixels come first; otherwise they are taken to be square.
    root : str, optional
        The folder at which a table's paths start; the table's own folder if omitted.
    """

    label_from: str | None = None
    group_from: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Sequence[str] = ()
    pixel_shape: str | None = None
    root: str | None = None

    def faults(self) -> list[str]:
        """Return a sentence for each option that cannot be."""
        found = []
        for name in ("label_from", "group_from"):
            value = getattr(self, name)
            if value is not None and (fault := NamePattern.fault(value)):
                found.append(f"{name} {fault}")
        if not isinstance(self.columns, Mapping) or not all(
            name in COLUMNS and isinstance(value, str) and value
            for name, value in self.columns.items()
        ):
            found.append(
                f"columns must say what {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]} is called in "
                f"the table, as label=species does. Received: {self.columns!r}."
            )
        names = self.label_names
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) and name.strip() for name in names)
            or len({name.strip() for name in names}) != len(names)
        ):
            found.append(
                "label_names must be different names, for the labels 0, 1, 2 and so on. "
                f"Received: {names!r}."
            )
        if self.pixel_shape is not None and self.shape is None:
            found.append(
                "pixel_shape must be HEIGHTxWIDTH, such as 28x28, or HEIGHTxWIDTHx3 for colours. "
                f"Received: {self.pixel_shape!r}."
            )
        if self.root is not None and (
            not isinstance(self.root, str) or not self.root or "\0" in self.root
        ):
            found.append(f"root must be a folder. Received: {self.root!r}.")
        return found

    def check(self) -> None:
        """Raise SettingsError, naming every option that cannot be."""
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def refuse_for_files(self, names: Sequence[str]) -> None:
        """Refuse options for tables and arrays where there are only images in files of their own.

        Raises
        ------
        SettingsError
            If one of them is given; an option that does nothing is a mistake.
        """
        columns = ["--column"] if self.columns else []
        others = ("label_names", "pixel_shape", "root")
        given = columns + [f"--{n.replace('_', '-')}" for n in others if getattr(self, n)]
        if given:
            raise SettingsError(
                f"{', '.join(given)} must be given with a table or arrays alone. Received: "
                f"{shown_list(tuple(names))}. Leave {'it' if len(given) == 1 else 'them'} out."
            )

    @property
    def shape(self) -> tuple[int, ...] | None:
        """`pixel_shape` as numbers; None where it is not given, or none."""
        match = _SHAPE.fullmatch(self.pixel_shape) if isinstance(self.pixel_shape, str) else None
        if match is None:
            return None
        sides = tuple(int(side) for side in match.groups() if side is not None)
        if 0 in sides or (len(sides) == 3 and sides[2] not in (1, 3) and sides[0] not in (1, 3)):
            return None
        return sides
