"""The folder of ``kindsight predict --out DIR/``: Parquet files of a fixed number of images each.

``part-00000003-<digest>.parquet`` has the rows of the images 12,288 to 16,383. Its digest covers
everything on which the rows depend: the bundle, the options, the columns, and the names of these
images with their size, times and inode, their version in a remote storage, or their content. The
same command, run again, computes only missing parts. A part that is replaced is renamed so that
readers of the folder ignore it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.part_folder import PartFolder
from kindsight.cli.terminal.prediction_files import to_arrow
from kindsight.cli.terminal.prediction_rows import Counts, CsvRows
from kindsight.cli.terminal.progress import counting
from kindsight.cli.terminal.text import complain, note
from kindsight.dataset.reading.process_files import FileStamp
from kindsight.digest import content_digest, file_digest
from kindsight.errors import MissingExtraError, SettingsError
from kindsight.network_outputs import DatasetRow
from kindsight.storage.address import is_address
from kindsight.storage.files import sizes
from kindsight.threads import map_ordered

if TYPE_CHECKING:
    from kindsight.predictor import Prediction, Predictor

__all__ = ["PART_ROWS", "check_parts", "write_parts"]

PART_ROWS = 4096
"""Number of images per part."""

FORMAT = 1
"""Version of the parts' names and of the manifest."""

_PART = re.compile(r"part-([0-9]{8,12})-[0-9a-f]{32}\.parquet")
_METADATA_KEY = b"kindsight"

# Number of files whose stamps a thread reads per task, and number of threads, which mostly wait for
# the network.
_STAMPS, _STAMP_THREADS = 256, 8


def check_parts(out: str, *, sort: bool, sheet: bool, printed: bool) -> None:
    """Raise SettingsError if parts cannot be written to a folder, or not with these options.

    MissingExtraError without PyArrow.
    """
    for given, option in ((sort, "--sort"), (sheet, "--sheet"), (printed, "--format and --json")):
        if given:
            raise SettingsError(
                f"{option} cannot be used with a folder as --out, whose parts are written one "
                "after the other and not computed twice. Leave it out, or write one file: --out "
                "predictions.parquet."
            )
    if find_spec("pyarrow") is None:
        raise MissingExtraError("Writing Parquet tables", "parquet")
    PartFolder(out).check()


def write_parts(
    out: str,
    predictor: Predictor,
    images: Iterable[tuple[str, Any]],
    top: int | None,
    *,
    force: bool = False,
    quiet: bool = False,
) -> Counts:
    """Write the predictions that a folder lacks; return the numbers of all images.

    Parameters
    ----------
    out : str
        The folder, or its address.
    predictor : Predictor
    images : iterable of (str, source)
        Names and images, as for :meth:`.Predictor.predict_named`.
    top : int, optional
        Number of most probable classes per row.
    force : bool
        Whether parts of another classifier or of other options are renamed.
    quiet : bool
        Whether only errors are printed.

    Raises
    ------
    SettingsError
        If the folder has parts of another classifier or of other options, without `force`.
    """
    columns = CsvRows(predictor.classes, top)
    parts = _Parts(PartFolder(out), columns, _settings_digest(predictor, top))
    parts.check(force)
    try:
        with (
            counting(quiet) as progress,
            closing(predictor.predict_named(parts.missing(images))) as predictions,
        ):
            for prediction in predictions:
                parts.add(prediction)
                progress("predict", parts.counts.images + len(parts.rows), 0)
    except BaseException:
        if not quiet and parts.written:
            note(
                f"{_n_parts(parts.written)} written to {out} so far. Run the same command again to "
                "continue."
            )
        raise
    parts.end()
    for text in parts.notes():
        if not quiet:
            note(text)
    if parts.unreachable:
        complain(
            f"{_n_parts(parts.unreachable)} not written, since some images could not be reached. "
            "Run the same command again to add them."
        )
    return parts.counts


class _Parts:
    """The parts of a folder: existing, written and renamed ones.

    - `settings`: digest of everything on which all parts depend.
    """

    def __init__(self, folder: PartFolder, columns: CsvRows, settings: str) -> None:
        self.counts = Counts()
        self.rows: list[Prediction] = []  # of the part that is being computed
        self.written = self.reused = self.unreachable = 0
        self._folder, self._columns, self._settings = folder, columns, settings
        self._number = 0
        self._waiting: deque[tuple[str, int]] = deque()  # names and sizes of parts to compute
        self._existing: dict[int, set[str]] = {}
        self._renamed: list[str] = []

    def check(self, force: bool) -> None:
        """Raise SettingsError for parts of other settings, unless `force`; list the folder."""
        manifest = self._folder.read_manifest()
        if manifest is not None and manifest.get("settings") != self._settings and not force:
            raise SettingsError(
                f"{self._folder} has predictions of another classifier, of other options or of "
                "another version of kindsight. Choose another --out, or rename them with --force."
            )
        for name in self._folder.names():
            if found := _PART.fullmatch(name):
                self._existing.setdefault(int(found[1]), set()).add(name)

    def missing(self, images: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield the images of the parts that are missing from the folder."""
        iterator = iter(images)
        while block := list(islice(iterator, PART_ROWS)):
            if not self._number:
                self._write_manifest(complete=False)
            name = f"part-{self._number:08d}-{_images_digest(self._settings, block)}.parquet"
            counts = None
            if name in self._existing.get(self._number, ()):
                counts = self._read_counts(name, len(block))
            self._mark_stale(self._number, name)
            self._number += 1
            if counts is not None:
                self.reused += 1
                self.counts.merge(counts)
                continue
            self._waiting.append((name, len(block)))
            yield from block

    def add(self, prediction: Prediction) -> None:
        """Add the next prediction; write the part that it completes."""
        self.rows.append(prediction)
        name, size = self._waiting[0]
        if len(self.rows) < size:
            return
        counts = Counts()
        for row in self.rows:
            counts.add(row)
        if any(row.error is not None and row.error.code == "unreachable" for row in self.rows):
            self.unreachable += 1
        else:
            self._write(name, counts)
            self.written += 1
        self.counts.merge(counts)
        self.rows = []
        self._waiting.popleft()

    def end(self) -> None:
        """Rename the parts beyond the last one; record that all parts are written."""
        if not self._number:
            return
        for number in [number for number in self._existing if number >= self._number]:
            self._mark_stale(number, "")
        self._write_manifest(complete=not self.unreachable)

    def notes(self) -> Iterator[str]:
        """Yield sentences on the written and renamed parts."""
        if not self._number:
            return
        reused = f" ({self.written:,} computed, {self.reused:,} reused)" if self.reused else ""
        rows = self.counts.images
        yield (
            f"{rows:,} prediction{'s' * (rows != 1)} in {self._folder}, "
            f"{_n_parts(self._number)}{reused}."
        )
        if self._renamed:
            count = len(self._renamed)
            yield (
                f"{_n_parts(count)} of images or options that have changed "
                f"{'was' if count == 1 else 'were'} renamed, such as {self._renamed[0]}. Delete "
                "what you do not need."
            )

    def _write(self, name: str, counts: Counts) -> None:
        import pyarrow
        from pyarrow import parquet

        table = to_arrow(self._columns.names(), [self._columns.cells(row) for row in self.rows])
        facts = json.dumps(counts.to_dict(), sort_keys=True).encode()
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(table.replace_schema_metadata({_METADATA_KEY: facts}), sink)
        self._folder.write(name, sink.getvalue().to_pybytes())

    def _read_counts(self, name: str, rows: int) -> Counts | None:
        """Return the numbers of images of an existing part; None if it is damaged."""
        from pyarrow import parquet

        try:
            with self._folder.open(name) as file:
                metadata = parquet.read_metadata(file)
            counts = Counts.from_dict(json.loads(metadata.metadata[_METADATA_KEY]))
        except Exception:  # PyArrow's errors have no common base
            return None
        return counts if metadata.num_rows == counts.images == rows else None

    def _mark_stale(self, number: int, name: str) -> None:
        """Rename the parts with a number, but for the one that belongs there."""
        for other in sorted(self._existing.pop(number, set()) - {name}):
            self._renamed.append(self._folder.mark_stale(other))

    def _write_manifest(self, complete: bool) -> None:
        facts: dict[str, Any] = {
            "format": FORMAT,
            "kindsight": version("kindsight"),
            "settings": self._settings,
            "complete": complete,
        }
        if complete:
            facts.update(parts=self._number, **self.counts.to_dict())
        self._folder.write_manifest(facts)


def _settings_digest(predictor: Predictor, top: int | None) -> str:
    """Return the digest of the bundle, the options and the version, on which every row depends."""
    decisions, bundle = predictor.decisions, predictor.bundle
    facts = [
        FORMAT, version("kindsight"), PART_ROWS,
        file_digest(bundle.folder / "bundle.json"), file_digest(bundle.tflite),
        repr(decisions.threshold), repr(decisions.unknown),
        None if decisions.quantiles is None else content_digest(decisions.quantiles), top,
    ]  # fmt: skip
    return content_digest(json.dumps(facts))


def _images_digest(settings: str, block: Sequence[tuple[str, Any]]) -> str:
    """Return the digest of the names and the contents, or stamps, of some images."""
    total = hashlib.blake2b(settings.encode(), digest_size=16)
    chunks = [block[at : at + _STAMPS] for at in range(0, len(block), _STAMPS)]
    for chunk, found in zip(chunks, map_ordered(_identities, chunks, _STAMP_THREADS), strict=True):
        for (name, _), identity in zip(chunk, found, strict=True):
            # The name's length is included so that different images cannot give the same bytes.
            text = f"{len(name)}:{name}:{identity};"
            total.update(text.encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _identities(block: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the digest of each image in memory, and the stamp of each file."""
    remote = [source for _, source in block if is_address(source) and _stamp(source) is None]
    # Asked for together, their versions are known afterwards.
    remote_sizes = dict(zip(remote, sizes(remote), strict=True)) if remote else {}
    return [_identity(source, remote_sizes) for _, source in block]


def _identity(source: Any, remote_sizes: Mapping[str, int | None]) -> str:
    if isinstance(source, DatasetRow):
        source = source.dataset.load(source.row)
    if not isinstance(source, (str, os.PathLike)):
        return content_digest(source)
    now = time.time()
    stamp = _stamp(source)
    if stamp is None and remote_sizes.get(os.fspath(source)) is None:
        return "missing"
    if stamp is not None and stamp.settled(now):
        return f"{stamp.size} {stamp.modified} {stamp.changed} {stamp.inode}"
    # The stamp might not reveal a later change, so such a part is computed again.
    return f"unsettled {time.time_ns()}"


def _stamp(source: str | os.PathLike[str]) -> FileStamp | None:
    """Return the stamp of a file; None if there is none, or it is unknown at an address."""
    try:
        return FileStamp.of(source)
    except (OSError, ValueError):
        return None


def _n_parts(count: int) -> str:
    return f"{count:,} part{'s' * (count != 1)}"
