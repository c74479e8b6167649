"""Measure what a dataset of many rows takes before any image is read: time and memory.

Example::

    python benchmarks/rows_job.py --rows 10000000

A Parquet table of paths of 60 characters, labels and groups is written, opened and split in one
process. The last line of the output is JSON: seconds and peak resident memory (MB) at the end of
each stage, and the memory of the imports alone. The files exist: folders are links to one folder of
a thousand files. With ``--digests``, every image gets a random digest, of which one in a hundred
occurs twice; then the split and its leakage are measured, too, and the dataset's digest. With
``--files``, the files are real and the folder is opened in place of the table.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kindsight.dataset import ImageDataset, SplitSettings, check_split, with_value_range
from kindsight.dataset.columns.texts import BytesColumn

CLASSES = 20
FILES = 1_000
NAME = "{row:09d}-0123456789-0123456789-0123456.jpg"


class Stages:
    """Seconds and peak memory of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {"imports": peak_megabytes()}

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        self.megabytes[name] = peak_megabytes()
        print(f"{name}: {self.seconds[name]:.1f} s, {self.megabytes[name]:.0f} MB", file=sys.stderr)


def peak_megabytes() -> float:
    """Return the peak resident memory of this process in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def write_table(folder: Path, rows: int, groups: bool) -> Path:
    """Write the table of paths and the files that it names; in another process's memory."""
    import subprocess

    code = (
        f"import rows_job; from pathlib import Path; "
        f"rows_job.write_rows(Path({str(folder)!r}), {rows}, {groups})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    return folder / "rows.parquet"


def write_rows(folder: Path, rows: int, groups: bool) -> None:
    """Write the table and its files; paths have 60 characters."""
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "files").mkdir()
    for number in range(FILES):
        (folder / "files" / NAME.format(row=number)).write_bytes(b"0")
    names = ["path", "label", *(["group"] if groups else [])]
    schema = pa.schema([(name, pa.string()) for name in names])
    with parquet.ParquetWriter(folder / "rows.parquet", schema, compression="zstd") as file:
        for start in range(0, rows, 100 * FILES):
            block = range(start, min(start + 100 * FILES, rows))
            for number in range(start // FILES, -(-block.stop // FILES)):
                (folder / f"folder-{number:09d}").symlink_to("files")
            cells = [
                [f"folder-{row // FILES:09d}/{NAME.format(row=row % FILES)}" for row in block],
                [f"class {row * 7 % 1009 % CLASSES}" for row in block],
                [f"group {row // 3}" for row in block],
            ]
            arrays = [pa.array(one, pa.string()) for one in cells[: len(names)]]
            file.write_batch(pa.record_batch(arrays, schema=schema))


def write_folder(folder: Path, rows: int) -> Path:
    """Write empty files in class folders."""
    for k in range(CLASSES):
        (folder / "photos" / f"class {k:02d}").mkdir(parents=True)
    for row in range(rows):
        name = f"class {row % CLASSES:02d}/{NAME.format(row=row)}"
        (folder / "photos" / name).write_bytes(b"")
    return folder / "photos"


def random_digests(rows: int) -> BytesColumn:
    """Return digests of which one in a hundred occurs twice."""
    data = np.random.default_rng(0).integers(0, 256, (rows, 16), np.uint8)
    data[::100][: len(data[1::100])] = data[1::100]
    return BytesColumn(data)


def measure(data: Path, digests: bool) -> dict[str, object]:
    """Run the stages."""
    stages = Stages()
    with stages.measured("open"):
        dataset = ImageDataset.open(data)
    with stages.measured("value range"):
        dataset = with_value_range(dataset)
    with stages.measured("counts"):
        found = dataset.counts(), dataset.split_counts(), dataset.targets.sum()
    with stages.measured("check split"):
        check_split(dataset, SplitSettings(test=0.1))
    if digests:
        dataset = dataset.with_columns(digest=random_digests(len(dataset)))
        with stages.measured("split"):
            split, leakage = SplitSettings(test=0.1).split_without_leakage(dataset, [])
        with stages.measured("rows of splits"):
            parts = {name: len(split.where(split=name)) for name in split.split_counts()}
        with stages.measured("digest"):
            split.dataset_digest()
        print(parts, leakage.to_dict(), file=sys.stderr)
    return {
        "rows": len(dataset),
        "classes": len(found[0]),
        "seconds": stages.seconds,
        "megabytes": stages.megabytes,
    }


def main() -> None:
    """Read the command line and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows")
    parser.add_argument("--groups", action="store_true", help="groups of three rows")
    parser.add_argument("--digests", action="store_true", help="split, too")
    parser.add_argument("--files", action="store_true", help="class folders in place of a table")
    parser.add_argument("--folder", metavar="DIR", help="folder for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kindsight-rows-", dir=options.folder) as folder:
        if options.files:
            data = write_folder(Path(folder), options.rows)
        else:
            data = write_table(Path(folder), options.rows, options.groups)
        print(json.dumps(measure(data, options.digests)))


if __name__ == "__main__":
    main()
