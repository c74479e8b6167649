"""``kindsight train`` and its rivals on the same training and validation images."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fixtures import Fixtures
from folders import class_files, hold_out, lay_out
from output import Row, Section, Target, at_least, at_most
from processes import environment, log, run, script
from sections.training import train

NO_SPINNING = {"OMP_WAIT_POLICY": "passive"}
# Every rival in PyTorch runs with each thread setting; the fastest is reported.
TORCH_SETTINGS: tuple[Mapping[str, str], ...] = ({}, NO_SPINNING)
VYNTRI_SETTINGS: tuple[Mapping[str, str], ...] = (
    {},
    {**NO_SPINNING, "OPENBLAS_NUM_THREADS": "1"},
)
FASTAI_BATCH = 64


@dataclass(frozen=True)
class Rival:
    """A rival's script in the folder ``rivals``.

    `python` runs it (None: this Python), `arguments` follow the folders, `settings` are
    environments of which the fastest is reported, `target` limits the ratio of seconds.
    """

    name: str
    file: str
    python: Path | None = None
    arguments: Sequence[object] = ()
    settings: Sequence[Mapping[str, str]] = ({},)
    target: Target | None = None


def measure(fixtures: Fixtures) -> Section:
    """Compare seconds and validation accuracy."""
    section = Section("Rivals: whole training, the same images and ImageNet weights")
    train_files, validation_files = hold_out(class_files(fixtures.cats_dogs))
    data = fixtures.new_folder("rivals-data")
    lay_out(train_files, data / "train")
    lay_out(validation_files, data / "validation")
    ours, accuracies = [], []
    for _ in range(fixtures.options.repeats):
        done = train(data, fixtures.cold_cache(), fixtures.new_folder("runs"))
        ours.append(done.seconds)
        scored = done.result["validation"]
        accuracies.append(exact_fraction(scored["accuracy"], scored["images"]))
        log(f"kindsight: {done.seconds:.2f} s, {100 * accuracies[-1]:.2f}%")
    counts = [sum(map(len, files.values())) for files in (train_files, validation_files)]
    section.notes.append(
        f"{counts[0]:,} training images, {counts[1]:,} validation images. kindsight starts with "
        "an empty cache. Keras and vyntri run as installed; a rival's row is its fastest setting."
    )
    for rival in _rivals(fixtures, counts[0], section):
        seconds, scores, setting = _time(fixtures, rival, data)
        if setting:
            section.notes.append(f"{rival.name} is faster with {setting} and was timed with it.")
        section.rows += [
            Row(f"seconds, against {rival.name}", ours, "s", rival.name, seconds, rival.target),
            Row(
                f"accuracy, against {rival.name}",
                accuracies,
                "%",
                rival.name,
                scores,
                at_least(1.0, "ratio") if rival.target else None,
            ),
        ]
    return section


def exact_fraction(accuracy: float, images: int) -> float:
    """Return the fraction of `images` that was rounded to `accuracy`.

    The rivals print rounded accuracies; 0.91667 must tie with 11 of 12.
    """
    return round(accuracy * images) / images


def _rivals(fixtures: Fixtures, images: int, section: Section) -> list[Rival]:
    tenth = at_most(0.1, "ratio")
    recipe = Rival(
        "Keras recipe, 10 epochs",
        "keras_recipe.py",
        arguments=("--backbone", fixtures.keras_backbone),
        target=tenth,
    )
    python = fixtures.options.rivals_python
    if python is None:
        section.notes.append("fastai and vyntri were skipped: they need --rivals-python.")
        return [recipe]
    # fastai drops the last, smaller batch, which in a trial may be the only one.
    batch = ("--batch", max(2, images // 4)) if images < 2 * FASTAI_BATCH else ()
    fastai = Rival(
        "fastai fine_tune(1)", "fastai_fine_tune.py", python, batch, TORCH_SETTINGS, tenth
    )
    vyntri = Rival(
        "vyntri",
        "vyntri_same_weights.py",
        python,
        settings=VYNTRI_SETTINGS,
        target=Target("under", 1.0),
    )
    tuned = Rival(
        "vyntri, tuned settings",
        "vyntri_same_weights.py",
        python,
        ("--workers", 2, "--channels-last"),
        VYNTRI_SETTINGS,
    )
    return [recipe, fastai, vyntri, tuned]


def _time(fixtures: Fixtures, rival: Rival, data: Path) -> tuple[list[float], list[float], str]:
    """Return seconds and accuracies of the fastest setting, and that setting as text."""
    folders = ("--train", data / "train", "--validation", data / "validation")
    python = rival.python or sys.executable
    command = script(f"rivals/{rival.file}", *folders, *rival.arguments, python=python)
    tried = []
    for setting in rival.settings:
        words = " ".join(f"{name}={value}" for name, value in setting.items())
        seconds, scores = [], []
        for _ in range(fixtures.options.rival_repeats):
            done = run(command, env=environment(None, **setting))
            seconds.append(done.seconds)
            scores.append(exact_fraction(done.result["accuracy"], done.result["validation"]))
            log(f"{rival.name} {words}: {done.seconds:.1f} s, {100 * scores[-1]:.2f}%")
        tried.append((seconds, scores, words))
    return min(tried, key=lambda item: statistics.median(item[0]))
