"""The result of ``kindsight improve``: its experiments, its verdict, and the final accuracy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kindsight.errors import BundleError
from kindsight.evaluation.paired import PairedComparison, correct_comparisons
from kindsight.files import write_json
from kindsight.report.format import amount, percent
from kindsight.runs.improve.changes import plain_changes
from kindsight.runs.improve.experiments import Experiment

__all__ = [
    "RESULT_FILE", "ExperimentRow", "FinalFigure", "ImproveResult", "OuterChoice",
    "experiment_rows",
]  # fmt: skip

RESULT_FILE = "improve.json"
MAX_BYTES = 2**26


@dataclass(frozen=True)
class ExperimentRow:
    """An experiment in the table.

    Parameters
    ----------
    number : int
        From 0, the original.
    change : str
        The options that differ from the original's.
    origin : str
        ``"original"``, ``"reference"``, ``"one factor"``, ``"combined"`` or ``"any model"``.
    against : int
        Number of the experiment that it is compared with.
    images : int
        Number of held-out images.
    accuracy, log_loss : float or None
        On these images; None if it was stopped early.
    difference : PairedComparison or None
        Difference from the experiment that it is compared with, on the same images.
    effect : str
        ``"helped"``, ``"harmed"``, or ``"not clear"`` if the difference in accuracy is not
        statistically significant; "" for the original.
    seconds : float
        Seconds of all its trainings.
    note : str
        Why it was stopped early.
    """

    number: int
    change: str
    origin: str
    against: int
    images: int
    accuracy: float | None
    log_loss: float | None
    difference: PairedComparison | None
    effect: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class OuterChoice:
    """An outer fold of nested cross-validation.

    Parameters
    ----------
    fold, images : int
        Number of the fold, and number of its images.
    change : str
        The options chosen without these images.
    original, best : float
        Accuracies on these images, 0-1.
    """

    fold: int
    images: int
    change: str
    original: float
    best: float


@dataclass(frozen=True)
class FinalFigure:
    """The accuracy of the original and of the best training, and how it was measured.

    Parameters
    ----------
    kind : str
        ``"test split"``, ``"nested folds"``, or ``"deciding folds"`` if there was time for neither.
    images : int
    original, best : float
        Accuracies, 0-1.
    difference : PairedComparison
    optimistic : bool
        Whether the images were used for the choice.
    source : str
        How the accuracies were measured: a sentence without its full stop.
    outer : tuple of OuterChoice
        The outer folds of nested cross-validation.
    """

    kind: str
    images: int
    original: float
    best: float
    difference: PairedComparison
    optimistic: bool
    source: str
    outer: tuple[OuterChoice, ...] = ()

    def sentence(self) -> str:
        """Return the accuracies in a sentence: ``Test split: 61.7% -> 78.6% accuracy, ...``."""
        value, low, high = (
            100 * each for each in (self.difference.difference, *self.difference.interval)
        )
        return (
            f"{self.kind.capitalize()}: {percent(self.original)} -> {percent(self.best)} "
            f"accuracy, {value:+.1f} points (95% CI {low:+.1f} to {high:+.1f}) on "
            f"{amount(self.images, 'image')}: {self.source}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        outer = [vars(each) for each in self.outer]
        return {**vars(self), "difference": self.difference.to_dict(), "outer": outer}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinalFigure:
        """Return the result of :meth:`to_dict` as an object; KeyError or TypeError if invalid."""
        outer = tuple(OuterChoice(**each) for each in values["outer"])
        difference = _comparison(values["difference"])
        return cls(**{**values, "difference": difference, "outer": outer})


@dataclass(frozen=True)
class ImproveResult:
    """The result of experiments on a run.

    Parameters
    ----------
    run, folder : pathlib.Path
        The run, and the folder of the experiments.
    helped : bool
        Whether the best experiment is significantly better.
    reason : str
        A sentence on the decision.
    changes : mapping
        Options of the best training that differ from the original's; empty if nothing helped.
    change : str
        The same in words.
    decided : PairedComparison or None
        The deciding comparison.
    tests : int
        Number of experiments that competed on the deciding images.
    p_value : float
        p-value of the lower log losses there, multiplied by this number.
    experiments : tuple of ExperimentRow
    best_run : pathlib.Path or None
        Finished run with the best settings.
    final : FinalFigure or None
        Accuracy of the original and of the best run; None if nothing helped.
    budget, seconds : float
        Allowed and used seconds.
    """

    run: Path
    folder: Path
    helped: bool
    reason: str
    changes: Mapping[str, Any]
    change: str
    decided: PairedComparison | None
    tests: int
    p_value: float
    experiments: tuple[ExperimentRow, ...]
    best_run: Path | None
    final: FinalFigure | None
    budget: float
    seconds: float
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("run", "folder", "best_run"):
            values[name] = None if values[name] is None else str(values[name])
        rows = [{**vars(row), "difference": _plain(row.difference)} for row in self.experiments]
        return {
            **values,
            "changes": plain_changes(self.changes),
            "decided": _plain(self.decided),
            "experiments": rows,
            "final": None if self.final is None else self.final.to_dict(),
            "notes": list(self.notes),
        }

    def write(self) -> None:
        """Write ``improve.json``."""
        write_json(self.folder / RESULT_FILE, self.to_dict())

    @classmethod
    def read(cls, folder: Path) -> ImproveResult | None:
        """Read the result in a folder; None if there is none.

        BundleError if it is damaged.
        """
        path = folder / RESULT_FILE
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                values = json.loads(file.read(MAX_BYTES))
            rows = [
                {**row, "difference": _comparison(row["difference"])}
                for row in values["experiments"]
            ]
            final, best = values["final"], values["best_run"]
            return cls(
                **{
                    **values,
                    "run": Path(values["run"]),
                    "folder": Path(values["folder"]),
                    "experiments": tuple(ExperimentRow(**row) for row in rows),
                    "final": None if final is None else FinalFigure.from_dict(final),
                    "decided": _comparison(values["decided"]),
                    "best_run": None if best is None else Path(best),
                    "notes": tuple(values["notes"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path} is damaged: {error}. Delete it; the same command writes it again."
            ) from error


def experiment_rows(
    experiments: Sequence[Experiment], folds: tuple[int, ...]
) -> tuple[ExperimentRow, ...]:
    """Return the table of experiments, on the folds that all of them have finished.

    The p-values of the comparisons are corrected for the number of experiments of one origin.
    """
    found: dict[int, PairedComparison] = {}
    for origin in dict.fromkeys(each.origin for each in experiments):
        compared = [
            each
            for each in experiments
            if each.origin == origin and each.number and not each.stopped and each.has(folds)
        ]
        pairs = [each.compare(experiments[each.against], folds) for each in compared]
        numbers = [each.number for each in compared]
        found |= dict(zip(numbers, correct_comparisons(tuple(pairs)), strict=True))
    return tuple(
        ExperimentRow(
            each.number,
            each.words,
            each.origin,
            each.against,
            len(each.correct(folds)) if each.has(folds) else 0,
            each.accuracy(folds) if each.has(folds) else None,
            each.log_loss(folds) if each.has(folds) else None,
            found.get(each.number),
            _effect(found.get(each.number)),
            sum(result.seconds for result in each.results.values()),
            each.stopped,
        )
        for each in experiments
    )


def _effect(difference: PairedComparison | None) -> str:
    if difference is None:
        return ""
    if not difference.is_real:
        return "not clear"
    return "helped" if difference.difference > 0 else "harmed"


def _plain(value: PairedComparison | None) -> dict[str, Any] | None:
    return None if value is None else value.to_dict()


def _comparison(values: Mapping[str, Any] | None) -> PairedComparison | None:
    if values is None:
        return None
    low, high = values["log_loss_interval"]
    return PairedComparison(
        images=int(values["images"]),
        first_only=int(values["first_only"]),
        second_only=int(values["second_only"]),
        difference=float(values["difference"]),
        interval=(float(values["interval"][0]), float(values["interval"][1])),
        log_loss_difference=float(values["log_loss_difference"]),
        log_loss_interval=(
            math.nan if low is None else float(low), math.nan if high is None else float(high)
        ),
        p_value=float(values["p_value"]),
        images_needed=values["images_needed"],
    )  # fmt: skip
