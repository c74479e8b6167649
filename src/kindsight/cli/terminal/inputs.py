"""The images that a command line names: files, folders, globs, tables, a list on standard input.

Everything is taken as needed, so that 100,000 images take no more memory than ten.
"""

from __future__ import annotations

import glob
import os
import queue
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING

from kindsight.cli.terminal.text import printable
from kindsight.dataset.loaders.csv_table import is_file_of_images
from kindsight.dataset.walk import walk
from kindsight.errors import DatasetError

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions, ImageDataset

__all__ = ["STDIN", "Inputs"]

STDIN = "-"
_CHUNK = 1 << 16
# Names read ahead of the network from standard input.
_AHEAD = 1024
# Bytes; longer than any file system allows.
_LONGEST_NAME = 1 << 17


class Inputs:
    """The images named by arguments.

    Parameters
    ----------
    given : sequence of str
        A file or whatever else exists stands for itself, a folder for the images in and below
        it, a table (CSV, Parquet) or a file of arrays for its images, ``-`` for a list on
        standard input, and what does not exist but has ``*``, ``?`` or ``[`` in it for the files
        that it matches (``**`` at any depth). Anything else stands for itself: that it is missing
        is said in its row.
    null : bool
        Whether names on standard input end with a NUL instead of a line feed.
    options : DataOptions, optional
        How tables and arrays are read.

    Attributes
    ----------
    ignored : Counter
        What was passed over in folders, by reason; complete when all were taken.

    Raises
    ------
    DatasetError
        For a pattern that matches nothing, or a folder or a table that cannot be opened.
    SettingsError
        For options without a table.
    """

    def __init__(
        self, given: Sequence[str], *, null: bool = False, options: DataOptions | None = None
    ) -> None:
        self._null, self._options = null, options
        self.ignored: Counter[str] = Counter()
        # Patterns are expanded at once, so that a mistyped one is known before any row is out.
        self._given = list(chain.from_iterable(_expanded(name) for name in given))
        if options is not None and not any(_kind(name) == "table" for name in self._given):
            options.refuse_for_files(given)

    @property
    def from_stdin(self) -> bool:
        """Whether standard input is one of them."""
        return STDIN in self._given

    def batches(self) -> Iterator[Iterator[str] | ImageDataset]:
        """Yield iterators of paths, in order; each is to be used up before the next is taken.

        Images that a file holds in itself come as a dataset. Names from standard input come in
        bursts: a batch ends where the list pauses, so that whoever writes names one by one is
        answered one by one.
        """
        for kind, names in groupby(self._given, _kind):
            if kind == "stdin":
                yield from _bursts(self._null)
            elif kind == "table":
                yield from map(self._table, names)
            else:
                yield self._files(list(names))

    def _table(self, name: str) -> Iterator[str] | ImageDataset:
        """Open a table or arrays; paths are given as they can be opened from here."""
        from kindsight.dataset import open_dataset

        dataset = open_dataset(name, self._options, labelled=False)
        if dataset.arrays is not None:
            return dataset
        given = self._options.root if self._options else None
        folder = given or os.path.dirname(name)  # noqa: PTH120
        return iter([os.path.join(folder, path) for path in dataset.path])  # noqa: PTH118

    def _files(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            if os.path.isdir(name):  # noqa: PTH112 (called once an image; Path is slower)
                yield from self._folder(name)
            else:
                yield name

    def _folder(self, folder: str) -> Iterator[str]:
        try:
            for listing in walk(folder, self.ignored):
                place = os.path.join(folder, *filter(None, listing.folder.split("/")))  # noqa: PTH118
                for name, _ in listing.files:
                    yield os.path.join(place, name)  # noqa: PTH118
        except OSError as error:
            raise DatasetError(
                f"A folder of images must be one that can be opened. Received: {folder} "
                f"({error.strerror})."
            ) from error


def _kind(name: str) -> str:
    if name == STDIN:
        return "stdin"
    return "table" if is_file_of_images(name) and os.path.isfile(name) else "file"  # noqa: PTH113


def _expanded(name: str) -> Sequence[str]:
    if name == STDIN or os.path.lexists(name) or not glob.has_magic(name):
        return [name]
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (as given: Path.glob is not)
    if not found:
        raise DatasetError(
            f"A pattern must match something. Received: {printable(name)}, which matches nothing."
        )
    return found


def _bursts(null: bool) -> Iterator[Iterator[str]]:
    """Read names on a thread of its own; hand out what is there whenever there is something."""
    names: queue.Queue[str | BaseException | None] = queue.Queue(_AHEAD)
    threading.Thread(target=_listen, args=(names, null), daemon=True).start()
    ended = False

    def burst(first: str) -> Iterator[str]:
        nonlocal ended
        yield first
        while not ended:
            try:
                item = names.get_nowait()
            except queue.Empty:
                return
            ended = item is None
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                yield item

    while not ended:
        item = names.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return
        yield burst(item)


def _listen(names: queue.Queue[str | BaseException | None], null: bool) -> None:
    try:
        for name in _split(null):
            names.put(name)
    except (OSError, ValueError) as error:
        names.put(error)
    names.put(None)


def _split(null: bool) -> Iterator[str]:
    """Yield the names on standard input, as they come; empty ones are left out."""
    if sys.stdin is None:  # closed by whoever started us: an empty list
        return
    end = b"\0" if null else b"\n"
    buffer = sys.stdin.buffer
    # The raw file gives what is there without waiting for more, and holds no lock that would
    # be in the way when the program ends while this thread waits.
    source = getattr(buffer, "raw", buffer)
    rest = b""
    while chunk := source.read(_CHUNK):
        *whole, rest = (rest + chunk).split(end)
        if len(rest) > _LONGEST_NAME:
            raise DatasetError(
                f"A name on standard input must have at most {_LONGEST_NAME:,} bytes. Received: "
                f"{rest[:40]!r}... Names end with a line feed, or with NUL where --null is given."
            )
        yield from _decoded(whole, null)
    yield from _decoded([rest], null)


def _decoded(names: Sequence[bytes], null: bool) -> Iterator[str]:
    for name in names:
        clean = name if null else name.removesuffix(b"\r")
        if clean:
            yield os.fsdecode(clean)
