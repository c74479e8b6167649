"""``kindsight evaluate``: measure a classifier on labelled images."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    Column,
    DataOf,
    Debug,
    Encoding,
    FollowLinks,
    Json,
    KeepNaLabels,
    LabelFrom,
    LabelNames,
    MultiLabel,
    PixelShape,
    Quiet,
    Root,
    SetsPerClass,
    TargetAccuracy,
    TargetCoverage,
    Workers,
    as_typed,
    columns_of,
    names_of,
)
from kindsight.cli.terminal.summary import accuracy_line, facts
from kindsight.cli.terminal.text import (
    Paint,
    cells,
    clipping_note,
    complain,
    hanging,
    line_width,
    note,
    pad,
    print_json,
    printable,
    say,
    table,
)
from kindsight.dataset.ignored import ignored_counts, ignored_text, reasons_by_class
from kindsight.errors import DatasetError, SettingsError
from kindsight.report.format import amount, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.dataset import ImageDataset
    from kindsight.evaluation import Evaluation
    from kindsight.predictor import DatasetEvaluation

__all__ = ["choose_split", "evaluate", "score_lines", "scores_to_dict"]

SPLITS = ("test", "validation", "train", "all")
TRAINED_ON_FILE = "trained_on.npz"

BELOW = 1
"""The exit code if the accuracy is below --fail-under."""

WIDEST_NAME = 30
"""Columns of a class name in tables."""

MOST_CLASSES = 15
"""Classes up to which the confusion matrix is shown."""

CONFUSIONS = 10
"""Pairs of classes listed instead of a larger matrix."""

PROBLEMS = 10
"""Skipped images that are listed."""


def evaluate(  # noqa: PLR0913, PLR0917 (one parameter for each option)
    bundle: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    data: Annotated[
        str,
        typer.Argument(help=DataOf),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(SPLITS),
            help="Split that is evaluated.  [default: the first of these that the data have]",
        ),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            metavar="ACCURACY",
            help="Accuracy, 0 to 1, below which the exit code is 1, for use in CI.",
        ),
    ] = None,
    target_accuracy: TargetAccuracy = None,
    target_coverage: TargetCoverage = None,
    sets: Annotated[
        float | None,
        typer.Option(
            metavar="LEVEL",
            help="Confidence level of the prediction sets.  [default: as trained, 0.9]",
            show_default=False,
        ),
    ] = None,
    sets_per_class: SetsPerClass = False,
    label_from: LabelFrom = None,
    column: Column = None,
    label_names: LabelNames = None,
    pixel_shape: PixelShape = None,
    root: Root = None,
    follow_links: FollowLinks = None,
    multi_label: MultiLabel = None,
    keep_na_labels: KeepNaLabels = False,
    encoding: Encoding = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a classifier on labelled images.

    Unreadable images and images of classes unknown to the classifier are listed and skipped; the
    exit code is still 0, unless the accuracy is below --fail-under. The accuracy is that of the
    most probable classes, also of images that are unsure or unknown.

    Example: kindsight evaluate runs/photos-1 photos-test/
    """
    from kindsight.bundle import load_bundle
    from kindsight.cli.terminal.progress import watching
    from kindsight.dataset import DataOptions, open_dataset
    from kindsight.predictor import Predictor

    options = DataOptions(
        label_from=label_from,
        columns=columns_of(column) or {},
        label_names=names_of(label_names) or (),
        pixel_shape=pixel_shape,
        root=root,
        follow_links=follow_links is not False,
        multi_label=multi_label,
        keep_na_labels=keep_na_labels,
        encoding=encoding,
    )
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise SettingsError(f"--fail-under must be an accuracy from 0 to 1; got {fail_under:g}.")
    stored = load_bundle(bundle)
    if sets is None:
        sets = stored.uncertainty.get("sets", {}).get("confidence_level")
    predictor = Predictor(
        stored,
        workers=workers,
        target_accuracy=target_accuracy,
        target_coverage=target_coverage,
        sets=sets,
        sets_per_class=sets_per_class or None,
    )
    options = replace(options, value_range=predictor.bundle.spec.value_range)
    dataset = open_dataset(data, options, min_classes=1, classes=predictor.classes)
    dataset, chosen = choose_split(dataset, split)
    if not quiet:
        if predictor.decisions.note:
            note(predictor.decisions.note)
        for finding in dataset.notes:
            note(as_typed(finding))
        recorded = (Path(bundle) / TRAINED_ON_FILE).exists()  # then reported image by image
        if chosen in ("", "train") and not recorded and _was_trained_on(bundle, data):
            note(
                "the classifier was trained on these data. Accuracy on its training images is "
                "too high; evaluate it on other images."
            )
    _check_known(dataset, predictor.classes)
    with watching(quiet) as progress:
        scores = predictor.evaluate(dataset, progress)
    if scores.clipped and not quiet:
        note(clipping_note(scores.clipped, len(scores.dataset), predictor))
    if json:
        print_json(scores_to_dict(scores, sets))
    else:
        title = f"{bundle} on {data}" + (f", {chosen} split" if chosen else "")
        say(*score_lines(scores, title, sets))
    accuracy = scores.evaluation.accuracy
    if fail_under is not None and accuracy < fail_under:
        complain(f"the accuracy, {accuracy:.4f}, is below --fail-under {fail_under:g}.")
        raise typer.Exit(BELOW)


def choose_split(dataset: ImageDataset, wanted: str | None) -> tuple[ImageDataset, str]:
    """Return the images of one split and its name; ``""`` where the data have no splits.

    Parameters
    ----------
    dataset : ImageDataset
    wanted : str, optional
        ``"test"``, ``"validation"``, ``"train"`` or ``"all"``; the first with images if omitted.

    Raises
    ------
    SettingsError
        For another name, or a split without images.
    """
    if wanted is not None and wanted not in SPLITS:
        raise SettingsError(f"--split must be one of {', '.join(SPLITS)}; got {wanted!r}.")
    there = [name for name in SPLITS if name in dataset.split]
    if wanted == "all" or (wanted is None and not there):
        return dataset, ""
    if wanted is not None and wanted not in there:
        found = ", ".join(there) or "no splits"
        raise SettingsError(
            f"The data have no {wanted} split; they have {found}. Use --split all or omit it."
        )
    name = wanted or there[0]
    return dataset.where(split=name), name


def score_lines(scores: DatasetEvaluation, title: str, level: float | None = None) -> Iterator[str]:
    """Yield the output of ``kindsight evaluate``.

    Parameters
    ----------
    scores : DatasetEvaluation
        From :meth:`kindsight.predictor.Predictor.evaluate`.
    title : str
        Names the classifier and the data.
    level : float, optional
        Confidence level of the prediction sets.
    """
    paint = Paint(sys.stdout)
    yield paint(printable(title), "bold")
    yield ""
    yield from evaluation_lines(scores.evaluation, paint)
    yield from _uncertainty_rows(scores, level, paint)
    yield from _trained_on_rows(scores, paint)
    yield from _left_out(scores, paint)


def evaluation_lines(evaluation: Evaluation, paint: Paint) -> Iterator[str]:
    """Yield the scores, the table of classes, and the confusions."""
    yield accuracy_line(evaluation, paint)
    yield ""
    rows = {
        "balanced": f"{percent(evaluation.balanced_accuracy)} balanced accuracy (mean recall)",
        "macro F1": percent(evaluation.macro_f1),
        "log loss": f"{evaluation.log_loss:.4f}",
        "ECE": f"{percent(evaluation.ece)} expected calibration error",
    }
    yield from facts(rows, paint)
    yield ""
    yield from class_lines(evaluation, paint)
    yield ""
    yield from confusion_lines(evaluation, paint, line_width())


def class_lines(evaluation: Evaluation, paint: Paint) -> list[str]:
    """Return one row per class: images, precision, recall with its interval, F1."""
    header = ("class", "images", "precision", "recall", "95% CI", "F1")
    rows = []
    for score in evaluation.classes:
        ends = interval(score.recall_interval) if score.support else percent(math.nan)
        cells_ = (percent(score.precision), percent(score.recall), ends, percent(score.f1))
        rows.append((_name(score.name), f"{score.support:,}", *cells_))
    return table(header, rows, paint=paint)


def confusion_lines(evaluation: Evaluation, paint: Paint, width: int) -> Iterator[str]:
    """Yield the confusion matrix if it fits, else the most frequent confusions."""
    if len(evaluation.classes) <= MOST_CLASSES:
        lines = list(_matrix(evaluation, Paint.none()))
        if max(map(cells, lines)) <= width:
            yield from _matrix(evaluation, paint)
            return
    from kindsight.report.summary import top_confusions

    pairs = top_confusions(evaluation, CONFUSIONS)
    if not pairs:
        return
    yield paint("  most frequent confusions", "dim")
    for label, prediction, count, share in pairs:
        pair = f"{_name(label)} predicted as {_name(prediction)}"
        yield f"  {pair}: {count:,} ({percent(share)} of its images)"


def scores_to_dict(scores: DatasetEvaluation, level: float | None = None) -> dict[str, Any]:
    """Return the output of ``--json``; `level` is that of the prediction sets.

    Returns
    -------
    dict
        The keys of :meth:`kindsight.evaluation.Evaluation.to_dict`; ``labelled`` (number, fraction
        and accuracy of the images with a label, numbers of ``unsure`` and ``unknown`` ones);
        ``prediction_sets`` (level, coverage, mean size, and ``sizes``, the number of sets with 0,
        1, 2 and more classes; None without sets); ``unknown_classes`` (number of
        skipped images by class), ``absent_classes`` (classes without images), ``trained_on``
        (``images``, the number of training images among them, and ``without``, the evaluation of
        the others; None if not recorded), ``skipped`` (a list of path, label, code and message)
        and ``ignored_files`` (a list of label, reason and number of files).
    """
    return {
        **scores.evaluation.to_dict(),
        **_uncertainty(scores, level),
        "unknown_classes": scores.unknown_classes,
        "absent_classes": list(scores.absent_classes),
        "trained_on": _trained_on(scores),
        "skipped": [
            {
                "path": problem.path,
                "label": label,
                "code": problem.code,
                "message": problem.reason,
            }
            for problem, label in zip(scores.problems, scores.problem_labels, strict=True)
        ],
        "ignored_files": ignored_counts(scores.dataset.ignored_files),
    }


def _was_trained_on(bundle: str, data: str) -> bool:
    """Return whether the settings of the run name these data."""
    from kindsight.runs.settings import TrainSettings

    try:
        settings = TrainSettings.from_toml(Path(bundle) / "settings.toml")
    except SettingsError:  # a bundle without settings
        return False
    return Path(settings.data).resolve() == Path(data).resolve()


def _check_known(dataset: ImageDataset, classes: tuple[str, ...]) -> None:
    if not set(classes) & set(dataset.label):
        from kindsight.dataset.names import quoted_list

        raise DatasetError(
            f"None of the classes of the data is known to the classifier: the data have "
            f"{quoted_list(dataset.present_classes())}, the classifier {quoted_list(classes)}. "
            "Choose other data or another classifier, or rename the classes; `label_names` names "
            "numbers in a table or arrays."
        )


def _matrix(evaluation: Evaluation, paint: Paint) -> Iterator[str]:
    names = [_name(score.name) for score in evaluation.classes]
    head = max(*map(cells, names), len("label"))
    longest = len(f"{int(evaluation.confusion.max()):,}")
    widths = [max(cells(name), longest) for name in names]
    titles = "  ".join(pad(n, w, right=True) for n, w in zip(names, widths, strict=True))
    yield paint("  rows: labels; columns: predictions", "dim")
    yield paint(f"  {pad('', head)}  {titles}", "dim")
    for index, row in enumerate(evaluation.confusion.tolist()):
        numbers = []
        for column, count in enumerate(row):
            text = pad(f"{count:,}" if count else ".", widths[column], right=True)
            style = ("green",) if column == index else ("yellow",) if count else ("dim",)
            numbers.append(paint(text, *style))
        yield f"  {pad(names[index], head)}  {'  '.join(numbers)}"


def _uncertainty_rows(
    scores: DatasetEvaluation, level: float | None, paint: Paint
) -> Iterator[str]:
    """Yield coverage and accuracy of the labelled images, and the size of prediction sets."""
    decided, sets = scores.decided(), scores.set_sizes()
    rows = {}
    if without := ", ".join(f"{n:,} {name}" for name, n in decided.reasons.items() if n):
        rows["labelled"] = (
            f"{percent(decided.coverage)} of the images, {percent(decided.accuracy)} of them "
            f"correctly; no label: {without}"
        )
    if sets is not None and level is not None:
        empty = sets.sizes[0] / sets.images
        rows["sets"] = (
            f"{percent(sets.coverage)} of the {100 * level:g}% prediction sets have the true "
            f"class; {sets.mean_size:.2f} classes on average"
            + (f", {percent(empty)} empty" if empty else "")
        )
    if rows:
        yield ""
        yield from facts(rows, paint)


def _uncertainty(scores: DatasetEvaluation, level: float | None) -> dict[str, Any]:
    decided, sets = scores.decided(), scores.set_sizes()
    return {
        "labelled": {
            "images": decided.labelled,
            "coverage": decided.coverage,
            "accuracy": decided.accuracy if decided.labelled else None,
            **decided.reasons,
        },
        "prediction_sets": None
        if sets is None
        else {
            "confidence_level": level,
            "coverage": sets.coverage,
            "mean_size": sets.mean_size,
            "sizes": sets.sizes.tolist(),
        },
    }


def _trained_on_rows(scores: DatasetEvaluation, paint: Paint) -> Iterator[str]:
    """Yield the accuracy without training images."""
    if scores.trained_on is None or not scores.trained_on.any():
        return
    n = scores.trained_images()
    unseen = scores.evaluate_unseen()
    yield ""
    yield paint(
        f"The classifier was trained on {n:,} of these images, or on duplicates of them.",
        "yellow",
    )
    if unseen is None:
        yield "No other images are left."
    else:
        yield f"Without them: {accuracy_line(unseen, paint)}"


def _left_out(scores: DatasetEvaluation, paint: Paint) -> Iterator[str]:
    """Yield what was skipped."""
    from kindsight.dataset.loaders.folders import similar_names

    unknown = ", ".join(f"{_name(name)} ({n:,})" for name, n in scores.unknown_classes.items())
    absent = ", ".join(map(_name, scores.absent_classes))
    codes = [problem.code for problem in scores.problems]
    rows = {
        "unknown": f"skipped, class unknown to the classifier: {unknown}"
        f"{similar_names([*scores.unknown_classes], scores.absent_classes)}",
        "absent": f"classes without images: {absent}",
        "skipped": f"{amount(len(scores.problems), 'image')} could not be read: "
        f"{reasons_by_class(zip(scores.problem_labels, codes, strict=True))}",
    }
    there = {
        "unknown": scores.unknown_classes,
        "absent": scores.absent_classes,
        "skipped": scores.problems,
    }
    shown = {name: text for name, text in rows.items() if there[name]}
    if shown:
        yield ""
        yield from facts(shown, paint)
    for problem in scores.problems[:PROBLEMS]:
        text = printable(f"{problem.path}: {problem.reason}")
        yield from hanging("", text, indent=14, paint=paint, width=line_width())
    if len(scores.problems) > PROBLEMS:
        yield f"{' ' * 14}and {len(scores.problems) - PROBLEMS:,} more (all with --json)"
    if ignored := ignored_text(scores.dataset.ignored.items()):
        yield from () if shown else ("",)
        yield from facts({"ignored": ignored}, paint)


def _name(name: str) -> str:
    return printable(elide(name, WIDEST_NAME))


def _trained_on(scores: DatasetEvaluation) -> dict[str, Any] | None:
    if scores.trained_on is None:
        return None
    unseen = scores.evaluate_unseen() if scores.trained_on.any() else scores.evaluation
    return {
        "images": scores.trained_images(),
        "without": None if unseen is None else unseen.to_dict(),
    }
