"""Which column of a table is what: by the usual spellings, or as it is said."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence

from kindsight.catalog.names import shown, shown_list
from kindsight.errors import CatalogError

__all__ = ["find_columns", "pixel_columns"]

_USUAL = {
    "path": (
        *("path", "paths", "filepath", "filepaths", "file", "files", "filename", "filenames"),
        *("imagepath", "imagefile", "imagefilename", "imagename", "imgpath", "imgfile", "imgname"),
        *("image", "images", "img", "picturepath", "picture", "pictures", "photopath", "photo"),
        *("relativepath", "relpath", "fullpath", "imageid", "imgid", "id"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "category", "target", "labelname", "classname"),
        *("categoryname", "classlabel", "labelid", "classid", "categoryid", "y"),
        *("species", "breed", "diagnosis", "dx", "emotion"),
    ),
    "split": ("split", "subset", "set", "part", "partition", "usage"),
    "group": (
        *("group", "groups", "groupid", "patient", "patientid", "person", "personid", "subject"),
        *("subjectid", "individual", "individualid", "scene", "sceneid", "lesionid"),
    ),
}
"""Names of columns, without case, blanks and marks, what is preferred coming first."""

_PIXEL = re.compile(r"(pixels?|pix|px|p|x|v|f)?[ _.-]?(\d{1,9})", re.I)
_PIXEL_PLACE = re.compile(r"(\d{1,5})x(\d{1,5})", re.I)
_FEWEST_PIXELS = 4


def find_columns(header: Sequence[str], given: Mapping[str, str], where: str) -> dict[str, int]:
    """Find the columns of paths, labels, splits and groups.

    Parameters
    ----------
    header : sequence of str
        The columns' names.
    given : mapping of str to str
        What a kind of column is called; it need not be among the usual names.
    where : str
        The table, for messages.

    Returns
    -------
    dict of str to int
        Kind -> place in the header, of those that are there.

    Raises
    ------
    CatalogError
        If a column that is given is not there, or two columns have its name.
    """
    found: dict[str, int] = {}
    for kind, name in given.items():
        found[kind] = _place(header, name, where)
    plain = [re.sub(r"[\W_]+", "", name).casefold() for name in header]
    for kind, names in _USUAL.items():
        if kind in given:
            continue
        free = {plain[i]: i for i in reversed(range(len(plain))) if i not in found.values()}
        usual = next((name for name in names if name in free), None)
        if usual is not None:
            found[kind] = _place(header, header[free[usual]], where)
    return found


def _place(header: Sequence[str], name: str, where: str) -> int:
    exact = [i for i, column in enumerate(header) if column == name]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise CatalogError(
            f"The columns of a table must have different names. Received: {len(exact)} columns "
            f"called {shown(name)} in {where}."
        )
    near = difflib.get_close_matches(name, header, 1)
    hint = f"Is {shown(near[0])} meant?" if near else f"There are: {shown_list(tuple(header))}."
    raise CatalogError(f"{where} must have the column {shown(name)}. Received: none. {hint}")


def pixel_columns(header: Sequence[str], taken: Sequence[int], where: str) -> list[int] | None:
    """Find the columns of pixels, in the order of the numbers in their names.

    Parameters
    ----------
    header : sequence of str
        The columns' names: ``pixel1``, ``pixel2``, ...; ``0``, ``1``, ...; ``1x1``, ``1x2``, ...
    taken : sequence of int
        Places of columns that are something else.
    where : str
        The table, for messages.

    Returns
    -------
    list of int or None
        Places in the header; None where there are no such columns.

    Raises
    ------
    CatalogError
        If one is missing, or there twice.
    """
    found: dict[str, list[tuple[tuple[int, ...], int]]] = {}
    for place, name in enumerate(header):
        if place in taken:
            continue
        text = name.strip()
        if match := _PIXEL_PLACE.fullmatch(text):
            found.setdefault("place", []).append(((int(match[1]), int(match[2])), place))
        elif match := _PIXEL.fullmatch(text):
            found.setdefault((match[1] or "").casefold(), []).append(((int(match[2]),), place))
    numbered = max(found.values(), key=len, default=[])
    if len(numbered) < _FEWEST_PIXELS:
        return None
    numbered.sort()
    first = numbered[0][0]
    for (one, _), (following, place) in itertools.pairwise(numbered):
        if following not in _next(one, first):
            raise CatalogError(
                "The columns of pixels must be numbered without gaps and repetitions. Received: "
                f"{shown(header[place])} as the one that follows number "
                f"{'x'.join(map(str, one))} in {where}."
            )
    return [place for _, place in numbered]


def _next(number: tuple[int, ...], first: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the numbers that may follow; of (row, column), that of the next row as well."""
    following = [(*number[:-1], number[-1] + 1)]
    return following if len(number) == 1 else [*following, (number[0] + 1, first[1])]
