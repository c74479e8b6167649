"""The evaluation of a classifier on a dataset, as text and for JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.evaluation import (
    cost_lines,
    evaluation_lines,
    short_name,
    slice_lines,
)
from kindsight.cli.terminal.summary import accuracy_line, facts
from kindsight.cli.terminal.text import Paint, hanging, line_width, printable
from kindsight.dataset.names import ignored_counts, ignored_text, reasons_by_class
from kindsight.report.format import amount, percent

if TYPE_CHECKING:
    from kindsight.dataset_evaluation import DatasetEvaluation
    from kindsight.evaluation.costs import CostEvaluation
    from kindsight.evaluation.slices import Slice

__all__ = ["Extras", "score_lines", "scores_to_dict"]

PROBLEMS = 10
"""Maximum number of skipped images that are listed."""


@dataclass(frozen=True)
class Extras:
    """Results on request: costs, and slices, of which all or only the worse are listed."""

    costs: CostEvaluation | None = None
    slices: tuple[Slice, ...] | None = None
    every_slice: bool = False

    def lines(self, paint: Paint) -> Iterator[str]:
        """Yield both as text."""
        if self.costs is not None:
            yield from cost_lines(self.costs, paint)
        if self.slices is not None:
            yield from slice_lines(self.slices, every=self.every_slice, paint=paint)

    def to_dict(self) -> dict[str, Any]:
        """Return both for JSON; None if not requested."""
        return {
            "costs": None if self.costs is None else self.costs.to_dict(),
            "slices": None if self.slices is None else [each.to_dict() for each in self.slices],
        }


def score_lines(
    scores: DatasetEvaluation,
    title: str,
    level: float | None = None,
    extras: Extras | None = None,
) -> Iterator[str]:
    """Yield the output of ``kindsight evaluate``.

    Parameters
    ----------
    scores : DatasetEvaluation
        From :meth:`kindsight.predictor.Predictor.evaluate`.
    title : str
        The title, which names the classifier and the data.
    level : float, optional
        Confidence level of the prediction sets.
    extras : Extras, optional
        Costs and slices.
    """
    paint = Paint(sys.stdout)
    yield paint(printable(title), "bold")
    yield ""
    yield from evaluation_lines(scores.evaluation, paint)
    yield from _uncertainty_rows(scores, level, paint)
    yield from (extras or Extras()).lines(paint)
    yield from _trained_on_rows(scores, paint)
    yield from _left_out(scores, paint)


def scores_to_dict(
    scores: DatasetEvaluation, level: float | None = None, extras: Extras | None = None
) -> dict[str, Any]:
    """Return the output of ``--json``; `level` is the level of the prediction sets.

    Returns
    -------
    dict
        The keys of :meth:`kindsight.evaluation.Evaluation.to_dict`; ``labelled`` (number, fraction
        and accuracy of the images with a label, numbers of ``unsure`` and ``unknown`` ones);
        ``prediction_sets`` (level, coverage, mean size, and ``sizes``, the number of sets with 0,
        1, 2 and more classes; None without sets); ``costs`` and ``slices`` (None unless requested);
        ``unknown_classes`` (number of skipped images by class), ``absent_classes`` (classes without
        images), ``trained_on`` (``images``, the number of training images among them, and
        ``without``, the evaluation of the others; None if not recorded), ``skipped`` (a list of
        path, label, code and message) and ``ignored_files`` (a list of label, reason and number of
        files).
    """
    return {
        **scores.evaluation.to_dict(),
        **_uncertainty(scores, level),
        **(extras or Extras()).to_dict(),
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
            f"{percent(sets.coverage)} of the {100 * level:g}% prediction sets contain the true "
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
    """Yield lines on the skipped images and classes."""
    from kindsight.dataset.loaders.folders import similar_names

    unknown = ", ".join(f"{short_name(name)} ({n:,})" for name, n in scores.unknown_classes.items())
    absent = ", ".join(map(short_name, scores.absent_classes))
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


def _trained_on(scores: DatasetEvaluation) -> dict[str, Any] | None:
    if scores.trained_on is None:
        return None
    unseen = scores.evaluate_unseen() if scores.trained_on.any() else scores.evaluation
    return {
        "images": scores.trained_images(),
        "without": None if unseen is None else unseen.to_dict(),
    }
