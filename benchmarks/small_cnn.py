"""Compare the training of a small CNN from random weights with Keras and PyTorch.

Example::

    python benchmarks/small_cnn.py --cats-dogs DIR --rivals-python ../kindsight-rivals/bin/python

Images a second over whole epochs, reading, augmentation and training together: 150x150, batches
of 20, the course's augmentation, each side in processes of its own and in turns. The first epoch
counts apart: in it kindsight has decoded every image before, and the others have not traced or
warmed up. ``--accuracy`` trains kindsight and the listing with three seeds each on the same
division, which takes long. Measure on an idle machine.
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
LISTING, TORCH = "Keras ImageDataGenerator and fit", "PyTorch channels_last, two workers"
# PyTorch's threads spin while waiting unless this is set; the faster setting counts.
TORCH_SETTINGS: tuple[dict[str, str], ...] = ({}, {"OMP_WAIT_POLICY": "passive"})


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cats-dogs", type=Path, metavar="DIR")
    parser.add_argument("--rivals-python", type=Path, metavar="PATH", help="see rivals/README.md")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="[default: 4]")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="[default: 3]; 0 times nothing"
    )
    parser.add_argument("--plain", action="store_true", help="without augmentation")
    parser.add_argument("--accuracy", action="store_true", help="compare accuracies, too")
    parser.add_argument("--accuracy-epochs", type=int, default=15, metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="RATE")
    parser.add_argument("--limit", type=int, metavar="N", help="about N images: a trial")
    add_output_options(parser)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


# kindsight, in a process of its own --------------------------------------------------------------


def train_once(settings: dict[str, Any]) -> None:
    """Train, and print when each epoch was over: whatever is done between two of them counts."""
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
                "stages": result.seconds,
            }
        )
    )


def kindsight(data: Path, folder: Path, options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Run :func:`train_once` in a process; return its result and the seconds."""
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


def listing(data: Path, options: argparse.Namespace, *more: object) -> dict[str, Any]:
    """Run Keras as installed."""
    command = script(
        "rivals/keras_listing.py", "--train", data, "--epochs", options.epochs,
        "--learning-rate", options.learning_rate, *(["--plain"] if options.plain else []), *more,
    )  # fmt: skip
    return run(command, env=environment()).result


def torch(data: Path, options: argparse.Namespace, setting: dict[str, str]) -> dict[str, Any]:
    """Run PyTorch's loop."""
    command = script(
        "rivals/torch_small_cnn.py", "--train", data, "--epochs", options.epochs,
        *(["--plain"] if options.plain else []), python=options.rivals_python,
    )  # fmt: skip
    return run(command, env=environment(**setting)).result


# In turns ----------------------------------------------------------------------------------------


def measure_speed(data: Path, options: argparse.Namespace, folder: Path) -> Section:
    """Time whole epochs of each side."""
    section = Section("Small CNN: images a second over whole epochs")
    rates: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    whole: defaultdict[str, list[float]] = defaultdict(list)

    def take(name: str, answer: dict[str, Any]) -> None:
        seconds = answer["epoch_seconds"]
        rates[name, "first"].append(answer["train"] / seconds[0])
        later = seconds[1:] or seconds
        rates[name, "later"].append(answer["train"] / statistics.median(later))
        whole[name].append(answer["seconds"])
        log(f"{name}: {rates[name, 'later'][-1]:.0f} images/s; {answer['seconds']:.1f} s in all")

    for turn in range(options.repeats):
        own = folder / f"turn-{turn}"
        own.mkdir()
        take("kindsight", kindsight(data, own, options))
        take(FLOAT32, kindsight(data, own / "float32", options, compute_dtype="float32"))
        take(LISTING, listing(data, options))
        if options.rivals_python is not None:
            answers = [torch(data, options, setting) for setting in TORCH_SETTINGS]
            take(TORCH, min(answers, key=lambda found: statistics.median(found["epoch_seconds"])))
    targets: dict[str, Target] = {LISTING: at_least(2.5, "ratio"), TORCH: Target("above", 1.0)}
    for name in [name for name in (LISTING, TORCH, FLOAT32) if whole[name]]:
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
        f"{options.epochs} epochs, no validation part. kindsight's whole process reads and resizes "
        "every image first (no image is in its cache), writes the classifier in both forms and "
        "compares them, and makes the report; the others only train."
    )
    return section


def measure_accuracy(data: Path, options: argparse.Namespace, folder: Path) -> Section:
    """Train both on the same split with several seeds."""
    section = Section("Small CNN: accuracy on the validation images, mean of the seeds")
    parts = hold_out(class_files(data))
    for name, files in zip(("train", "validation"), parts, strict=True):
        lay_out(files, folder / "divided" / name)
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    own = argparse.Namespace(**{**vars(options), "epochs": options.accuracy_epochs})
    for seed in options.seeds:
        answers = {
            "kindsight": kindsight(folder / "divided", folder, own, seed=seed),
            FLOAT32: kindsight(
                folder / "divided", folder, own, seed=seed, compute_dtype="float32"
            ),
            LISTING: listing(
                folder / "divided" / "train", own, "--validation",
                folder / "divided" / "validation", "--seed", seed,
            ),
        }  # fmt: skip
        for name, answer in answers.items():
            found[name, "last"].append(answer["accuracies"][-1])
            found[name, "best"].append(max(answer["accuracies"]))
            log(f"{name}, seed {seed}: {100 * answer['accuracies'][-1]:.1f}%")
    for what in ("last", "best"):
        section.rows += [
            Row(
                f"{what} epoch", [statistics.mean(found["kindsight", what])], "%", name,
                [statistics.mean(found[name, what])],
                at_least(1.0, "ratio") if (what, name) == ("last", LISTING) else None,
            )
            for name in (LISTING, FLOAT32)
        ]  # fmt: skip
        each = {name: found[name, what] for name in ("kindsight", LISTING, FLOAT32)}
        section.notes.append(
            f"{what} epoch by seed: "
            + "; ".join(
                f"{name} {', '.join(f'{100 * value:.1f}%' for value in values)}"
                for name, values in each.items()
            )
        )
    images = sum(map(len, parts[1].values()))
    section.notes.append(f"{own.epochs} epochs, {images:,} validation images.")
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    if options.run:
        train_once(json.loads(options.run))
        return
    if options.cats_dogs is None:
        raise SystemExit("This needs the images: --cats-dogs DIR.")
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
