"""Compare the training of a small CNN from random weights with Keras and PyTorch.

Example::

    python benchmarks/small_cnn.py --cats-dogs DIR --rivals-python ../kindsight-rivals/bin/python

Measures images per second over whole epochs (reading, augmentation and training) at 150x150 pixels
in batches of 20 with the course's augmentation. The libraries run in turns, each in its own
process. The first epoch is reported separately: kindsight has decoded every image before it, while
Keras and PyTorch still trace and warm up. ``--accuracy`` also trains kindsight and the course's
code with three seeds each on the same split, which takes long. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from folders import class_files, first_of_each, hold_out, lay_out
from output import Row, Section, Target, add_output_options, at_least, print_sections, warn_if_busy
from processes import environment, log, run, script

FLOAT32 = "kindsight, --compute-dtype float32"
COURSE, TORCH = "Keras ImageDataGenerator and fit", "PyTorch channels_last, two workers"
# PyTorch's threads spin while waiting unless this is set; the faster setting counts.
TORCH_SETTINGS: tuple[dict[str, str], ...] = ({}, {"OMP_WAIT_POLICY": "passive"})


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cats-dogs", type=Path, metavar="DIR")
    parser.add_argument("--rivals-python", type=Path, metavar="PATH", help="see rivals/README.md")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="[default: 4]")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="0 skips the timing  [default: 3]"
    )
    parser.add_argument("--plain", action="store_true", help="without augmentation")
    parser.add_argument("--accuracy", action="store_true", help="also compare accuracies")
    parser.add_argument("--accuracy-epochs", type=int, default=15, metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="RATE")
    parser.add_argument("--limit", type=int, metavar="N", help="about N images: a trial")
    add_output_options(parser)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


# kindsight, in its own process -------------------------------------------------------------------


def train_once(settings: dict[str, Any]) -> None:
    """Train and print the seconds from the end of each epoch to the end of the next."""
    from kindsight.runs.settings import TrainSettings
    from kindsight.runs.train import train

    class Callback:
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_start(self, epochs: int, done: int) -> None:
            self.ends.append(time.perf_counter())

        def on_step(self, *values: Any) -> None:
            pass

        def on_epoch(self, row: Any) -> None:
            self.ends.append(time.perf_counter())

    callback = Callback()
    result = train(TrainSettings(**settings), callback=callback)
    ends = callback.ends
    assert result.history is not None
    print(
        json.dumps(
            {
                "epoch_seconds": [b - a for a, b in itertools.pairwise(ends)],
                "train": result.images["train"],
                "accuracies": [row.val_accuracy for row in result.history],
            }
        )
    )


def kindsight(data: Path, folder: Path, options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Run :func:`train_once` in a process; return its output and the seconds of the process."""
    settings = {
        "data": str(data), "runs": str(folder / "runs"), "model": "small-cnn", "size": 150,
        "resize": "stretch", "batch_size": 20, "optimizer": "rmsprop", "validation": 0.0,
        "epochs": options.epochs, "learning_rate": options.learning_rate,
        "augment": "none" if options.plain else "classic", "final_weights": "last", **more,
    }  # fmt: skip
    command = script("small_cnn.py", "--run", json.dumps(settings))
    done = run(command, env=environment(folder / "cache"))
    return {**done.result, "seconds": done.seconds}


# The rivals --------------------------------------------------------------------------------------


def course(data: Path, options: argparse.Namespace, *more: object) -> dict[str, Any]:
    """Run the course's code on Keras as installed."""
    command = script(
        "rivals/keras_course.py", "--train", data, "--epochs", options.epochs,
        "--learning-rate", options.learning_rate, *(["--plain"] if options.plain else []), *more,
    )  # fmt: skip
    return run(command, env=environment()).result


def torch(data: Path, options: argparse.Namespace, setting: dict[str, str]) -> dict[str, Any]:
    """Run the training loop in PyTorch."""
    command = script(
        "rivals/torch_small_cnn.py", "--train", data, "--epochs", options.epochs,
        *(["--plain"] if options.plain else []), python=options.rivals_python,
    )  # fmt: skip
    return run(command, env=environment(**setting)).result


# Comparison --------------------------------------------------------------------------------------


def measure_speed(data: Path, options: argparse.Namespace, folder: Path) -> Section:
    """Time whole epochs of each library."""
    section = Section("Small CNN: images per second over whole epochs")
    rates: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    whole: defaultdict[str, list[float]] = defaultdict(list)

    def record(name: str, output: dict[str, Any]) -> None:
        seconds = output["epoch_seconds"]
        rates[name, "first"].append(output["train"] / seconds[0])
        later = seconds[1:] or seconds
        rates[name, "later"].append(output["train"] / statistics.median(later))
        whole[name].append(output["seconds"])
        log(f"{name}: {rates[name, 'later'][-1]:.0f} images/s; {output['seconds']:.1f} s in total")

    for turn in range(options.repeats):
        work = folder / f"turn-{turn}"
        work.mkdir()
        record("kindsight", kindsight(data, work, options))
        record(FLOAT32, kindsight(data, work / "float32", options, compute_dtype="float32"))
        record(COURSE, course(data, options))
        if options.rivals_python is not None:
            outputs = [torch(data, options, setting) for setting in TORCH_SETTINGS]
            record(TORCH, min(outputs, key=lambda out: statistics.median(out["epoch_seconds"])))
    targets: dict[str, Target] = {COURSE: at_least(2.5, "ratio"), TORCH: Target("above", 1.0)}
    for name in [name for name in (COURSE, TORCH, FLOAT32) if whole[name]]:
        section.rows += [
            Row(
                "epochs after the first", rates["kindsight", "later"], "/s", name,
                rates[name, "later"], targets.get(name),
            ),
            Row("first epoch", rates["kindsight", "first"], "/s", name, rates[name, "first"]),
            Row("whole process", whole["kindsight"], "s", name, whole[name]),
        ]  # fmt: skip
    if not whole[TORCH]:
        section.notes.append(f"Skipped without --rivals-python: {TORCH}.")
    section.notes.append(
        f"{options.epochs} epochs, no validation split. kindsight's process first reads and resizes"
        " every image (its cache is empty), and finally writes the model in both formats, compares "
        "them and writes the report; the others only train."
    )
    return section


def measure_accuracy(data: Path, options: argparse.Namespace, folder: Path) -> Section:
    """Train both on the same split with several seeds."""
    section = Section("Small CNN: accuracy on the validation images, mean of the seeds")
    train, validation = hold_out(class_files(data))
    split = folder / "split"
    lay_out(train, split / "train")
    lay_out(validation, split / "validation")
    accuracies: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    settings = argparse.Namespace(**{**vars(options), "epochs": options.accuracy_epochs})
    for seed in options.seeds:
        outputs = {
            "kindsight": kindsight(split, folder, settings, seed=seed),
            FLOAT32: kindsight(split, folder, settings, seed=seed, compute_dtype="float32"),
            COURSE: course(
                split / "train", settings, "--validation", split / "validation", "--seed", seed
            ),
        }
        for name, output in outputs.items():
            accuracies[name, "last"].append(output["accuracies"][-1])
            accuracies[name, "best"].append(max(output["accuracies"]))
            log(f"{name}, seed {seed}: {100 * output['accuracies'][-1]:.1f}%")
    for epoch in ("last", "best"):
        section.rows += [
            Row(
                f"{epoch} epoch", [statistics.mean(accuracies["kindsight", epoch])], "%", name,
                [statistics.mean(accuracies[name, epoch])],
                at_least(1.0, "ratio") if (epoch, name) == ("last", COURSE) else None,
            )
            for name in (COURSE, FLOAT32)
        ]  # fmt: skip
        each = {name: accuracies[name, epoch] for name in ("kindsight", COURSE, FLOAT32)}
        section.notes.append(
            f"{epoch} epoch by seed: "
            + "; ".join(
                f"{name} {', '.join(f'{100 * value:.1f}%' for value in values)}"
                for name, values in each.items()
            )
        )
    images = sum(map(len, validation.values()))
    section.notes.append(f"{settings.epochs} epochs, {images:,} validation images.")
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    if options.run:
        train_once(json.loads(options.run))
        return
    if options.cats_dogs is None:
        raise SystemExit("This benchmark needs images: --cats-dogs DIR.")
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as name:
        folder = Path(name)
        data = options.cats_dogs.resolve()
        if options.limit is not None:
            data = lay_out(first_of_each(class_files(data), options.limit), folder / "data")
        sections = [measure_speed(data, options, folder)] if options.repeats else []
        if options.accuracy:
            sections.append(measure_accuracy(data, options, folder))
    print_sections(sections, options)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
