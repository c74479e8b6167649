"""Compare accuracy and time of transfer learning with and without ``--cached-copies``.

Whole processes, in turns, each with its own cache: the upper layers of EfficientNet-Lite0 are
trained for ten epochs on augmented images, on cached activations of a few copies per image or
on new copies in every epoch. The test split, a fifth of the images, is the same for both.

Examples
--------
::

    python benchmarks/cached_copies.py sign-digits/
    python benchmarks/cached_copies.py sign-digits/ --repeats 1 --limit 100
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from folders import class_files, first_of_each, lay_out
from output import Row, Section, add_output_options, print_sections, warn_if_busy
from processes import environment, kindsight, log, run

OPTIONS = (
    "--freeze", "stage5_out", "--augment", "light", "--dropout", 0.2, "--optimizer", "adam",
    "--learning-rate", 1e-4, "--epochs", 10, "--batch-size", 32, "--test", 0.2, "--quiet", "--json",
)  # fmt: skip
COPIES = 4


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path, help="a folder of class folders")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each  [default: 2]")
    parser.add_argument("--limit", type=int, metavar="N", help="about N images: a trial")
    add_output_options(parser)
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path) -> Section:
    """Train in turns and compare."""
    data = lay_out(first_of_each(class_files(options.data), options.limit), folder / "data")
    found: dict[int, list[dict[str, float]]] = {COPIES: [], 0: []}
    for number in range(options.repeats):
        for copies, results in found.items():
            with tempfile.TemporaryDirectory(dir=folder) as work:
                command = kindsight(
                    "train", data, *OPTIONS, "--runs", Path(work, "runs"), "--cached-copies", copies
                )
                done = run(command, env=environment(Path(work, "cache")))
            test = done.result["test"]
            results.append(
                {"seconds": done.seconds, **{k: test[k] for k in ("accuracy", "log_loss")}}
            )
            log(f"{number + 1}, {copies} cached copies: {results[-1]}")
    section = Section(f"{options.data.name}: {COPIES} cached copies compared with new copies")
    for figure, unit in (("accuracy", "%"), ("log_loss", "nats"), ("seconds", "s")):
        cached, new = ([each[figure] for each in results] for results in found.values())
        section.rows.append(Row(f"test: {figure.replace('_', ' ')}", cached, unit, "new", new))
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as folder:
        section = measure(options, Path(folder))
    print_sections([section], options, " (a trial on few images)" if options.limit else "")


if __name__ == "__main__":
    main()
