"""From the data of a report to its page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from kindsight.evaluation import ClassScores
from kindsight.report import axes, curves, epochs, figures, words
from kindsight.report.data import MAX_CARDS, Part, Problem, ReportData, ThumbnailCard
from kindsight.report.epochs import Epoch
from kindsight.report.templating import clean, environment, is_small_image
from kindsight.report.words import amount, percent

__all__ = [
    "prepare_report",
    "render_report",
    "sentences",
]

# SECTION: The sentences of a report on its curves: how the training went, read off the numbers.

# By how much the validation loss must have risen from its lowest to be told: as a share of it, and
# in nats. In as many epochs at the end, so that one that is worse by chance does not count.
RISEN, RISEN_NATS = 0.1, 0.01
IN_A_ROW = 2
# Share of the loss of guessing above which a network has learned next to nothing.
GUESSING = 0.97


def sentences(epochs: Sequence[Epoch], best: int | None, classes: int) -> list[str]:
    """Say which epoch was best, and whether the training went on too long or not long enough.

    Parameters
    ----------
    epochs : sequence of Epoch
        In order; at least one.
    best : int or None
        The best epoch.
    classes : int
        How many there are.
    """
    last = epochs[-1]
    said = [_best(epochs, best)]
    if any(not math.isfinite(row.loss) for row in epochs):
        said.append(
            "The training loss became infinite or no number: it diverged. A lower learning rate "
            "helps."
        )
    elif min(last.loss, last.loss if last.val_loss is None else last.val_loss) > (
        guess := GUESSING * math.log(classes)
    ):
        said.append(
            f"It has hardly begun to learn: the loss is still that of guessing, "
            f"{guess / GUESSING:.3f}. More epochs, another learning rate or less augmentation help."
        )
    elif last.val_loss is None:
        said.append("Without validation images nothing tells learning from learning by heart.")
    elif lowest := _overfitted(epochs):
        said.append(
            f"After epoch {lowest.epoch} the validation loss rose, from {lowest.val_loss:.3f} to "
            f"{last.val_loss:.3f}, while the training loss fell on: overfitting. More images, "
            "augmentation, dropout or fewer epochs help."
        )
    elif best == last.epoch and len(epochs) > 1:
        said.append("It was still getting better at the end: more epochs may help.")
    return said


def _best(epochs: Sequence[Epoch], best: int | None) -> str:
    start = f"The best of {amount(len(epochs), 'epoch')} was epoch {best}"
    if len(epochs) == 1:
        start = "After one epoch"
    for row in epochs:
        if row.epoch == best and row.val_accuracy is not None:
            return (
                f"{start}: {percent(row.val_accuracy)} of the "
                f"validation images right, with {percent(row.accuracy)} of the training images."
            )
        if row.epoch == best:
            return (
                f"{start}, by the training loss: {percent(row.accuracy)} of the training "
                "images right."
            )
    return f"The training took {amount(len(epochs), 'epoch')}."


def _overfitted(epochs: Sequence[Epoch]) -> Epoch | None:
    """Return the epoch of the lowest validation loss, if it went up from there for good."""
    losses = [math.nan if row.val_loss is None else row.val_loss for row in epochs]
    places = [place for place, loss in enumerate(losses) if math.isfinite(loss)]
    place = min(places, key=lambda place: losses[place], default=len(epochs))
    end = losses[-IN_A_ROW:]
    if place >= len(epochs) - IN_A_ROW:
        return None
    bound = max(losses[place] * (1 + RISEN), losses[place] + RISEN_NATS)
    risen = all(not loss <= bound for loss in end)
    return epochs[place] if risen and epochs[-1].loss < epochs[place].loss else None


TEMPLATES = ("report.html.j2", "macros.html.j2", "training.html.j2", "style.css")

MAX_MATRIX = 20
"""Classes up to which the confusion matrix is a table of numbers."""

MAX_PAIRS = 12
"""Pairs of confused classes listed beside a matrix too large for numbers."""

MAX_ROWS = 100
"""Rows of any one table on the page."""


class Tile(NamedTuple):
    """One score on the first screen: its name, its value, and what it means."""

    name: str
    value: str
    meaning: str


class Cell(NamedTuple):
    """One cell of the confusion table: a count and the style of its ground."""

    images: int
    style: str


def prepare_report() -> None:
    """Read the templates, so that a later report has them; on another thread, if you like."""
    for name in TEMPLATES:
        environment().get_template(name)


def render_report(data: ReportData) -> str:
    """Make the page of a run.

    Parameters
    ----------
    data : ReportData
        Names, paths and reasons in it may hold anything: they are escaped, shortened where
        they are very long, and freed of control characters.

    Returns
    -------
    str
        One HTML page that fetches nothing and runs no script, encodable as UTF-8. It stays
        under 1.5 MB with thumbnails of 128 pixels, whatever the number of classes and images.
    """
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            trained=data.trained_on,
            headline=words.headline(data),
            parts=[_part(part, data) for part in data.parts],
            cards={"mistakes": _cards(data.mistakes), "doubtful": _cards(data.doubtful)},
            heads=list(
                zip(
                    data.trained_on.choices,
                    figures.head_table(data.trained_on.choices),
                    strict=True,
                )
            ),
            history=_history(data),
            stages=figures.time_table(data.trained_on.seconds),
            counts=_counts(data),
            problems=_problems(data.problems),
            commands=_commands(data.run_folder),
            max_rows=MAX_ROWS,
        )
    )
    return clean(page)


def _part(part: Part, data: ReportData) -> dict[str, Any]:
    """Gather what the page says of one evaluation."""
    evaluation = part.evaluation
    large = len(evaluation.classes) > MAX_MATRIX
    filled = figures.confusion_table(evaluation)
    bins = figures.reliability_table(part.predictions) if part.predictions else []
    rows = list(zip(evaluation.classes, figures.class_table(evaluation), strict=True))
    return {
        "name": part.name,
        "evaluation": evaluation,
        "tiles": _tiles(part),
        "doubts": words.doubts(part),
        "comparison": figures.comparison_table(part, data.reference) if data.reference else [],
        "matrix": None if large else _matrix(part),
        "map": figures.draw_confusion(filled, len(evaluation.classes)) if large else None,
        "confused": words.top_confusions(evaluation, MAX_PAIRS),
        "rows": sorted(rows, key=_weakness)[:MAX_ROWS] if large else rows,
        "sorted": large,
        "bins": bins,
        "diagram": figures.draw_reliability(bins) if bins else None,
        "leaning": words.leaning(part),
    }


def _weakness(row: tuple[ClassScores, figures.Bound]) -> float:
    return math.inf if math.isnan(row[0].f1) else row[0].f1


def _tiles(part: Part) -> list[Tile]:
    evaluation = part.evaluation
    guess = math.log(len(evaluation.classes))
    return [
        Tile(
            "Accuracy",
            words.percent(evaluation.accuracy),
            f"share of {part.name} images right; "
            f"95% interval {words.interval(evaluation.accuracy_interval)}",
        ),
        Tile(
            "Balanced accuracy",
            words.percent(evaluation.balanced_accuracy),
            "the same with every class counting alike",
        ),
        Tile(
            "Macro F1",
            words.percent(evaluation.macro_f1),
            "precision and recall in one, mean over the classes",
        ),
        Tile(
            "Log loss",
            f"{evaluation.log_loss:.3f}",
            f"0 is perfect; giving every class the same chance is {guess:.3f}",
        ),
        Tile(
            "Calibration error",
            words.percent(evaluation.ece),
            "how far confidence is from the share right, on average",
        ),
    ]


def _matrix(part: Part) -> list[tuple[str, list[Cell]]]:
    """Give the confusion matrix as named rows of shaded counts."""
    evaluation = part.evaluation
    names = [score.name for score in evaluation.classes]
    style = {
        (cell.row, cell.column): ("right" if cell.row == cell.column else "wrong")
        + f" level{figures.heat(cell.share)}"
        for cell in figures.confusion_table(evaluation)
    }
    return [
        (
            name,
            [
                Cell(int(count), style.get((i, j), "none"))
                for j, count in enumerate(evaluation.confusion[i])
            ],
        )
        for i, name in enumerate(names)
    ]


def _cards(cards: tuple[ThumbnailCard, ...]) -> list[tuple[ThumbnailCard, str]]:
    """Pair each card that is shown with its image, or with "" where that is not a small image."""
    pairs = []
    for card in cards[:MAX_CARDS]:
        image = card.image or ""
        pairs.append((card, image if is_small_image(image) else ""))
    return pairs


def _history(data: ReportData) -> dict[str, Any] | None:
    """Gather what the page says of the epochs, if there are any."""
    rows, best = data.history, data.best_epoch
    if not rows:
        return None
    phases = epochs.phase_table(rows)
    return {
        "curves": [
            curves.draw_curve(epochs.curve_table(rows, best, quantity), quantity)
            for quantity in ("accuracy", "loss")
        ],
        "sentences": sentences(rows, best, len(data.trained_on.classes)),
        "phases": phases if len(phases) > 1 else [],
        "count": len(rows),
        "validated": rows[0].val_accuracy is not None,
        "best": best,
        "rows": axes.thinned(rows, MAX_ROWS, lambda row: row.epoch == best),
    }


def _counts(data: ReportData) -> list[tuple[str, list[int]]]:
    splits = data.trained_on.splits
    classes = list(data.trained_on.classes.items())[:MAX_ROWS]
    return [(name, [counts.get(split, 0) for split in splits]) for name, counts in classes]


def _problems(problems: tuple[Problem, ...]) -> dict[str, Any]:
    codes: dict[str, int] = {}
    for problem in problems:
        codes[problem.code] = codes.get(problem.code, 0) + 1
    return {
        "count": len(problems),
        "codes": sorted(codes.items(), key=lambda pair: -pair[1]),
        "rows": problems[:MAX_ROWS],
    }


def _commands(folder: str) -> list[str]:
    if not folder:
        return []
    quoted = shlex.quote(folder)
    return [f"kindsight predict {quoted} new/*.jpg", f"kindsight evaluate {quoted} photos-test/"]
