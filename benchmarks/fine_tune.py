"""Measure the speed of fine-tuning and its accuracy within time budgets.

Examples
--------
::

    python benchmarks/fine_tune.py rates cats-dogs/ --rivals-python ../kindsight-rivals/bin/python
    python benchmarks/fine_tune.py full cats-dogs/ --rivals-python ../kindsight-rivals/bin/python
    python benchmarks/fine_tune.py fastai cats-dogs/ elpv --rivals-python ...
    python benchmarks/fine_tune.py budget cats-dogs/ sign-digits/ elpv --budget 10m
    python benchmarks/fine_tune.py curve elpv --budgets 30s 2m 10m --repeats 1

``rates`` (the upper layers) and ``full`` (all layers) train kindsight and its rivals in turns on
the same images: kindsight runs a whole training, of which the epochs are timed; the rivals run bare
training loops over images in memory. ``fastai`` times whole processes. ``budget`` and ``curve``
score held-out test images; each training starts with an empty cache. Measure on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accuracy_job import load, make_splits, some_rows
from fixtures import Fixtures, Options
from folders import class_files, first_of_each, hold_out, lay_out
from output import Row, Section, Target, at_least, at_most, print_sections, warn_if_busy
from processes import environment, log, run, script

# Targets of the project for fine-tuning within ten minutes.
TARGETS = {"elpv": 0.895, "sign-digits": 0.99, "cats-dogs": 0.992}
MAKE_BARE_KERAS = """
import sys
from kindsight.models.backbones.efficientnet_lite import build_efficientnet_lite
from kindsight.models.backbones.weights import load_state
name, size = "efficientnet-lite0", (int(sys.argv[2]),) * 2
build_efficientnet_lite(name, size, load_state(name), None).save(sys.argv[1])
"""
# PyTorch's threads spin while waiting unless this is set; the faster setting counts.
TORCH_SETTINGS: tuple[dict[str, str], ...] = ({}, {"OMP_WAIT_POLICY": "passive"})
KERAS_SETTING = {"TF_ENABLE_ONEDNN_OPTS": "1"}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("rates", "full", "fastai", "budget", "curve"):
        command = commands.add_parser(name)
        command.add_argument("data", nargs="+", help="folders of class folders, or elpv")
        command.add_argument("--rivals-python", type=Path, metavar="PATH")
        command.add_argument("--repeats", type=int, default=1 if name == "fastai" else 2)
        command.add_argument("--size", type=int, help="pixels")
        command.add_argument("--limit", type=int, metavar="N", help="about N images: a trial")
        command.add_argument("--budget", default="10m")
        command.add_argument(
            "--passive", action="store_true", help="run PyTorch only with OMP_WAIT_POLICY=passive"
        )
        command.add_argument(
            "--splits", type=int, nargs="+", metavar="N", help="numbers of the splits, from"
            " 1  [default: the first --repeats]",
        )  # fmt: skip
        command.add_argument(
            "--epochs", type=int, nargs="+", default=[1, 3], help="epochs of fastai"
        )
        command.add_argument(
            "--models", nargs="+", default=["frozen", "light"],
            choices=["frozen", "light", "budget"], help="kindsight's models compared with fastai",
        )  # fmt: skip
        command.add_argument("--budgets", nargs="+", default=["30s", "1m", "2m", "5m", "10m"])
        command.add_argument("--json", type=Path, metavar="FILE")
        command.add_argument("--markdown", type=Path, metavar="FILE")
    worker = commands.add_parser("train-once")
    worker.add_argument("settings")
    return parser.parse_args(arguments)


def class_folders(data: str, options: argparse.Namespace, folder: Path) -> Path:
    """Return a folder of class folders; the images of ``elpv`` are written to a new one."""
    if data != "elpv":
        classes = first_of_each(class_files(Path(data)), options.limit)
        return lay_out(classes, folder / "all") if options.limit else Path(data).resolve()
    from PIL import Image

    dataset = load(data)
    for row in some_rows(dataset.label, options.limit):
        class_folder = folder / "all" / str(dataset.label[row])
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.load(row)).save(class_folder / f"{row:05d}.png")
    return folder / "all"


# Speed of an epoch ------------------------------------------------------------------------------


def train_once(settings: dict[str, Any]) -> None:
    """Train and print the seconds of each epoch, validation included."""
    from kindsight.runs.settings import TrainSettings
    from kindsight.runs.train import train
    from kindsight.training.fine_tuning import train as fine_tuning

    # The epochs are timed even if fine-tuning would reject their result.
    fine_tuning.is_clearly_better = lambda *_: True
    result = train(TrainSettings(**settings))
    assert result.history is not None
    last = result.history.rows()[-1].phase
    rows = [row for row in result.history if row.phase == last]
    output = {
        "epoch_seconds": [row.seconds for row in rows],
        "train": result.images["train"],
        "validation": result.images["validation"],
        "description": result.network,
    }
    print(json.dumps(output))


def write_arrays(data: Path, size: int, folder: Path, cache: Path) -> tuple[Path, Path]:
    """Write the resized images and their class indices as ``.npy`` files for the rivals."""
    from kindsight import ImageDataset
    from kindsight.cache.folder import Cache
    from kindsight.dataset.reading.image_cache import cache_images
    from kindsight.images import InputSpec

    dataset = ImageDataset.from_folder(str(data))
    files = folder / "pixels.npy", folder / "targets.npy"
    with cache_images(dataset, InputSpec(size, size), Cache(cache)) as stored:
        indices = {name: index for index, name in enumerate(stored.dataset.classes)}
        np.save(files[0], stored.pixels(np.arange(len(stored.dataset))))
        np.save(files[1], np.array([indices[str(label)] for label in stored.dataset.label]))
    return files


def images_per_second(output: dict[str, Any]) -> float:
    """Return the median training images per second of the epochs after the first."""
    seconds = output["epoch_seconds"]
    return float(output["train"] / statistics.median(seconds[1:] or seconds))


def measure_steps(options: argparse.Namespace, folder: Path) -> Section:
    """Time the epochs of kindsight and its rivals on the same images."""
    upper = options.command == "rates"
    size = options.size or (224 if upper else 160)
    layers = "the upper layers, from cached activations" if upper else "all layers"
    section = Section(f"Fine-tuning {layers}: EfficientNet-Lite0, {size} px, images per second")
    data = class_folders(options.data[0], options, folder)
    bare = folder / "bare.keras"
    run([sys.executable, "-c", MAKE_BARE_KERAS, str(bare), str(size)])
    pixels, targets = write_arrays(data, size, folder, folder / "pixels")
    common = ["--pixels", pixels, "--targets", targets, *(["--upper"] * upper)]
    ours: list[float] = []
    theirs: dict[str, list[float]] = {}
    memory = []

    def record(name: str, output: dict[str, Any]) -> None:
        theirs.setdefault(name, []).append(images_per_second(output))
        log(f"{name}: {theirs[name][-1]:.0f} images/s")

    for turn in range(options.repeats):
        settings = {
            "data": str(data), "runs": str(folder / f"runs-{turn}"), "size": size,
            "fine_tune": "light" if upper else "full",
        }  # fmt: skip
        command = script("fine_tune.py", "train-once", json.dumps(settings))
        done = run(command, env=environment(folder / "cache", **KERAS_SETTING), memory=True)
        ours.append(images_per_second(done.result))
        memory.append(done.megabytes)
        log(
            f"kindsight: {ours[-1]:.0f} images/s, {memory[-1]:.0f} MB; {done.result['description']}"
        )
        keras = script("rivals/keras_tune.py", "--backbone", bare, *common)
        record("Keras fit, oneDNN on", run(keras, env=environment(**KERAS_SETTING)).result)
        if options.rivals_python:
            torch = script("rivals/torch_tune.py", *common, python=options.rivals_python)
            outputs = [run(torch, env=environment(**more)).result for more in TORCH_SETTINGS]
            record("PyTorch channels_last", max(outputs, key=images_per_second))
    goals = {
        "Keras fit, oneDNN on": at_least(3.0, "ratio") if upper else None,
        "PyTorch channels_last": Target("above", 1.0) if upper else at_least(0.9, "ratio"),
    }
    for name, rates in theirs.items():
        section.rows.append(Row("epochs after the first", ours, "/s", name, rates, goals[name]))
    section.rows.append(Row("peak memory", [max(memory)], "MB", target=at_most(3000)))
    section.notes.append(
        "All train on four fifths of the images and validate on the rest after each epoch. "
        "kindsight's epochs are those in the history of a whole training."
    )
    return section


# Accuracy within a time budget -----------------------------------------------------------------


def measure_fastai(options: argparse.Namespace, folder: Path) -> Section:
    """Time whole trainings and score them on the same held-out images."""
    section = Section("fastai's fine_tune, the same images and ImageNet weights")
    fixtures = Fixtures(Options(), folder)
    for number, name in enumerate(options.data):
        work = folder / f"data-{number}"
        work.mkdir()
        train, test = hold_out(class_files(class_folders(name, options, work)))
        # fastai needs both in one folder.
        train_folder = lay_out(train, work / "split" / "train")
        test_folder = lay_out(test, work / "split" / "validation")
        short = Path(name).name
        results: dict[str, list[dict[str, Any]]] = {}
        for turn in range(options.repeats):
            for epochs in options.epochs:
                if not options.rivals_python:
                    break
                command = script(
                    "rivals/fastai_fine_tune.py", "--train", train_folder,
                    "--validation", test_folder, "--epochs", epochs, "--seed", turn,
                    python=options.rivals_python,
                )  # fmt: skip
                settings = TORCH_SETTINGS[options.passive :]
                done = min(
                    (run(command, env=environment(**more)) for more in settings),
                    key=lambda done: done.seconds,
                )
                result = {"accuracy": done.result["accuracy"], "seconds": done.seconds}
                results.setdefault(f"fine_tune({epochs})", []).append(result)
                log(f"{short}, fine_tune({epochs}): {result}")
            for model in options.models:
                runs = work / f"runs-{turn}"
                # fastai trains on all training images and does not search for duplicates. A
                # frozen head trains on all of them, too; fine-tuning validates on a tenth.
                arguments = {
                    "frozen": ["--validation", "0"],
                    "light": ["--fine-tune", "light", "--validation", "0.1"],
                    "budget": ["--budget", options.budget, "--validation", "0.1"],
                }
                command = [
                    sys.executable, "-m", "kindsight", "train", str(train_folder),
                    "--test-data", str(test_folder), "--leakage", "keep",
                    "--seed", str(turn), "--runs", str(runs), "--run", model, "--json",
                    *arguments[model],
                ]  # fmt: skip
                done = run(command, env=environment(fixtures.cold_cache()))
                accuracy = json.loads(done.output)["test"]["accuracy"]
                result = {"accuracy": accuracy, "seconds": done.seconds}
                results.setdefault(model, []).append(result)
                log(f"{short}, {model}: {result}")
        for model in options.models:
            for rival in (name for name in results if name.startswith("fine_tune(")):
                for figure, unit, target in (
                    ("accuracy", "%", Target("above", 1.0)), ("seconds", "s", Target("under", 1.0)),
                ):  # fmt: skip
                    ours, theirs = ([r[figure] for r in results[k]] for k in (model, rival))
                    text = f"{short}, {model}: {figure}"
                    section.rows.append(Row(text, ours, unit, f"fastai {rival}", theirs, target))
    return section


def fit_once(dataset: Any, train: Any, test: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit one classifier; return its test accuracy, training seconds and description."""
    from kindsight import ImageClassifier

    start = time.perf_counter()
    fitted = ImageClassifier(**settings).fit(dataset[train])
    seconds = time.perf_counter() - start
    accuracy = float(fitted.score(dataset[test]))
    return {"accuracy": accuracy, "seconds": seconds, "description": _describe(fitted)}


def _describe(fitted: Any) -> str:
    """Describe the fitted classifier and the time of each stage."""
    result = getattr(fitted, "fine_tuning_", None)
    if result is None:
        return str(fitted.head_.chosen.describe())
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    return f"{result.description} [{times}]"


def person_numbers(dataset: Any) -> Any:
    """Return the number of the person on each image of sign-digits.

    Each person showed the digits in ascending order, and the file numbers follow the recording.
    """
    files = [(Path(str(path)).stem, int(label)) for path, label in
             zip(dataset.path, dataset.label, strict=True)]  # fmt: skip
    order = sorted(range(len(files)), key=lambda row: (len(files[row][0]), files[row][0]))
    people, person, last = np.zeros(len(files), int), 0, -1
    for row in order:
        person += files[row][1] <= last
        people[row], last = person, files[row][1]
    return people


def with_groups(data: str, dataset: Any) -> Any:
    """Return the dataset; the persons of sign-digits become groups."""
    if Path(data).name != "sign-digits":
        return dataset
    return dataset.with_columns(group=[str(person) for person in person_numbers(dataset)])


def splits_for(data: str, dataset: Any) -> list[tuple[Any, Any]]:
    """Return (training, test) row indices per split; no person of sign-digits is in both."""
    if Path(data).name != "sign-digits":
        return make_splits(dataset.label, data != "elpv")
    from sklearn.model_selection import GroupKFold

    people = person_numbers(dataset)
    return list(GroupKFold(5).split(people, groups=people))


def measure_budgets(options: argparse.Namespace, folder: Path) -> Section:
    """Compare trainings within budgets with the frozen head on several splits."""
    budgets = [options.budget] if options.command == "budget" else options.budgets
    section = Section("Accuracy on held-out images within time budgets")
    for data in options.data:
        name, dataset = Path(data).name, load(data)
        dataset = with_groups(data, dataset[some_rows(dataset.label, options.limit)])
        splits = splits_for(data, dataset)
        numbers = options.splits or range(1, min(options.repeats, len(splits)) + 1)
        results: dict[str | None, list[dict[str, Any]]] = {}
        for number in numbers:
            train, test = splits[number - 1]
            for budget in (None, *budgets):
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    settings = {"size": options.size, "cache": cache, "seed": number - 1}
                    if budget is not None:
                        settings["budget"] = budget
                    result = fit_once(dataset, train, test, settings)
                results.setdefault(budget, []).append(result)
                log(f"{name} {number} of {len(splits)}, {budget or 'frozen'}: {result}")
        frozen = [result["accuracy"] for result in results[None]]
        for budget in budgets:
            ours = [result["accuracy"] for result in results[budget]]
            target = TARGETS.get(name) if budget == "10m" else None
            section.rows.append(
                Row(
                    f"{name}, {budget}: accuracy, mean of {len(ours)}",
                    [statistics.mean(ours)], "%", "frozen head", [statistics.mean(frozen)],
                    at_least(target) if target else None,
                )
            )  # fmt: skip
            ours, theirs = ([result["seconds"] for result in results[k]] for k in (budget, None))
            row = Row(f"{name}, {budget}: seconds", ours, "s", "frozen head", theirs)
            section.rows.append(row)
            section.notes.append(
                f"{name}, {budget}: "
                + "; ".join(f"{r['accuracy']:.2%}, {r['description']}" for r in results[budget])
            )
    return section


MEASURES = {
    "rates": measure_steps,
    "full": measure_steps,
    "fastai": measure_fastai,
    "budget": measure_budgets,
    "curve": measure_budgets,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = parse(arguments)
    if options.command == "train-once":
        settings = json.loads(options.settings)
        train_once(settings)
        return
    warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-") as name:
        sections = [MEASURES[options.command](options, Path(name))]
    print_sections(sections, options)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
