"""Measure the speed of fine-tuning and its accuracy within time budgets.

Examples
--------
::

    python benchmarks/fine_tune.py rates cats-dogs/ --rivals-python ../kindsight-rivals/bin/python
    python benchmarks/fine_tune.py full cats-dogs/ --rivals-python ../kindsight-rivals/bin/python
    python benchmarks/fine_tune.py fastai cats-dogs/ elpv --rivals-python ...
    python benchmarks/fine_tune.py budget cats-dogs/ sign-digits/ elpv --budget 10m
    python benchmarks/fine_tune.py curve elpv --budgets 30s 2m 10m --repeats 1

``rates`` and ``full`` train on the same images in turns: kindsight as a whole training, of which
the epochs are timed, the others as bare loops over images in memory. ``fastai`` times whole
processes. ``budget`` and ``curve`` answer test images that no training has seen, each training
with a cache of its own, empty at first. Measure on an idle machine.
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
from kindsight.models.efficientnet_lite import build_efficientnet_lite
from kindsight.models.weights import load_state
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
            "--passive", action="store_true", help="PyTorch's threads wait passively, only"
        )
        command.add_argument(
            "--splits", type=int, nargs="+", metavar="N", help="which, from 1 on; the first"
            " --repeats if omitted",
        )  # fmt: skip
        command.add_argument("--epochs", type=int, nargs="+", default=[1, 3], help="of fastai")
        command.add_argument(
            "--ways", nargs="+", default=["frozen", "light"], choices=["frozen", "light", "budget"],
            help="of kindsight, beside fastai",
        )  # fmt: skip
        command.add_argument("--budgets", nargs="+", default=["30s", "1m", "2m", "5m", "10m"])
        command.add_argument("--json", type=Path, metavar="FILE")
        command.add_argument("--markdown", type=Path, metavar="FILE")
    own = commands.add_parser("train-once")
    own.add_argument("settings")
    return parser.parse_args(arguments)


def folder_of(data: str, options: argparse.Namespace, folder: Path) -> Path:
    """Return a folder of class folders of the images; those of ``elpv`` are written there."""
    if data != "elpv":
        classes = first_of_each(class_files(Path(data)), options.limit)
        return lay_out(classes, folder / "all") if options.limit else Path(data).resolve()
    from PIL import Image

    dataset = load(data)
    for row in some_rows(dataset.label, options.limit):
        place = folder / "all" / str(dataset.label[row])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.load(row)).save(place / f"{row:05d}.png")
    return folder / "all"


# Steps ------------------------------------------------------------------------------------------


def train_once(settings: dict[str, Any]) -> None:
    """Train, and print how long each epoch took, the judging of it included."""
    from kindsight.runs.settings import TrainSettings
    from kindsight.runs.train import train
    from kindsight.training.fine_tuning import train as fine_tuning

    # What is timed are the epochs, whether their result would be kept or not.
    fine_tuning.is_clearly_better = lambda *_: True
    result = train(TrainSettings(**settings))
    assert result.history is not None
    last = result.history.rows()[-1].phase
    rows = [row for row in result.history if row.phase == last]
    answer = {
        "epoch_seconds": [row.seconds for row in rows],
        "train": result.images["train"],
        "validation": result.images["validation"],
        "stages": result.seconds,
        "words": result.network,
    }
    print(json.dumps(answer))


def pixels_of(data: Path, size: int, folder: Path, cache: Path) -> tuple[Path, Path]:
    """Write the images, resized, and their classes, for whoever only trains."""
    from kindsight import ImageDataset
    from kindsight.cache.folder import Cache
    from kindsight.dataset.reading.image_cache import cache_images
    from kindsight.images import InputSpec

    dataset = ImageDataset.from_folder(str(data))
    files = folder / "pixels.npy", folder / "targets.npy"
    with cache_images(dataset, InputSpec(size, size), Cache(cache)) as stored:
        names = {name: place for place, name in enumerate(stored.dataset.classes)}
        np.save(files[0], stored.pixels(np.arange(len(stored.dataset))))
        np.save(files[1], np.array([names[str(label)] for label in stored.dataset.label]))
    return files


def rate_of(answer: dict[str, Any]) -> float:
    """Return images a second over the epochs after the first."""
    seconds = answer["epoch_seconds"]
    return float(answer["train"] / statistics.median(seconds[1:] or seconds))


def measure_steps(options: argparse.Namespace, folder: Path) -> Section:
    """Time the epochs of all sides on the same images."""
    upper = options.command == "rates"
    size = options.size or (224 if upper else 160)
    what = "the upper layers, from cached activations" if upper else "all layers"
    section = Section(f"Fine-tuning {what}: EfficientNet-Lite0, {size} px, images a second")
    data = folder_of(options.data[0], options, folder)
    bare = folder / "bare.keras"
    run([sys.executable, "-c", MAKE_BARE_KERAS, str(bare), str(size)])
    pixels = dict(zip(("--pixels", "--targets"), pixels_of(data, size, folder, folder / "px"),
                      strict=True))  # fmt: skip
    common = [str(part) for pair in pixels.items() for part in pair] + (["--upper"] * upper)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {}
    memory = []

    def take(name: str, answer: dict[str, Any]) -> None:
        theirs.setdefault(name, []).append(rate_of(answer))
        log(f"{name}: {theirs[name][-1]:.0f} images/s")

    for turn in range(options.repeats):
        settings = {
            "data": str(data), "runs": str(folder / f"runs-{turn}"), "size": size,
            "fine_tune": "light" if upper else "full",
        }  # fmt: skip
        command = script("fine_tune.py", "train-once", json.dumps(settings))
        done = run(command, env=environment(folder / "cache", **KERAS_SETTING), memory=True)
        ours.append(rate_of(done.result))
        memory.append(done.megabytes)
        log(f"kindsight: {ours[-1]:.0f} images/s, {memory[-1]:.0f} MB; {done.result['words']}")
        keras = script("rivals/keras_tune.py", "--backbone", bare, *common)
        take("Keras fit, oneDNN on", run(keras, env=environment(**KERAS_SETTING)).result)
        if options.rivals_python:
            torch = script("rivals/torch_tune.py", *common, python=options.rivals_python)
            found = [run(torch, env=environment(**more)).result for more in TORCH_SETTINGS]
            take("PyTorch channels_last", max(found, key=rate_of))
    targets = {
        "Keras fit, oneDNN on": at_least(3.0, "ratio") if upper else None,
        "PyTorch channels_last": Target("above", 1.0) if upper else at_least(0.9, "ratio"),
    }
    for name, rates in theirs.items():
        section.rows.append(Row("epochs after the first", ours, "/s", name, rates, targets[name]))
    section.rows.append(Row("peak memory", [max(memory)], "MB", target=at_most(3000)))
    section.notes.append(
        "All learn from four fifths of the images, and judge each epoch by the rest. kindsight's "
        "epochs are those of a whole training, as its history has them."
    )
    return section


# Accuracy in time -------------------------------------------------------------------------------


def measure_fastai(options: argparse.Namespace, folder: Path) -> Section:
    """Time whole trainings, and score them on the same validation images."""
    section = Section("fastai's fine_tune, the same images and ImageNet weights")
    work = Fixtures(Options(), folder)
    for number, name in enumerate(options.data):
        own = folder / f"data-{number}"
        own.mkdir()
        parts = hold_out(class_files(folder_of(name, options, own)))
        for part, files in zip(("train", "validation"), parts, strict=True):
            lay_out(files, own / "divided" / part)
        short = Path(name).name
        found: dict[str, list[dict[str, Any]]] = {}
        for turn in range(options.repeats):
            for epochs in options.epochs:
                if not options.rivals_python:
                    break
                command = script(
                    "rivals/fastai_fine_tune.py", "--train", own / "divided/train",
                    "--validation", own / "divided/validation", "--epochs", epochs,
                    "--seed", turn, python=options.rivals_python,
                )  # fmt: skip
                settings = TORCH_SETTINGS[options.passive :]
                done = min(
                    (run(command, env=environment(**more)) for more in settings),
                    key=lambda done: done.seconds,
                )
                take = {"accuracy": done.result["accuracy"], "seconds": done.seconds}
                found.setdefault(f"fine_tune({epochs})", []).append(take)
                log(f"{short}, fine_tune({epochs}): {take}")
            for kind in options.ways:
                runs = own / f"runs-{turn}"
                # fastai looks for no copies, and learns from all images; so does a frozen head,
                # while what is fine-tuned keeps a tenth of them to judge by.
                judged = ["--validation", "0.1"]
                ways = {
                    "frozen": ["--validation", "0"],
                    "light": ["--fine-tune", "light", *judged],
                    "budget": ["--budget", options.budget, *judged],
                }
                command = [
                    sys.executable, "-m", "kindsight", "train", str(own / "divided/train"),
                    "--test-data", str(own / "divided/validation"), "--leakage", "keep",
                    "--seed", str(turn), "--runs", str(runs), "--run", kind, "--json",
                    *ways[kind],
                ]  # fmt: skip
                done = run(command, env=environment(work.cold_cache()))
                told = json.loads(done.output)
                take = {"accuracy": told["test"]["accuracy"], "seconds": done.seconds}
                found.setdefault(kind, []).append(take)
                log(f"{short}, {kind}: {take}")
        for kind in options.ways:
            for rival in ("fine_tune(1)", "fine_tune(3)"):
                if rival not in found:
                    continue
                for figure, unit, wanted in (
                    ("accuracy", "%", Target("above", 1.0)), ("seconds", "s", Target("under", 1.0)),
                ):  # fmt: skip
                    ours, theirs = ([t[figure] for t in found[k]] for k in (kind, rival))
                    text = f"{short}, {kind}: {figure}"
                    section.rows.append(Row(text, ours, unit, f"fastai {rival}", theirs, wanted))
    return section


def fit_once(dataset: Any, train: Any, test: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit one classifier; return its accuracy, its seconds and what it is."""
    from kindsight import ImageClassifier

    start = time.perf_counter()
    fitted = ImageClassifier(**settings).fit(dataset[train])
    seconds = time.perf_counter() - start
    accuracy = float(fitted.score(dataset[test]))
    return {"accuracy": accuracy, "seconds": seconds, "words": _words(fitted)}


def _words(fitted: Any) -> str:
    """Describe the fitted classifier and the time of each stage."""
    tuning = getattr(fitted, "fine_tuning_", None)
    if tuning is None:
        return str(fitted.head_.chosen.describe())
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in tuning.seconds.items())
    return f"{tuning.description} [{took}]"


def people_of(dataset: Any) -> Any:
    """Return the number of the person on each image of sign-digits.

    Each showed the digits in their order, and the files are numbered as they were taken.
    """
    files = [(Path(str(path)).stem, int(label)) for path, label in
             zip(dataset.path, dataset.label, strict=True)]  # fmt: skip
    order = sorted(range(len(files)), key=lambda row: (len(files[row][0]), files[row][0]))
    people, person, last = np.zeros(len(files), int), 0, -1
    for row in order:
        person += files[row][1] <= last
        people[row], last = person, files[row][1]
    return people


def grouped(data: str, dataset: Any) -> Any:
    """Add the persons of sign-digits as groups."""
    if Path(data).name != "sign-digits":
        return dataset
    return dataset.with_columns(group=[str(person) for person in people_of(dataset)])


def splits_of(data: str, dataset: Any) -> list[tuple[Any, Any]]:
    """Return the splits of a dataset; each person's hands are on one side only."""
    if Path(data).name != "sign-digits":
        return make_splits(dataset.label, data != "elpv")
    from sklearn.model_selection import GroupKFold

    people = people_of(dataset)
    return list(GroupKFold(5).split(people, groups=people))


def measure_budgets(options: argparse.Namespace, folder: Path) -> Section:
    """Compare trainings within budgets with the frozen head on several splits."""
    budgets = [options.budget] if options.command == "budget" else options.budgets
    section = Section("Accuracy on held-out images within time budgets")
    for data in options.data:
        name, dataset = Path(data).name, load(data)
        dataset = grouped(data, dataset[some_rows(dataset.label, options.limit)])
        every = splits_of(data, dataset)
        chosen = options.splits or range(1, min(options.repeats, len(every)) + 1)
        found: dict[str | None, list[dict[str, Any]]] = {}
        for number in (place - 1 for place in chosen):
            train, test = every[number]
            for budget in (None, *budgets):
                with tempfile.TemporaryDirectory(dir=folder) as cache:
                    settings = {"size": options.size, "cache": cache, "seed": number}
                    if budget is not None:
                        settings["budget"] = budget
                    took = fit_once(dataset, train, test, settings)
                found.setdefault(budget, []).append(took)
                log(f"{name} {number + 1} of {len(every)}, {budget or 'frozen'}: {took}")
        frozen = [took["accuracy"] for took in found[None]]
        for budget in budgets:
            ours = [took["accuracy"] for took in found[budget]]
            wanted = TARGETS.get(name) if budget == "10m" else None
            section.rows.append(
                Row(
                    f"{name}, {budget}: accuracy, mean of {len(ours)}",
                    [statistics.mean(ours)], "%", "frozen head", [statistics.mean(frozen)],
                    at_least(wanted) if wanted else None,
                )
            )  # fmt: skip
            for figure in ("seconds",):
                ours, theirs = ([t[figure] for t in found[k]] for k in (budget, None))
                row = Row(f"{name}, {budget}: seconds", ours, "s", "frozen head", theirs)
                section.rows.append(row)
            section.notes.append(
                f"{name}, {budget}: "
                + "; ".join(f"{took['accuracy']:.2%}, {took['words']}" for took in found[budget])
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
