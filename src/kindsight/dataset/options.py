"""Options that describe data whose structure is not obvious."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kindsight.dataset.names import quoted, quoted_list
from kindsight.dataset.search_names import SearchTimeoutError, search_names
from kindsight.dataset.several_labels import MULTI_LABEL
from kindsight.encoding import is_text_encoding
from kindsight.errors import KindsightError, SettingsError
from kindsight.images.convert import as_value_range

__all__ = ["COLUMNS", "DataOptions", "NamePattern"]

COLUMNS = ("path", "label", "split", "group")
"""The kinds of columns of a table."""

LONGEST = 255
"""Maximum number of characters of a name or path that are searched."""

_SHAPE = re.compile(r"(\d{1,5})x(\d{1,5})(?:x(\d{1,5}))?")


class NamePattern:
    """A regular expression that extracts a label or group from file names.

    Parameters
    ----------
    text : str
        The expression. It is searched in the file's name, or in the whole path if it contains
        ``/``.
    group : str
        Name of the group to extract; the first group if none has that name.

    Raises
    ------
    SettingsError
        If `text` is not a regular expression, or has no group.
    """

    def __init__(self, text: str, group: str) -> None:
        if fault := self.fault(text):
            raise SettingsError(f"A pattern on names {fault}")
        self.text = text
        self._group: str | int = group if group in re.compile(text).groupindex else 1
        self._whole = "/" in text

    @staticmethod
    def fault(text: object) -> str | None:
        """Return what is wrong with a pattern; None if it is valid."""
        rule = r"must be a regular expression with a group, such as '^(.+?)_\d+'"
        if not isinstance(text, str):
            return f"{rule}; got {text!r}."
        try:
            groups = re.compile(text).groups
        except (re.error, RecursionError, OverflowError) as error:
            return f"{rule}; got {text!r} ({error})."
        return None if groups else f"{rule}; got {text!r}, without parentheses."

    def find(self, paths: Sequence[str]) -> list[str | None]:
        """Return the text extracted from each path; None if there is no match or no text.

        Raises
        ------
        SettingsError
            If the search takes much longer than that of usual patterns.
        KindsightError
            If the process that searches cannot be started.
        """
        names = [path if self._whole else path.rpartition("/")[2] for path in paths]
        names = [name[:LONGEST] for name in names]
        try:
            found = search_names(self.text, self._group, names)
        except SearchTimeoutError as error:
            raise SettingsError(
                f"The search for the pattern {self.text!r} was stopped after {error.seconds:.0f} "
                f"s, at the name {quoted(names[error.index])}. Avoid nested repeats, such as "
                "(a+)+, and several .* in one pattern."
            ) from None
        except OSError as error:
            raise KindsightError(
                f"Could not search for the pattern {self.text!r} in a separate process: {error}."
            ) from error
        return [(text.strip() or None) if text else None for text in found]


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _is_switch(value: object) -> bool:
    return value is None or isinstance(value, bool)


@dataclass(frozen=True)
class DataOptions:
    r"""Options that describe data whose structure is not obvious.

    Parameters
    ----------
    label_from : str, optional
        A regular expression that extracts the label from the file's name, or from the path below
        the data's folder if it contains ``/``: the group named ``label``, or else the first, of
        the first match, as in ``^(.+?)_\d+``.
    group_from : str, optional
        The same for the group (a patient, a scene): the group named ``group``, or else the first.
    columns : mapping of str to str, optional
        ``path``, ``label``, ``split`` or ``group`` -> the name of that column in a table; for
        one-hot labels, the names of their columns separated by commas.
    label_names : sequence of str, optional
        Class names of the labels 0, 1, 2, ...
    label_map : str, optional
        A table with the columns ``label`` and ``class``: labels of the data and their new names.
    pixel_shape : str, optional
        ``HEIGHTxWIDTH`` or ``HEIGHTxWIDTHx3`` of images given as rows of pixels, or
        ``3xHEIGHTxWIDTH`` if all red pixels come first; square by default.
    root : str, optional
        The folder that a table's paths are relative to; the table's folder by default.
    follow_links : bool
        False: ignore links that leave the given folders.
    multi_label : {"first", "skip", "combine"}, optional
        Handling of an image with several labels: the first one is used, the image is left out, or
        the combination is a class. Such images are an error by default.
    keep_na_labels : bool
        Whether texts such as ``NA`` and ``None`` are labels; they are missing labels by default.
    encoding : str, optional
        Encoding of text tables and lists of names; by default UTF-8, or UTF-16 with a byte order
        mark.
    value_range : (low, high), optional
        The values that become 0 and 255 in arrays that are not uint8; inferred from them by
        default.
    """

    label_from: str | None = None
    group_from: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Sequence[str] = ()
    label_map: str | None = None
    pixel_shape: str | None = None
    root: str | None = None
    follow_links: bool = True
    multi_label: str | None = None
    keep_na_labels: bool = False
    encoding: str | None = None
    value_range: tuple[float, float] | None = None

    def faults(self) -> list[str]:
        """Return one sentence for each invalid option."""
        found = []
        for name in ("label_from", "group_from"):
            value = getattr(self, name)
            if value is not None and (fault := NamePattern.fault(value)):
                found.append(f"`{name}` {fault}")
        if not isinstance(self.columns, Mapping) or not all(
            name in COLUMNS and isinstance(value, str) and value
            for name, value in self.columns.items()
        ):
            found.append(
                f"`columns` must map {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]} to names of "
                f"columns, such as label=species; got {self.columns!r}."
            )
        names = self.label_names
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) and name.strip() for name in names)
            or len({name.strip() for name in names}) != len(names)
        ):
            found.append(
                "`label_names` must be different names, for the labels 0, 1, 2 and so on; got "
                f"{names!r}."
            )
        if self.pixel_shape is not None and self.shape is None:
            found.append(
                "`pixel_shape` must be HEIGHTxWIDTH, such as 28x28, or HEIGHTxWIDTHx3 for RGB; got "
                f"{self.pixel_shape!r}."
            )
        return found + self._other_faults()

    def _other_faults(self) -> list[str]:
        found = []
        if self.value_range is not None:
            try:
                as_value_range(self.value_range)
            except SettingsError as error:
                found.append(str(error).replace("`", ""))
        for name, what in (("label_map", "the path of a table"), ("root", "a folder")):
            value = getattr(self, name)
            if value is not None and not _is_path(value):
                found.append(f"`{name}` must be {what}; got {value!r}.")
        if self.follow_links not in (True, False):
            found.append(f"`follow_links` must be True or False; got {self.follow_links!r}.")
        if self.multi_label is not None and self.multi_label not in MULTI_LABEL:
            found.append(
                f"`multi_label` must be one of {', '.join(MULTI_LABEL)}; got {self.multi_label!r}."
            )
        if not _is_switch(self.keep_na_labels):
            found.append(f"`keep_na_labels` must be true or false; got {self.keep_na_labels!r}.")
        if self.encoding is not None and not (
            isinstance(self.encoding, str) and is_text_encoding(self.encoding)
        ):
            found.append(
                "`encoding` must be the name of a text encoding, such as utf-8, cp1252 or gb18030; "
                f"got {self.encoding!r}."
            )
        return found

    def check(self) -> None:
        """Raise SettingsError naming every invalid option."""
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def check_unused(self, names: Sequence[str]) -> None:
        """Raise SettingsError if options for tables or arrays are given with image files."""
        of_tables = (
            *("columns", "label_names", "pixel_shape", "root"),
            *("multi_label", "keep_na_labels", "encoding"),
        )
        given = [f"`{name}`" for name in of_tables if getattr(self, name)]
        if given:
            raise SettingsError(
                f"{', '.join(given)} can only be used with a table or arrays; got "
                f"{quoted_list(tuple(names))}. Leave {'it' if len(given) == 1 else 'them'} out."
            )

    @property
    def shape(self) -> tuple[int, ...] | None:
        """`pixel_shape` as numbers; None if it is not given or invalid."""
        match = _SHAPE.fullmatch(self.pixel_shape) if isinstance(self.pixel_shape, str) else None
        if match is None:
            return None
        sides = tuple(int(side) for side in match.groups() if side is not None)
        if 0 in sides or (len(sides) == 3 and sides[2] not in (1, 3) and sides[0] not in (1, 3)):
            return None
        return sides
