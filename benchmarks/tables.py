"""Compare the reading of CSV files of pixels and of paths with other readers, in turns.

Example::

    python benchmarks/tables.py

As many rows are generated as Sign Language MNIST has: 27,455 with a label and 784 pixels. The
table of paths has 100,000. pandas is skipped if it is not installed. Measure on an idle
machine.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from output import Row, Section, Target, add_output_options, at_most, print_sections, warn_if_busy
from processes import log, run, script

PIXEL_ROWS, PIXELS, PATHS = 27_455, 784, 100_000


# One reader, in a separate process ----------------------------------------------------------------


def loop(path: str) -> Any:
    """Read line by line with csv and lists, as in the course."""
    with Path(path).open(newline="") as file:
        reader = csv.reader(file)
        next(reader)
        labels, images = [], []
        for row in reader:
            labels.append(row[0])
            images.append(np.array_split(row[1:], 28))
    return np.array(images).astype("float"), np.array(labels).astype("float")


def pandas(path: str) -> Any:
    """Read with pandas and split the columns."""
    import pandas as pd

    frame = pd.read_csv(path)
    if "path" in frame:
        folder = Path(path).parent
        return [(folder / name).exists() for name in frame["path"]]
    labels = frame.pop("label").to_numpy()
    return frame.to_numpy(np.uint8).reshape(-1, 28, 28), labels


def numpy(path: str) -> Any:
    """Read with numpy.loadtxt."""
    table = np.loadtxt(path, np.int64, delimiter=",", skiprows=1)
    return table[:, 1:].astype(np.uint8).reshape(-1, 28, 28), table[:, 0]


def kindsight(path: str) -> Any:
    """Read with kindsight.open_dataset."""
    from kindsight.dataset import open_dataset

    return open_dataset(path)


READERS: dict[str, Callable[[str], Any]] = {
    "kindsight": kindsight,
    "numpy": numpy,
    "pandas": pandas,
    "csv and lists": loop,
}


def read_once(name: str, path: str) -> None:
    """Time one reader without imports and print the seconds."""
    if name == "pandas":
        importlib.import_module("pandas")
    if name == "kindsight":
        importlib.import_module("kindsight.dataset")
    start = time.perf_counter()
    READERS[name](path)
    print(json.dumps({"seconds": time.perf_counter() - start}))


# All of them, in turns ---------------------------------------------------------------------------


def write_pixels(path: Path, rows: int = PIXEL_ROWS) -> Path:
    """Write random images of 28x28 in 24 classes."""
    random = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["label", *(f"pixel{k}" for k in range(1, PIXELS + 1))])
        for label in random.integers(0, 24, rows):
            out.writerow([label, *random.integers(0, 256, PIXELS).tolist()])
    return path


def write_paths(path: Path, rows: int = PATHS) -> Path:
    """Write a table of files, one of which exists."""
    (path.parent / "0.jpg").write_bytes(b"x")
    lines = [f"{k}.jpg,{k % 7},p{k // 3}" for k in range(rows)]
    path.write_text("\n".join(["path,label,patient", *lines]) + "\n")
    return path


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="[default: 3]")
    add_output_options(parser)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path) -> list[Section]:
    """Run the readers in turns."""
    installed = [name for name in READERS if name != "pandas" or importlib.util.find_spec("pandas")]
    pixels = _section(
        f"CSV of pixels: {PIXEL_ROWS:,} images of 28x28",
        write_pixels(folder / "train.csv"), installed, Target("under", 1.0), options.repeats,
    )  # fmt: skip
    compared = [name for name in ("kindsight", "pandas") if name in installed]
    paths = _section(
        f"A table of {PATHS:,} paths, each checked on disk",
        write_paths(folder / "paths.csv"), compared, None, options.repeats,
    )  # fmt: skip
    return [pixels, paths]


def _section(
    title: str, file: Path, names: Sequence[str], target: Target | None, repeats: int
) -> Section:
    section = Section(title)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    memory: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name in names:
            done = run(script("tables.py", "--read", name, file), memory=True)
            seconds[name].append(done.result["seconds"])
            memory[name].append(done.megabytes)
            log(f"{name}: {seconds[name][-1]:.2f} s, {memory[name][-1]:.0f} MB")
    ours = seconds["kindsight"]
    section.rows.append(Row("seconds", ours, "s", "limit", [2.0], at_most(2.0)))
    for name in names[1:]:
        # No target for NumPy, which only parses numbers.
        limit = None if name == "numpy" else target
        section.rows.append(Row("seconds", ours, "s", name, seconds[name], limit))
        section.rows.append(Row("memory", memory["kindsight"], "MB", name, memory[name]))
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    if options.read:
        read_once(*options.read)
        return
    warn_if_busy()
    with tempfile.TemporaryDirectory() as folder:
        sections = measure(options, Path(folder))
    print_sections(sections, options)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
