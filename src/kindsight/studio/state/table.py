"""dataset.csv: the images of a project as a table that every command reads."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from kindsight.dataset.loaders.values import EXCLUDED
from kindsight.dataset.table import SPLITS
from kindsight.digest import content_digest
from kindsight.encoding import unescape_name
from kindsight.errors import DatasetError
from kindsight.files import replacing, write_csv, write_text
from kindsight.studio.state.images import ImageColumns

__all__ = ["TABLE_FILE", "Edits", "hidden_folder", "read_edits", "unusable", "write_table"]

TABLE_FILE = "dataset.csv"

_DIGESTS_FILE = "table-digests.txt"
"""File with the digests of the last two written tables; a table with another digest was edited."""

# A file on disk is not trusted.
MAX_TABLE_BYTES = 2**30
MAX_CELL = 2**16


def hidden_folder(folder: Path) -> Path:
    """Return the folder of the studio's internal files, created if necessary."""
    hidden = folder / ".studio"
    hidden.mkdir(exist_ok=True)
    return hidden


def write_table(folder: Path, images: ImageColumns) -> None:
    """Write the images that are present, with the columns path, label, split and group."""
    classes, splits = images.classes, (None, *SPLITS)
    grouped = any(images.group)
    columns = zip(
        images.present.tolist(), images.path, images.label.tolist(), images.excluded.tolist(),
        images.split.tolist(), images.group, strict=True,
    )  # fmt: skip
    rows = (
        (
            path,
            classes.get(label, ""),
            EXCLUDED if excluded else splits[split] or "",
            *([group or ""] if grouped else []),
        )
        for present, path, label, excluded, split, group in columns
        if present
    )
    digests = hidden_folder(folder) / _DIGESTS_FILE
    with replacing(folder / TABLE_FILE) as temporary:
        write_csv(temporary, ("path", "label", "split", *(["group"] if grouped else [])), rows)
        # Before the table is replaced, so that both are known if the process is killed in between.
        known = [content_digest(temporary.read_bytes()), *_known_digests(digests)]
        write_text(digests, "\n".join(known[:2]))


def _known_digests(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").split()[:2] if path.is_file() else []


@dataclass(frozen=True)
class Edits:
    """Changes that somebody made in the table: labels and exclusions by the images' ids."""

    labels: dict[int, str | None]
    excluded: dict[int, bool]


def read_edits(folder: Path, images: ImageColumns) -> Edits | None:
    """Return the changes made in the table since it was written; None if it was not edited.

    A row that was removed excludes its image.

    Raises
    ------
    DatasetError
        If the table was edited and cannot be read.
    """
    path = folder / TABLE_FILE
    known = _known_digests(folder / ".studio" / _DIGESTS_FILE)
    if not path.is_file() or not known:
        return None
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise unusable(path, "it is larger than 1 GB")
    data = path.read_bytes()
    if content_digest(data) in known:
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise unusable(path, str(error)) from error
    if rows and not {"path", "label", "split"} <= rows[0].keys():
        raise unusable(path, "it has no columns path, label and split")
    return _compare(rows, images)


def _compare(rows: list[dict[str, str]], images: ImageColumns) -> Edits:
    """Return the differences between the rows of a table and the images."""
    ids = {path: row for row, path in enumerate(images.path) if images.present[row]}
    labels, excluded = dict[int, str | None](), dict[int, bool]()
    for cells in rows:
        row = ids.pop(unescape_name(cells["path"] or ""), None)
        if row is None:
            continue
        labels[row] = (cells["label"] or "").strip() or None
        excluded[row] = (cells["split"] or "").strip().casefold() == EXCLUDED
    excluded.update(dict.fromkeys(ids.values(), True))
    return Edits(labels, excluded)


def unusable(path: Path, why: str) -> DatasetError:
    """Return the error for a table that was edited and is invalid."""
    why = why.rstrip(".")
    return DatasetError(
        f"{path} was edited and cannot be used: {why}. Correct it, or move it away; the studio "
        "then writes it again from its journal."
    )
