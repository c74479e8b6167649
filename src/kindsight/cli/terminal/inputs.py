"""The images named on the command line: files, folders, globs, tables, names on standard input.

Standard input may also be an image instead of names. Images are read lazily: 100,000 images take no
more memory than ten.
"""

from __future__ import annotations

import codecs
import glob
import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.command import raise_if_interrupted
from kindsight.cli.terminal.text import printable
from kindsight.dataset.loaders.table_files import is_file_of_images, is_shards
from kindsight.dataset.names import IMAGE_EXTENSIONS, IgnoredFiles, extension_of
from kindsight.dataset.walk import Listing, walk
from kindsight.encoding import not_decoded, text_encoding, unescape_name
from kindsight.errors import DatasetError, ImageError
from kindsight.images.formats import detect_format
from kindsight.images.netpbm import read_netpbm_header
from kindsight.images.read import MAX_BYTES
from kindsight.storage.address import (
    base_name,
    is_address,
    join,
    parent,
    scheme_of,
    split_member,
)
from kindsight.storage.files import is_file, is_folder

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions, ImageDataset

__all__ = ["STDIN", "Inputs"]

STDIN = "-"
_CHUNK = 1 << 16
# Number of file names read ahead from standard input.
_AHEAD = 1024
# Bytes; longer than any file system allows.
_LONGEST_NAME = 1 << 17
MOST_MATCHES = 1_000_000
"""Maximum number of files that a pattern on an address may match."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
# Number of bytes by which an image is recognised.
_SIGNATURE = 32


class Inputs:
    """The images named by arguments.

    Parameters
    ----------
    given : sequence of str
        Files; folders, for the images in and below them; tables (CSV, Parquet), tar files or files
        of arrays, for their images; addresses of all of them; ``-`` for file names or an image on
        standard input; and patterns with ``*``, ``?`` or ``[`` (``**`` for any depth). A missing
        file is reported in its row.
    null : bool
        Whether file names on standard input end with NUL instead of a line feed.
    options : DataOptions, optional
        Options for tables, arrays and links.

    Attributes
    ----------
    ignored : IgnoredFiles
        Ignored files in folders and tables; complete at the end.
    notes : list of str
        Notes on the tables, one sentence each; complete at the end.
    value_range : (low, high) or None
        The values that become 0 and 255 in arrays that are not uint8.

    Raises
    ------
    DatasetError
        If a pattern has no matches, or a folder or table cannot be opened.
    SettingsError
        If options for tables are given without a table.
    """

    def __init__(
        self, given: Sequence[str], *, null: bool = False, options: DataOptions | None = None
    ) -> None:
        self._null, self._options = null, options
        self.ignored = IgnoredFiles()
        self.notes: list[str] = []
        self.value_range: tuple[float, float] | None = None
        # Patterns are expanded now, so that a mistyped one fails before the first row.
        self._given = list(chain.from_iterable(_expanded(name) for name in given))
        self._encoding = None if options is None else options.encoding
        if options is not None and not any(_kind(name) == "table" for name in self._given):
            others = replace(options, encoding=None) if self.from_stdin else options
            others.check_unused(given)

    @property
    def from_stdin(self) -> bool:
        """Whether names come from standard input."""
        return STDIN in self._given

    @property
    def has_lost_images(self) -> bool:
        """Whether images of a damaged tar file have no rows; complete at the end."""
        from kindsight.dataset.loaders.shards import DAMAGED, UNREADABLE

        return any(self.ignored.counts.get(reason) for reason in (DAMAGED, UNREADABLE))

    def batches(self) -> Iterator[Iterator[str] | ImageDataset | bytes]:
        """Yield iterators of paths, in order; each must be exhausted before the next.

        Images inside a file of arrays come as a dataset, an image on standard input as bytes. A
        batch from standard input ends where the input pauses, so that names written one by one are
        predicted one by one.
        """
        for kind, names in groupby(self._given, _kind):
            if kind == "stdin":
                yield from _bursts(self._null, self._encoding)
            elif kind == "table":
                yield from map(self._table, names)
            else:
                yield self._files(list(names))

    def _table(self, name: str) -> Iterator[str] | ImageDataset:
        """Return a table's paths, relative to the working directory, or arrays as a dataset."""
        from kindsight.dataset import DataOptions, open_dataset

        options = replace(self._options or DataOptions(), value_range=self.value_range)
        dataset = open_dataset(name, options, labelled=False)
        self.ignored.counts.update(dataset.ignored)
        self.notes.extend(dataset.notes)
        if dataset.arrays is not None:
            return dataset
        given = self._options.root if self._options else None
        folder = given or (name if os.path.isdir(name) else parent(name))  # noqa: PTH112
        if isinstance(dataset.root, str) or "{" in folder:
            folder = str(dataset.root)
        return (join(folder, path) for path in dataset.path)

    def _files(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            if _is_folder(name):
                yield from self._folder(name)
            else:
                yield name

    def _walk(self, folder: str) -> Iterator[Listing]:
        follow = self._options is None or self._options.follow_links
        given = [] if follow else [name for name in self._given if not is_address(name)]
        roots = [name for name in given if os.path.isdir(name)]  # noqa: PTH112
        return walk(folder, self.ignored, follow_links=follow, roots=roots)

    def _folder(self, folder: str) -> Iterator[str]:
        try:
            for listing in self._walk(folder):
                if is_address(folder):
                    place = join(folder, listing.folder) if listing.folder else folder
                else:
                    place = os.path.join(folder, *filter(None, listing.folder.split("/")))  # noqa: PTH118
                for name, _ in listing.all_files:
                    yield join(place, name)
        except OSError as error:
            raise DatasetError(f"Cannot open the folder {folder}: {error.strerror}.") from error


def _kind(name: str) -> str:
    if name == STDIN:
        return "stdin"
    if is_shards(name):
        return "table"
    if is_file_of_images(name):
        return "table" if is_file(name) else "file"
    if not _is_folder(name):
        return "file"
    from kindsight.dataset.loaders.shards import find_shards

    return "table" if find_shards(name) else "file"


def _is_folder(name: str) -> bool:
    """Return whether a name is that of a folder; a storage is only asked if it may be one."""
    if is_address(name) and (extension_of(base_name(name)) in IMAGE_EXTENSIONS):
        return False
    return split_member(name) is None and is_folder(name)


def _expanded(name: str) -> Sequence[str]:
    if name.lower().endswith(_COMPRESSED):
        raise DatasetError(
            f"{printable(name)} is a compressed archive. Unpack it, and give the folder, or a tar "
            "file."
        )
    if name == STDIN or os.path.lexists(name) or not glob.has_magic(name) or is_shards(name):
        return [name]
    if is_address(name):
        if scheme_of(name) in ("http", "https"):  # a question mark begins the query of a URL
            return [name]
        from kindsight.storage.access import glob_files

        if matches := glob_files(name, MOST_MATCHES):
            return matches
        raise DatasetError(f"No file matches {printable(name)}.")
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (as given: Path.glob is not)
    if not found:
        raise DatasetError(f"No file matches {printable(name)}.")
    return found


_CHECK_SECONDS = 1.0
"""Seconds between two checks for Ctrl-C while waiting for names."""

_Item = str | bytes | BaseException | None
"""A name, an image, an error, or the end of standard input."""


def _bursts(null: bool, encoding: str | None) -> Iterator[Iterator[str] | bytes]:
    """Read names in a thread; yield those that have arrived as one batch, or an image."""
    names: queue.Queue[_Item] = queue.Queue(_AHEAD)
    threading.Thread(target=_read_names, args=(names, null, encoding), daemon=True).start()
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
            if isinstance(item, str):
                yield item

    while not ended:
        item = _next(names)
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return
        yield item if isinstance(item, bytes) else burst(item)


def _next(names: queue.Queue[_Item]) -> _Item:
    """Wait for an item.

    Python ignores a KeyboardInterrupt that is raised in a finaliser, so the wait also ends if there
    was a Ctrl-C before it.
    """
    while True:
        raise_if_interrupted()
        with suppress(queue.Empty):
            return names.get(timeout=_CHECK_SECONDS)


def _read_names(names: queue.Queue[_Item], null: bool, encoding: str | None) -> None:
    try:
        if sys.stdin is not None:  # None as if closed by the parent process
            buffer = sys.stdin.buffer
            # The raw file returns what has arrived without waiting for more, and holds no lock that
            # could block the exit of the program while this thread waits.
            source = getattr(buffer, "raw", buffer)
            start = _start_of(source)
            if _is_image(start, null):
                names.put(_whole_image(source, start))
            else:
                for name in _split(source, start, null, encoding):
                    names.put(name)
    except (OSError, ValueError) as error:
        names.put(error)
    names.put(None)


def _start_of(source: Any) -> bytes:
    """Return the first bytes that arrive, enough to recognise an image unless they are a name."""
    start: bytes = source.read(_CHUNK) or b""
    while start and len(start) < _SIGNATURE and b"\n" not in start and b"\0" not in start:
        if not (chunk := source.read(_CHUNK)):
            break
        start += chunk
    return start


def _is_image(start: bytes, null: bool) -> bool:
    """Return whether standard input is an image rather than names."""
    # Some signatures, such as GIF89a, may also be file names.
    binary = not start[:1].isascii() or (b"\0" in start and not null)
    try:
        if detect_format(start) == "PPM":
            read_netpbm_header(start)
            return True
    except ImageError as error:
        return binary and error.code == "unsupported"
    return binary


def _whole_image(source: Any, start: bytes) -> bytes:
    chunks, size = [start], len(start)
    while chunk := source.read(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise DatasetError(
                f"The image on standard input has more than {MAX_BYTES:,} bytes, the limit."
            )
    return b"".join(chunks)


def _split(source: Any, start: bytes, null: bool, encoding: str | None) -> Iterator[str]:
    """Yield the names on standard input as they arrive, without empty ones."""
    end = b"\0" if null else b"\n"
    line = 0
    rest = b""
    for chunk in _utf8_chunks(source, start, encoding):
        *whole, rest = (rest + chunk).split(end)
        if len(rest) > _LONGEST_NAME:
            raise DatasetError(
                f"A file name on standard input is longer than {_LONGEST_NAME:,} bytes: "
                f"{rest[:40]!r}... Names must end with a line feed, or with NUL with --null."
            )
        for name in whole:
            line += 1
            yield from _decoded(name, line, null)
    yield from _decoded(rest, line + 1, null)


def _utf8_chunks(source: Any, start: bytes, encoding: str | None) -> Iterator[bytes]:
    """Yield the data on standard input as they arrive, as UTF-8 without a byte order mark."""
    name = text_encoding(start[:4] if encoding is None else b"", encoding)
    if name in (None, "utf-8-sig"):
        yield start.removeprefix(codecs.BOM_UTF8)
        while chunk := source.read(_CHUNK):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(str(name))()
    lines, chunk = 0, start
    while True:
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:
            valid = chunk[: error.start] if isinstance(error, UnicodeDecodeError) else b""
            lines += valid.decode(str(name), "replace").count("\n")
            raise not_decoded(lines + 1, "standard input", encoding) from None
        lines += text.count("\n")
        yield text.removeprefix("\ufeff").encode()
        if not chunk:
            return
        chunk = source.read(_CHUNK) or b""


def _decoded(name: bytes, line: int, null: bool) -> Iterator[str]:
    """Yield the name of a file, unless it is empty.

    A file name may have bytes that are not UTF-8. It may also be escaped, as in the output of other
    commands.
    """
    clean = name if null else name.removesuffix(b"\r")
    if not clean:
        return
    path = os.fsdecode(clean)
    try:
        clean.decode()
    except UnicodeDecodeError:
        if not os.path.lexists(path):
            raise not_decoded(line, "standard input", None) from None
    original = unescape_name(path)
    if original != path and not os.path.lexists(path) and os.path.lexists(original):
        path = original
    yield path
