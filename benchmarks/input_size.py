"""Compare the input size that is chosen for small images with the backbone's default.

Each training is a whole process with its own cache, which has only the built backbones, so that
features are computed. Both are tested on the same images; the difference of their accuracies has a
paired interval.

Examples
--------
::

    python benchmarks/input_size.py cifar10/
    python benchmarks/input_size.py cifar10/ --images 3000
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from folders import class_files, first_of_each, lay_out
from output import Row, Section, add_output_options, at_most, print_sections, warn_if_busy
from processes import environment, kindsight, log, run

OWN = 224
"""The size of the default backbone's own training images, in pixels."""
TEST_FRACTION = 1 / 3
"""Test images for each training image, with --images."""
BUILD = """
import sys
from kindsight.models.worker.process import KerasProcess
from kindsight.training.frozen.settings import FrozenTrainer
with KerasProcess() as keras:
    for size in sys.argv[1:]:
        FrozenTrainer(size=int(size)).backbone(process=keras)
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path, help="folder with train and test folders of classes")
    parser.add_argument("--images", type=int, metavar="N", help="about N training images: a trial")
    parser.add_argument("--repeats", type=int, default=1, help="trainings of each  [default: 1]")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    for name in ("train", "test"):
        if not (options.data / name).is_dir():
            parser.error(f"{options.data} must have a folder {name}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse(arguments)
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as temporary:
        folder = Path(temporary)
        built, data = build_backbones(folder), laid_out(options.data, folder, options.images)
        seconds: dict[str, list[float]] = {"chosen": [], "own": []}
        results: dict[str, dict[str, Any]] = {}
        for repeat in range(options.repeats):
            for name, size in (("chosen", []), ("own", ["--size", OWN])):
                cache = folder / f"cache-{name}-{repeat}"
                shutil.copytree(built, cache)
                command = kindsight("train", data, *size, "--runs", folder / "runs", "--json")
                done = run([*command, "--quiet"], env=environment(cache))
                seconds[name].append(done.seconds)
                results[name] = done.result
                log(f"{name} size: {done.seconds:.0f} s")
        section = compared(str(options.data), results, seconds)
    print_sections([section], options)


def build_backbones(folder: Path) -> Path:
    """Build the backbone for all sizes that may be tried; return the cache folder."""
    from kindsight.training.frozen.input_size import SIZES

    cache = folder / "cache-built"
    sizes = map(str, (*SIZES, OWN))
    run([sys.executable, "-c", BUILD, *sizes], env=environment(cache))
    return cache


def laid_out(data: Path, folder: Path, images: int | None) -> Path:
    """Return the data, or a copy with fewer images."""
    if images is None:
        return data
    for name, count in (("train", images), ("test", round(TEST_FRACTION * images))):
        lay_out(first_of_each(class_files(data / name), count), folder / "data" / name)
    return folder / "data"


def predictions(run_folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return which test images are predicted correctly, and -ln p(label) of each, by path."""
    with (run_folder / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    correct = np.array([row["label"] == row["prediction"] for row in rows])
    likely = np.array([float(row["p_" + row["label"]]) for row in rows])
    return correct, -np.log(np.maximum(likely, 1e-9))


def compared(
    name: str, results: dict[str, dict[str, Any]], seconds: dict[str, list[float]]
) -> Section:
    """Return the table of both trainings."""
    from kindsight.evaluation.paired import compare_pair

    (own, own_loss), (chosen, chosen_loss) = (
        predictions(Path(results[key]["run"])) for key in ("own", "chosen")
    )
    pair = compare_pair((own, chosen), (own_loss, chosen_loss))
    choice = results["chosen"].get("input_size", {"size": OWN, "tried": [OWN]})
    low, high = (100 * end for end in pair.interval)
    rival = f"--size {OWN}"
    return Section(
        f"Input size chosen for {name}",
        [
            Row("training, features computed", seconds["chosen"], "s", rival, seconds["own"],
                at_most(1 / 3, "ratio")),
            Row("test accuracy", [float(chosen.mean())], "%", rival, [float(own.mean())]),
            Row("test log loss", [float(chosen_loss.mean())], "nats", rival,
                [float(own_loss.mean())]),
        ],
        [
            f"{choice['size']} px was chosen; tried: {', '.join(map(str, choice['tried']))}.",
            f"Accuracy differs by {100 * pair.difference:+.2f} points (95% interval {low:+.2f} to "
            f"{high:+.2f}, {pair.images:,} images): "
            f"{'no loss beyond noise' if high >= 0 else 'A LOSS'}.",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
