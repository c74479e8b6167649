"""split.csv: which image was in which part, written by a training and read back by another."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from kindsight.dataset.loaders.csv_table import CsvTable
from kindsight.dataset.loaders.tables import find_columns
from kindsight.dataset.loaders.values import EXCLUDED, read_splits
from kindsight.dataset.names import images, shown, shown_list
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.errors import DatasetError
from kindsight.files import write_csv

__all__ = ["SplitFile", "read_split", "write_split"]

_DIGEST = "digest"


def write_split(dataset: ImageDataset, path: str | os.PathLike[str]) -> None:
    """Write which part each image is in: path, label, split, group (where there are any), digest.

    An image in no part is written as ``excluded``, and stays out when the file is read back. In
    the images' folder it is a table that can be trained on.

    Parameters
    ----------
    dataset : ImageDataset
        Divided.
    path : str or Path
        The file; an earlier one is replaced.
    """
    columns = {
        "path": dataset.path,
        "label": tuple(label or "" for label in dataset.label),
        "split": tuple(split or EXCLUDED for split in dataset.split),
        "group": tuple(group or "" for group in dataset.group),
        _DIGEST: tuple(digest or "" for digest in dataset.digest),
    }
    if not any(columns["group"]):
        del columns["group"]
    write_csv(path, tuple(columns), zip(*columns.values(), strict=True))


@dataclass(frozen=True)
class SplitFile:
    """What a table says of parts.

    Parameters
    ----------
    where : str
        The file, for messages.
    by_path, by_digest : dict of str to str
        ``"train"``, ``"validation"``, ``"test"`` or ``"excluded"`` for a path, and for a digest
        all of whose rows say the same.
    """

    where: str
    by_path: dict[str, str]
    by_digest: dict[str, str]

    def apply(self, dataset: ImageDataset) -> ImageDataset:
        """Put the images into the parts that the file states.

        An image is known by its path, or by its content where its path is not in the file.
        Images that are not in it keep the part they have. Those that it excludes are left in no
        part.

        Parameters
        ----------
        dataset : ImageDataset
            Digests are used where there are any.

        Raises
        ------
        DatasetError
            If no image of the data is in the file.
        """
        said = [
            self.by_path.get(path) or self.by_digest.get(digest or "")
            for path, digest in zip(dataset.path, dataset.digest, strict=True)
        ]
        found = sum(part is not None for part in said)
        if not found:
            raise DatasetError(
                "A file of splits must name images of the data. Received: "
                f"{self.where}, in which none of {images(len(dataset))} is; the first is "
                f"{shown(dataset.path[0])}."
            )
        split = [
            (None if part == EXCLUDED else part) if part is not None else given or "train"
            for part, given in zip(said, dataset.split, strict=True)
        ]
        divided = dataset.with_columns(split=split)
        notes = [f"Divided as {self.where} says."]
        if missing := len(dataset) - found:
            first = shown(dataset.path[said.index(None)])
            notes.append(
                f"Not in {self.where}, and so in the training part where the data do not say "
                f"otherwise: {images(missing)}, the first of them {first}."
            )
        if excluded := sum(part == EXCLUDED for part in said):
            notes.append(f"Excluded by {self.where}: {images(excluded)}.")
        return divided.with_notes(*notes)


def read_split(path: str | os.PathLike[str]) -> SplitFile:
    """Read a file of splits: :func:`write_split`'s, or any table with a path and a split column.

    Parameters
    ----------
    path : str or Path
        A CSV. A column ``digest`` is used where there is one; other columns are passed over.

    Raises
    ------
    DatasetError
        Naming the lines that have no place in it.
    """
    table = CsvTable(os.fspath(path))
    found = find_columns(table.header, {}, table.where)
    if missing := [kind for kind in ("path", "split") if kind not in found]:
        raise DatasetError(
            f"A file of splits must have the columns path and split. Received: {table.where}, "
            f"without {' and '.join(missing)}; it has {shown_list(tuple(table.header))}."
        )
    places = [found["path"], found["split"]]
    if _DIGEST in table.header:
        places.append(table.header.index(_DIGEST))
    lines, cells = table.read(places)
    parts = read_splits(cells[1], lines, table.unit, table.where, named=True) or []
    allowed = (*SPLITS, EXCLUDED)
    digests = cells[2] if len(cells) > 2 else [""] * len(lines)
    by_path = {path: part for path, part in zip(cells[0], parts, strict=True) if part in allowed}
    counted = Counter(set(zip(digests, parts, strict=True)))
    several = {digest for digest, n in Counter(d for d, _ in counted).items() if n > 1}
    by_digest = {
        digest: part
        for digest, part in zip(digests, parts, strict=True)
        if digest and digest not in several and part in allowed
    }
    return SplitFile(table.where, by_path, by_digest)
