"""split.csv: the split of each image, written by one training and read back by another."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from kindsight.dataset.columns.codes import CodeColumn
from kindsight.dataset.columns.convert import count_values
from kindsight.dataset.loaders.table_files import CsvTable
from kindsight.dataset.loaders.tables import find_columns
from kindsight.dataset.loaders.values import EXCLUDED, read_splits
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.dataset.table import SPLITS, ImageDataset
from kindsight.encoding import unescape_name
from kindsight.errors import DatasetError
from kindsight.files import write_csv

__all__ = ["SplitFile", "read_split", "write_split"]

_DIGEST = "digest"


def write_split(dataset: ImageDataset, path: str | os.PathLike[str]) -> None:
    """Write path, label, split, group (if there are groups) and digest of each image to a CSV file.

    Images without a split are written as ``excluded``, and stay excluded when the file is read
    back. Placed in the images' folder, the file is a table to train on. An existing file is
    replaced.
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
    """The splits in a table.

    Parameters
    ----------
    where : str
        The file's name, for messages.
    by_path, by_digest : dict of str to str
        Path or digest -> ``"train"``, ``"validation"``, ``"test"`` or ``"excluded"``. Digests whose
        rows disagree are left out.
    """

    where: str
    by_path: dict[str, str]
    by_digest: dict[str, str]

    def apply(self, dataset: ImageDataset) -> ImageDataset:
        """Return the dataset with the splits of the file.

        An image is matched by its path, or else by its digest. Images that are not in the file
        retain their split, or become train images. Excluded images have no split.

        Raises
        ------
        DatasetError
            If the file contains no image of the dataset.
        """
        matched = CodeColumn.of(
            self.by_path.get(path) or self.by_digest.get(digest or "")
            for path, digest in zip(dataset.path, dataset.digest, strict=True)
        )
        counts = count_values(matched)
        found = len(dataset) - counts[None]
        if not found:
            raise DatasetError(
                f"The split file {self.where} contains none of the {n_images(len(dataset))}; the "
                f"first is {quoted(dataset.path[0])}. Its paths must be relative to the data's "
                "folder."
            )
        split = CodeColumn.of(
            (None if name == EXCLUDED else name) if name is not None else given or "train"
            for name, given in zip(matched, dataset.split, strict=True)
        )
        notes = [f"Split as in {self.where}."]
        if missing := len(dataset) - found:
            first = quoted(dataset.path[matched.index(None)])
            notes.append(
                f"Not in {self.where}, so in the train split unless the data have another: "
                f"{n_images(missing)}, first {first}."
            )
        if excluded := counts[EXCLUDED]:
            notes.append(f"Excluded by {self.where}: {n_images(excluded)}.")
        return dataset.with_columns(split=split).with_notes(*notes)


def read_split(path: str | os.PathLike[str]) -> SplitFile:
    """Read a split file: one of :func:`write_split`, or any CSV with a path and a split column.

    A column ``digest`` is used if there is one; other columns are ignored.

    Raises
    ------
    DatasetError
        If a column is missing, or lines are invalid; the message names them.
    """
    table = CsvTable(os.fspath(path), encoding="")
    found = find_columns(table.header, {}, table.where)
    if missing := [kind for kind in ("path", "split") if kind not in found]:
        raise DatasetError(
            f"The split file {table.where} needs the columns path and split; it lacks "
            f"{' and '.join(missing)} and has {quoted_list(tuple(table.header))}. Rename its "
            "columns."
        )
    columns = [found["path"], found["split"]]
    if _DIGEST in table.header:
        columns.append(table.header.index(_DIGEST))
    lines, cells = table.read(columns)
    splits = tuple(read_splits(cells[1], lines, table.unit, table.where, named=True) or ())
    allowed = (*SPLITS, EXCLUDED)
    digests = cells[2] if len(cells) > 2 else [""] * len(lines)
    rows = [(path, name) for path, name in zip(cells[0], splits, strict=True) if name in allowed]
    # Names that are not UTF-8 are escaped; on Windows, a backslash separates folders.
    by_path = {**dict(rows), **{unescape_name(path): name for path, name in rows}}
    different = set(zip(digests, splits, strict=True))
    ambiguous = {digest for digest, n in Counter(d for d, _ in different).items() if n > 1}
    by_digest = {
        digest: name
        for digest, name in zip(digests, splits, strict=True)
        if digest and digest not in ambiguous and name in allowed
    }
    return SplitFile(table.where, by_path, by_digest)
