"""``kindsight train`` and its rivals on the same images, held back the same, as processes."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import Row, Section, Target, at_least, at_most
from folders import class_files, hold_out, lay_out
from parts.training import train
from processes import environment, run, say, script
from workshop import Workshop

NO_SPINNING = {"OMP_WAIT_POLICY": "passive"}
# Each rival in PyTorch gets the setting of its threads that is faster on this machine.
TORCH_SETTINGS: tuple[Mapping[str, str], ...] = ({}, NO_SPINNING)
VYNTRI_SETTINGS: tuple[Mapping[str, str], ...] = (
    {},
    {**NO_SPINNING, "OPENBLAS_NUM_THREADS": "1"},
)
FASTAI_BATCH = 64


@dataclass(frozen=True)
class Rival:
    """A rival's script.

    Parameters
    ----------
    name : str
        As the table has it.
    file : str
        In the folder ``rivals``.
    python : pathlib.Path or None
        The Python that runs it; None for kindsight's own.
    arguments : sequence of object
        Besides the folders.
    settings : sequence of mapping
        Environments to try; the fastest counts.
    target : Target or None
        For kindsight's seconds over the rival's.
    """

    name: str
    file: str
    python: Path | None = None
    arguments: Sequence[object] = ()
    settings: Sequence[Mapping[str, str]] = ({},)
    target: Target | None = None


def measure(shop: Workshop) -> Section:
    """Time each side and compare what is right on the images held back."""
    section = Section("Rivals: whole training, the same images and ImageNet weights")
    train_files, validation_files = hold_out(class_files(shop.cats_dogs))
    data = shop.new_folder("rivals-data")
    lay_out(train_files, data / "train")
    lay_out(validation_files, data / "validation")
    ours, accuracies = [], []
    for _ in range(shop.options.repeats):
        done = train(data, shop.cold_cache(), shop.new_folder("runs"))
        ours.append(done.seconds)
        scored = done.answer["validation"]
        accuracies.append(counted(scored["accuracy"], scored["images"]))
        say(f"kindsight: {done.seconds:.2f} s, {100 * accuracies[-1]:.2f}%")
    counts = [sum(map(len, part.values())) for part in (train_files, validation_files)]
    section.notes.append(
        f"{counts[0]:,} images to train on, {counts[1]:,} to score. kindsight with no image "
        "cached. Keras and vyntri work as installed; a rival's row is its fastest setting."
    )
    for rival in _rivals(shop, counts[0], section):
        seconds, scores, setting = _time(shop, rival, data)
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


def counted(share: float, images: int) -> float:
    """Return the share of right answers that was rounded to `share`.

    The rivals print rounded shares, and 0.91667 is not to win against 11 of 12.
    """
    return round(share * images) / images


def _rivals(shop: Workshop, images: int, section: Section) -> list[Rival]:
    tenth = at_most(0.1, "ratio")
    recipe = Rival(
        "Keras recipe, 10 epochs",
        "keras_recipe.py",
        arguments=("--backbone", shop.bare_keras),
        target=tenth,
    )
    python = shop.options.rivals_python
    if python is None:
        section.notes.append("fastai and vyntri were left out: --rivals-python was not given.")
        return [recipe]
    # fastai leaves out the last, smaller batch, which in a trial may be all there is.
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
        "vyntri, tuned for it",
        "vyntri_same_weights.py",
        python,
        ("--workers", 2, "--channels-last"),
        VYNTRI_SETTINGS,
    )
    return [recipe, fastai, vyntri, tuned]


def _time(shop: Workshop, rival: Rival, data: Path) -> tuple[list[float], list[float], str]:
    """Return seconds and accuracies of the fastest setting, and that setting in words."""
    folders = ("--train", data / "train", "--validation", data / "validation")
    python = rival.python or sys.executable
    command = script(f"rivals/{rival.file}", *folders, *rival.arguments, python=python)
    tried = []
    for setting in rival.settings:
        words = " ".join(f"{name}={value}" for name, value in setting.items())
        seconds, scores = [], []
        for _ in range(shop.options.rival_repeats):
            done = run(command, env=environment(None, **setting))
            seconds.append(done.seconds)
            scores.append(counted(done.answer["accuracy"], done.answer["validation"]))
            say(f"{rival.name} {words}: {done.seconds:.1f} s, {100 * scores[-1]:.2f}%")
        tried.append((seconds, scores, words))
    return min(tried, key=lambda item: statistics.median(item[0]))
