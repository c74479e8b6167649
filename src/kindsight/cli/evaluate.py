"""``kindsight evaluate``: how good a classifier is on labelled images."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    Column,
    DataOf,
    Debug,
    Json,
    LabelFrom,
    LabelNames,
    PixelShape,
    Quiet,
    Root,
    Workers,
    columns_of,
    names_of,
)
from kindsight.cli.terminal.progress import Progress
from kindsight.cli.terminal.summary import facts, headline, reasons
from kindsight.cli.terminal.text import (
    Paint,
    cells,
    hanging,
    line_width,
    note,
    pad,
    print_json,
    printable,
    say,
    table,
)
from kindsight.dataset import ImageDataset
from kindsight.errors import DatasetError, SettingsError
from kindsight.predictor import Prediction, Predictor
from kindsight.report.format import amount, elide, interval, percent
from kindsight.report.summary import top_confusions

if TYPE_CHECKING:
    from kindsight.dataset import ImageDataset
    from kindsight.evaluation import Evaluation
    from kindsight.predictor import DatasetEvaluation
    from kindsight.trained_images import TrainingImageDetector

__all__ = [
    "WatchedPredictor",
    "choose_split",
    "class_lines",
    "confusion_lines",
    "evaluate",
    "evaluation_lines",
    "score_lines",
    "scores_to_dict",
]

SPLITS = ("test", "validation", "train", "all")
TRAINED_ON_FILE = "trained_on.npz"


def evaluate(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="A run's folder, or another bundle.")],
    data: Annotated[
        str,
        typer.Argument(help=DataOf),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPLITS),
            help="Which part of data that are divided.  [default: test, else validation]",
        ),
    ] = None,
    label_from: LabelFrom = None,
    column: Column = None,
    label_names: LabelNames = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a classifier on labelled images.

    Images that cannot be read, and classes that the classifier does not know, are named and
    not scored; the exit code is 0 all the same.

    Example: kindsight evaluate runs/photos-1 photos-test/
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.dataset import DataOptions, open_dataset

    options = DataOptions(
        label_from=label_from,
        columns=columns_of(column) or {},
        label_names=names_of(label_names) or (),
        pixel_shape=pixel_shape,
        root=root,
    )
    predictor = WatchedPredictor(bundle, workers=workers)
    dataset = open_dataset(data, options, min_classes=1, classes=predictor.classes)
    dataset, part = choose_split(dataset, split)
    if not quiet:
        for finding in dataset.notes:
            note(finding)
        recorded = (Path(bundle) / TRAINED_ON_FILE).exists()  # then it is said image by image
        if part in ("", "train") and not recorded and _was_trained_on(bundle, data):
            note(
                "the classifier was trained on these data and has seen most of these images; "
                "how good it is shows on others."
            )
    _check_known(dataset, predictor.classes)
    with watching(quiet) as progress:
        predictor.progress = progress
        scores = predictor.evaluate(dataset)
    if json:
        print_json(scores_to_dict(scores))
    else:
        say(*score_lines(scores, f"{bundle} on {data}" + (f", {part} part" if part else "")))


def choose_split(dataset: ImageDataset, wanted: str | None) -> tuple[ImageDataset, str]:
    """Return the images of one part, and the part's name; ``""`` where there are no parts.

    Parameters
    ----------
    dataset : ImageDataset
        Of a whole folder.
    wanted : str, optional
        ``"test"``, ``"validation"``, ``"train"`` or ``"all"``; if omitted the first of these
        that has images.

    Raises
    ------
    SettingsError
        For another name, or a part that has no images.
    """
    if wanted is not None and wanted not in SPLITS:
        raise SettingsError(f"--split must be one of {', '.join(SPLITS)}. Received: {wanted!r}.")
    there = [name for name in SPLITS if name in dataset.split]
    if wanted == "all" or (wanted is None and not there):
        return dataset, ""
    if wanted is not None and wanted not in there:
        found = ", ".join(there) or "no parts"
        raise SettingsError(
            f"--split must name a part of the data. Received: {wanted}; the data have {found}."
        )
    part = wanted or there[0]
    return dataset.where(split=part), part


def _was_trained_on(bundle: str, data: str) -> bool:
    """Whether the run's own settings name this very folder."""
    from kindsight.runs.settings import TrainSettings

    try:
        settings = TrainSettings.from_toml(Path(bundle) / "settings.toml")
    except SettingsError:  # a bundle that is no run, or has been given away
        return False
    return Path(settings.data).resolve() == Path(data).resolve()


def _check_known(dataset: ImageDataset, classes: tuple[str, ...]) -> None:
    if not set(classes) & set(dataset.label):
        from kindsight.dataset.names import shown_list

        raise DatasetError(
            "The data must have a class that the classifier knows. Received: "
            f"{shown_list(dataset.present_classes())}; it knows {shown_list(classes)}."
        )


def scores_to_dict(scores: DatasetEvaluation) -> dict[str, Any]:
    """Return what ``--json`` prints.

    Returns
    -------
    dict
        The keys of :meth:`kindsight.evaluation.Evaluation.to_dict`, and ``unknown_classes``
        (class to number of images, not scored), ``absent_classes`` (classes without images in
        the data), ``trained_on`` (``images``: how many were trained on; ``without``: the
        evaluation of the others or None; None if unknown) and ``skipped`` (a list of path, code
        and message).
    """
    return {
        **scores.evaluation.to_dict(),
        "unknown_classes": scores.unknown_classes,
        "absent_classes": list(scores.absent_classes),
        "trained_on": _trained_on(scores),
        "skipped": [
            {"path": problem.path, "code": problem.code, "message": problem.reason}
            for problem in scores.problems
        ],
    }


def _trained_on(scores: DatasetEvaluation) -> dict[str, Any] | None:
    if scores.trained_on is None:
        return None
    unseen = scores.evaluate_unseen() if scores.trained_on.any() else scores.evaluation
    return {
        "images": int(scores.trained_on.sum()),
        "without": None if unseen is None else unseen.to_dict(),
    }


# SECTION: An evaluation as text: the scores, a row for each class, and what is taken for what.

WIDEST_NAME = 30
MOST_CLASSES = 15
"""Classes up to which the confusion matrix is written out."""
CONFUSIONS = 10
PROBLEMS = 10


def score_lines(scores: DatasetEvaluation, title: str) -> Iterator[str]:
    """Yield everything that ``kindsight evaluate`` prints.

    Parameters
    ----------
    scores : DatasetEvaluation
        As :meth:`kindsight.predictor.Predictor.evaluate` gives it.
    title : str
        Which classifier on which data.
    """
    paint = Paint(sys.stdout)
    yield paint(printable(title), "bold")
    yield ""
    yield from evaluation_lines(scores.evaluation, "image", paint)
    yield from _trained_on_rows(scores, paint)
    yield from _left_out(scores, paint)


def evaluation_lines(evaluation: Evaluation, what: str, paint: Paint) -> Iterator[str]:
    """Yield the scores, the table of classes, and the confusions."""
    yield headline(evaluation, what, paint)
    yield ""
    rows = {
        "balanced": f"{percent(evaluation.balanced_accuracy)} balanced accuracy, the mean recall "
        "of the classes",
        "macro F1": percent(evaluation.macro_f1),
        "log loss": f"{evaluation.log_loss:.4f}",
        "ECE": f"{percent(evaluation.ece)} expected calibration error: how far confidence is off",
    }
    yield from facts(rows, paint)
    yield ""
    yield from class_lines(evaluation, paint)
    yield ""
    yield from confusion_lines(evaluation, paint, line_width())


def class_lines(evaluation: Evaluation, paint: Paint) -> list[str]:
    """Lay out one row a class: images, precision, recall with its interval, F1."""
    header = ("class", "images", "precision", "recall", "95% interval", "F1")
    rows = []
    for score in evaluation.classes:
        ends = interval(score.recall_interval) if score.support else _share(math.nan)
        shares = (_share(score.precision), _share(score.recall), ends, _share(score.f1))
        rows.append((_name(score.name), f"{score.support:,}", *shares))
    return table(header, rows, paint=paint)


def confusion_lines(evaluation: Evaluation, paint: Paint, width: int) -> Iterator[str]:
    """Yield the confusion matrix where it fits, else the commonest mistakes."""
    if len(evaluation.classes) <= MOST_CLASSES:
        lines = list(_matrix(evaluation, Paint.none()))
        if max(map(cells, lines)) <= width:
            yield from _matrix(evaluation, paint)
            return
    pairs = top_confusions(evaluation, CONFUSIONS)
    if not pairs:
        return
    yield paint("  most often confused", "dim")
    for label, prediction, count, share in pairs:
        pair = f"{_name(label)} taken for {_name(prediction)}"
        yield f"  {pair}: {count:,} ({percent(share)} of its images)"


def _matrix(evaluation: Evaluation, paint: Paint) -> Iterator[str]:
    names = [_name(score.name) for score in evaluation.classes]
    head = max(*map(cells, names), len("label"))
    longest = len(f"{int(evaluation.confusion.max()):,}")
    widths = [max(cells(name), longest) for name in names]
    titles = "  ".join(pad(n, w, right=True) for n, w in zip(names, widths, strict=True))
    yield paint("  rows: labels; columns: predictions", "dim")
    yield paint(f"  {pad('', head)}  {titles}", "dim")
    for place, row in enumerate(evaluation.confusion.tolist()):
        numbers = []
        for column, count in enumerate(row):
            text = pad(f"{count:,}" if count else ".", widths[column], right=True)
            style = ("green",) if column == place else ("yellow",) if count else ("dim",)
            numbers.append(paint(text, *style))
        yield f"  {pad(names[place], head)}  {'  '.join(numbers)}"


def _trained_on_rows(scores: DatasetEvaluation, paint: Paint) -> Iterator[str]:
    """Say how good it is without the images that it has learned."""
    if scores.trained_on is None or not scores.trained_on.any():
        return
    n = int(scores.trained_on.sum())
    unseen = scores.evaluate_unseen()
    yield ""
    yield paint(
        f"It was trained on {amount(n, 'image')} of these, or on copies of them; accuracy on "
        "them says little.",
        "yellow",
    )
    if unseen is None:
        yield "Without them none is left."
    else:
        yield f"Without them: {headline(unseen, 'image', paint)}"


def _left_out(scores: DatasetEvaluation, paint: Paint) -> Iterator[str]:
    """Name what was not scored."""
    unknown = ", ".join(f"{_name(name)} ({n:,})" for name, n in scores.unknown_classes.items())
    absent = ", ".join(map(_name, scores.absent_classes))
    rows = {
        "unknown": f"not scored, as the classifier does not know the class: {unknown}",
        "absent": f"no image of: {absent}",
        "set aside": f"{amount(len(scores.problems), 'image')} could not be read: "
        f"{reasons(problem.code for problem in scores.problems)}",
    }
    there = {
        "unknown": scores.unknown_classes,
        "absent": scores.absent_classes,
        "set aside": scores.problems,
    }
    kept = {name: text for name, text in rows.items() if there[name]}
    if kept:
        yield ""
        yield from facts(kept, paint)
    for problem in scores.problems[:PROBLEMS]:
        text = printable(f"{problem.path}: {problem.reason}")
        yield from hanging("", text, indent=14, paint=paint, width=line_width())
    if len(scores.problems) > PROBLEMS:
        yield f"{' ' * 14}and {len(scores.problems) - PROBLEMS:,} more; --json lists all"


def _name(name: str) -> str:
    return printable(elide(name, WIDEST_NAME))


def _share(value: float) -> str:
    return percent(value)


# SECTION: A predictor that says how far its evaluation is.


class WatchedPredictor(Predictor):
    """A :class:`~kindsight.predictor.Predictor` with somebody to report to.

    Attributes
    ----------
    progress : callable or None
        Called with ("evaluate", images done, images in all) after each image of a dataset.
    """

    progress: Progress | None = None

    def predict_dataset(
        self, dataset: ImageDataset, detector: TrainingImageDetector | None = None
    ) -> Iterator[Prediction]:
        """Answer for the images of a dataset, in its order, and report each."""
        for done, answer in enumerate(super().predict_dataset(dataset, detector), 1):
            if self.progress is not None:
                self.progress("evaluate", done, len(dataset))
            yield answer
