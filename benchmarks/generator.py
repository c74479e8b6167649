"""Compare kindsight's ImageDataGenerator with Keras's and with other libraries.

Example::

    python benchmarks/generator.py --cats-dogs DIR --rivals-python ../kindsight-rivals/bin/python

All read the same files in separate processes, in turns: 150x150, batches of 20, with the usual
augmentation and without, the first epoch and those after it. torchvision and albumentations run in
the rivals' environment (rivals/README.md) and are skipped without it.
Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from folders import class_files, first_of_each, lay_out
from output import Row, Section, Target, add_output_options, at_least, print_sections, warn_if_busy
from processes import environment, log, run, script

NAMES = {
    "keras": "Keras's ImageDataGenerator",
    "tfdata": "tf.data with Keras layers",
    "tfdata_replayed": "tf.data with cached batches",
    "torchvision": "torchvision v2 with DataLoader",
    "albumentations": "albumentations with DataLoader",
}
ELSEWHERE = ("torchvision", "albumentations")
JOBS = {"course": "augmentation", "none": "no augmentation"}
FASTER = Target("above", 1.0, "ratio")
# Shown without a target: less work than the others do.
NO_TARGET = ("tfdata_replayed",)
# Ratios to Keras's generator in the first and in later epochs.
TARGETS = {
    ("course", "first"): at_least(4.0, "ratio"),
    ("course", "later"): at_least(10.0, "ratio"),
    ("none", "first"): at_least(1.5, "ratio"),
    ("none", "later"): at_least(8.0, "ratio"),
}
WORDS = {"first": "first epoch", "later": "later epochs"}

Rates = defaultdict[tuple[str, str, str], list[float]]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--cats-dogs", type=Path, required=True, metavar="DIR", help="images in class folders"
    )
    parser.add_argument("--rivals-python", type=Path, metavar="PATH", help="see rivals/README.md")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="[default: 3]")
    parser.add_argument(
        "--epochs", type=int, default=3, metavar="N", help="after the first  [default: 3]"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use about N images: a trial")
    add_output_options(parser)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path) -> Section:
    """Run the libraries in turns; compare images per second."""
    section = Section("Class folders to batches: 150x150, batches of 20, float32 from 0 to 1")
    sides = ["kindsight", *NAMES]
    if options.rivals_python is None:
        sides = [side for side in sides if side not in ELSEWHERE]
        section.notes.append(f"Skipped without --rivals-python: {', '.join(ELSEWHERE)}.")
    rates: Rates = defaultdict(list)
    for _ in range(options.repeats):
        for job, words in JOBS.items():
            for side in sides:
                first, *later = _rates(side, job, options, folder)
                rates[side, job, "first"].append(first)
                rates[side, job, "later"] += later
                after = f", then {max(later):,.0f}" if later else ""
                log(f"{side}, {words}: {first:,.0f}{after} images/s")
    section.rows = [
        _row(rates, side, job, when) for side in sides[1:] for job in JOBS for when in WORDS
    ]
    section.notes.append(
        "The first epoch includes listing the folders, not the import of libraries. tf.data caches "
        "resized images in memory and shuffles them in every epoch, as the generators do. With "
        "cached batches, later epochs have the same batches in the same order; no target. The "
        "DataLoaders have two workers and read the files in every epoch."
    )
    return section


def _row(rates: Rates, side: str, job: str, when: str) -> Row:
    return Row(
        f"{JOBS[job]}, {WORDS[when]}",
        rates["kindsight", job, when],
        "/s",
        NAMES[side],
        rates[side, job, when],
        TARGETS[job, when] if side == "keras" else None if side in NO_TARGET else FASTER,
    )


def _rates(side: str, job: str, options: argparse.Namespace, folder: Path) -> list[float]:
    python = options.rivals_python if side in ELSEWHERE else Path(sys.executable)
    settings = environment(TF_CPP_MIN_LOG_LEVEL="2", NO_ALBUMENTATIONS_UPDATE="1")
    arguments = [side, job, folder, "--epochs", 1 + options.epochs]
    command = script("generator_epochs.py", *arguments, python=python)
    found: list[float] = run(command, env=settings).result["rates"]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as name:
        files = first_of_each(class_files(options.cats_dogs), options.limit)
        section = measure(options, lay_out(files, Path(name) / "photos"))
    print_sections([section], options, " (a trial on few images)" if options.limit else "")


if __name__ == "__main__":
    main()
