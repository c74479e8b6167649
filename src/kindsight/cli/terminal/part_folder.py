"""A folder of parts and their manifest, on a local disk or at an address."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from kindsight.errors import SettingsError
from kindsight.files import check_writable, clear_leftovers
from kindsight.storage.address import is_address, join, scheme_of, undirected
from kindsight.storage.files import is_folder, move_file, names_in, open_source, write_file

__all__ = ["MANIFEST", "PartFolder", "is_part_folder"]

MANIFEST = "_predictions.json"
"""Name of the file that states on what the parts depend and whether all are written."""

MAX_BYTES = 1 << 20


def is_part_folder(out: str) -> bool:
    """Return whether a name is a folder's: it ends in ``/``, or a folder with that name exists.

    Raises SettingsError for the address of a single file.
    """
    ends = out.endswith(("/", os.sep))
    if is_address(out) and not ends:
        raise SettingsError(f"--out at an address must be a folder: end it in /. Got {out!r}.")
    return ends or os.path.isdir(out)  # noqa: PTH112


class PartFolder:
    """A folder of parts.

    Parameters
    ----------
    name : str
        The path or the address, as given.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._remote = is_address(name)
        self._path = undirected(name) if self._remote else name

    def __str__(self) -> str:
        return self.name

    def check(self) -> None:
        """Raise SettingsError if it is not empty and was not written by kindsight."""
        if self._remote:
            if scheme_of(self.name) in ("http", "https"):
                raise SettingsError(
                    "Files cannot be written to web servers: --out must be on another storage; "
                    f"got {self.name}."
                )
        elif os.path.lexists(self.name.rstrip("/" + os.sep)) and not is_folder(self.name):
            raise SettingsError(f"{self.name} is not a folder. Choose another --out.")
        elif not Path(self.name).absolute().parent.is_dir():
            raise SettingsError(f"--out must be in a folder that exists; got {self.name!r}.")
        else:
            folder = Path(self.name).absolute()
            check_writable(folder if folder.is_dir() else folder.parent, "--out")
        names = [name for name in self.names() if not name.startswith(".")]
        if names and MANIFEST not in names:
            raise SettingsError(
                f"{self.name} has files that 'kindsight predict' did not write. Choose another "
                f"--out, such as {join(self._path, 'predictions')}/."
            )

    def names(self) -> list[str]:
        """Return the names of the files in the folder; an empty list if it does not exist."""
        try:
            return names_in(self._path)
        except FileNotFoundError:
            return []

    def read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest; None if there is none, SettingsError if it is damaged."""
        if MANIFEST not in self.names():
            return None
        try:
            with self.open(MANIFEST) as file:
                facts = json.loads(file.read(MAX_BYTES))
            if not isinstance(facts, dict):
                raise ValueError("it is not a JSON object")
            return facts
        except ValueError as error:
            raise SettingsError(
                f"{join(self._path, MANIFEST)} is damaged: {error}. Choose another --out, or "
                "delete it."
            ) from error

    def write_manifest(self, facts: dict[str, Any]) -> None:
        """Write the manifest, and delete incomplete files of a killed run."""
        if not self._remote:
            Path(self.name).mkdir(exist_ok=True)
            clear_leftovers(self.name)
        self.write(MANIFEST, (json.dumps(facts, indent=2) + "\n").encode())

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        found = open_source(join(self._path, name))
        return Path(found).open("rb") if isinstance(found, str) else found

    def write(self, name: str, content: bytes) -> None:
        """Write a file; it is whole or absent."""
        write_file(join(self._path, name), content)

    def mark_stale(self, name: str) -> str:
        """Rename a file so that readers of the folder ignore it; return its new name.

        PyArrow, pandas and Spark ignore names that begin with an underscore; DuckDB and others read
        only ``*.parquet``.
        """
        new = f"_{name}.stale"
        move_file(join(self._path, name), join(self._path, new))
        return new
