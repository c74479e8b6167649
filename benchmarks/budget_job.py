"""Compare a training with a time budget with a plain Keras CNN and the models it chooses from.

Example::

    python benchmarks/budget_job.py --cifar10 DIR --cats-dogs DIR --sign-digits DIR --glyphs DIR

``--glyphs DIR`` is written by ``glyphs.py`` if it does not exist. On each dataset, each in its own
process with an empty cache: ``budget``, ``ImageClassifier(budget="10m")``; ``keras``, a plain CNN
in eight lines of Keras with dropout, trained for the same time at the images' own size (at most 96
pixels); ``frozen``, the default; and ``scratch``, ``small-cnn`` with the preset ``modern``, with as
many epochs as fit. Test images are those of a ``test`` folder, or a stratified quarter.
``--budget 2m`` is a short version; ``--only`` selects jobs. Results are stored in ``--results``, so
that jobs can run at different times. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glyphs import write_glyphs
from output import Row, Section, add_output_options, at_least, print_sections, warn_if_busy
from processes import environment, log, run, script

DATASETS = ("cifar10", "glyphs", "cats-dogs", "sign-digits")
JOBS = ("frozen", "scratch", "keras", "budget")
TEST_FRACTION = 0.25
KERAS_SIDE = 96
# Accuracy that the budget may be behind the better of frozen and scratch, and must gain on cifar10.
CLOSE, GAIN = 0.005, 0.03
# Epochs are planned for this fraction of the budget, after one that measures the speed.
EPOCH_FRACTION = 0.85


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    for name in DATASETS:
        parser.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--budget", default="10m", metavar="TIME", help="[default: 10m]")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS, help="[default: all]")
    parser.add_argument("--limit", type=int, metavar="N", help="about N training images: a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--results", type=Path, default=Path("budget-results.json"), metavar="FILE",
        help="jobs that are in it are not run again  [default: budget-results.json]",
    )  # fmt: skip
    add_output_options(parser)
    parser.add_argument("--run", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


# One job, in its own process ----------------------------------------------------------------------


def load(data: Path, limit: int | None) -> tuple[Any, Any]:
    """Return training and test images: of ``train`` and ``test``, or split by a fixed seed."""
    from sklearn.model_selection import StratifiedShuffleSplit

    from accuracy_job import some_rows
    from kindsight import ImageDataset

    if (data / "train").is_dir() and (data / "test").is_dir():
        train, test = (ImageDataset.from_folder(data / name) for name in ("train", "test"))
    else:
        every = ImageDataset.from_folder(data)
        splitter = StratifiedShuffleSplit(1, test_size=TEST_FRACTION, random_state=0)
        rows = next(splitter.split(np.arange(len(every)), every.label))
        train, test = every[np.sort(rows[0])], every[np.sort(rows[1])]
    return train[some_rows(train.label, limit)], test


def measure(job: str, train: Any, test: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Train one classifier; return its test accuracy, the seconds, and the kind of model."""
    from kindsight import ImageClassifier
    from kindsight.training.frozen.settings import parse_budget

    seconds, start = parse_budget(options.budget), time.perf_counter()
    if job == "keras":
        accuracy, said = train_keras(train, test, seconds, options.seed)
        return {"accuracy": accuracy, "seconds": seconds, "model": said}
    if job == "scratch":
        settings = {"model": "small-cnn", "preset": "modern", "seed": options.seed}
        tried = ImageClassifier(**settings, epochs=1).fit(train)
        epoch = next(iter(tried.history_)).seconds
        left = EPOCH_FRACTION * (seconds - (time.perf_counter() - start))
        classifier = ImageClassifier(**settings, epochs=max(1, int(left / epoch)))
    else:
        budget = {"budget": options.budget} if job == "budget" else {}
        classifier = ImageClassifier(seed=options.seed, **budget)
    classifier.fit(train)
    taken = time.perf_counter() - start
    fine_tuning = getattr(classifier, "fine_tuning_", None)
    said = getattr(fine_tuning, "description", "") or classifier._fitted.describe()
    return {"accuracy": classifier.score(test), "seconds": taken, "model": said}


def train_keras(train: Any, test: Any, seconds: float, seed: int) -> tuple[float, str]:
    """Train a plain CNN on decoded images for a given time; return its test accuracy."""
    import keras

    from kindsight.dataset.properties import typical_sides

    sides = typical_sides(train)
    side = int(min(KERAS_SIDE, KERAS_SIDE if sides is None else sides[0]))
    images, labels = pixels(train, side), np.searchsorted(sorted(set(train.label)), train.label)
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((side, side, 3)), layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(128, 3, activation="relu"), layers.Flatten(), layers.Dropout(0.5),
        layers.Dense(256, activation="relu"), layers.Dropout(0.5),
        layers.Dense(len(set(train.label)), activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    until, epochs = time.monotonic() + seconds, 0

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        """Ends the training when the time is up."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = time.monotonic() >= until

    while time.monotonic() < until:
        model.fit(images, labels, batch_size=32, epochs=1, verbose=0, callbacks=[Clock()])
        epochs += 1
    found = model.predict(pixels(test, side), verbose=0).argmax(1)
    wanted = np.searchsorted(sorted(set(train.label)), test.label)
    return float((found == wanted).mean()), f"plain Keras CNN at {side} px, {epochs} epochs"


def pixels(dataset: Any, side: int) -> np.ndarray:
    """Return the images of a dataset at a size, uint8 (n, side, side, 3)."""
    from kindsight.images import InputSpec, read_loaded, resize_image

    spec = InputSpec(side, side)
    return np.stack(
        [resize_image(read_loaded(dataset.load(row), spec), spec) for row in range(len(dataset))]
    )


# All jobs -----------------------------------------------------------------------------------------


def run_jobs(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run the jobs that have no result yet; return the results by dataset and job."""
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in DATASETS:
        data = getattr(options, name.replace("-", "_"))
        if data is None:
            continue
        if name == "glyphs":
            write_glyphs(data)
        found = results.setdefault(f"{name} {options.budget} {options.limit or ''}".strip(), {})
        for job in options.only:
            if job in found:
                continue
            given = ["--run", job, "--data", data, "--budget", options.budget]
            given += ["--seed", options.seed]
            given += [] if options.limit is None else ["--limit", options.limit]
            with tempfile.TemporaryDirectory(prefix="kindsight-") as cache:
                done = run(script("budget_job.py", *given), env=environment(Path(cache)))
            found[job] = done.result
            log(f"{name}, {job}: {found[job]['accuracy']:.2%}, {found[job]['model']}")
            options.results.write_text(json.dumps(results, indent=2) + "\n")
    return results


def section(results: dict[str, dict[str, Any]]) -> Section:
    """Return the rows: accuracies on test images, with the targets."""
    found = Section("A time budget and networks from scratch")
    for name, jobs in results.items():
        if "budget" not in jobs:
            continue
        ours = [jobs["budget"]["accuracy"]]
        alone = [jobs[job]["accuracy"] for job in ("frozen", "scratch") if job in jobs]
        if len(alone) == 2:
            target = at_least(max(alone) - CLOSE)
            found.rows.append(
                Row(f"{name}", ours, "%", "better of frozen and scratch", [max(alone)], target)
            )
        if "keras" in jobs:
            theirs = [jobs["keras"]["accuracy"]]
            target = at_least(theirs[0]) if name.startswith("glyphs") else None
            found.rows.append(Row(f"{name}", ours, "%", "plain Keras CNN", theirs, target))
        if name.startswith("cifar10") and "frozen" in jobs:
            theirs = [jobs["frozen"]["accuracy"]]
            target = at_least(theirs[0] + GAIN)
            found.rows.append(Row(f"{name}", ours, "%", "frozen default", theirs, target))
        found.notes += [
            f"{name}, {job}: {result['accuracy']:.2%} in {result['seconds']:.0f} s, "
            f"{result['model']}"
            for job, result in jobs.items()
        ]
    return found


def main() -> None:
    """Run one job, or all of them."""
    options = parse()
    if options.run:
        train, test = load(options.data, options.limit)
        print(json.dumps(measure(options.run, train, test, options)))
        return
    warn_if_busy()
    print_sections([section(run_jobs(options))], options)


if __name__ == "__main__":
    main()
