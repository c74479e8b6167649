"""The summary of a training, its findings and its folds, and lines that other commands share."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kindsight.cli.terminal.options import as_typed
from kindsight.cli.terminal.text import Paint, cells, hanging, line_width, printable, table, wrapped
from kindsight.dataset.names import ignored_text, reasons_by_class
from kindsight.report.format import amount, duration, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.diagnosis import Diagnosis
    from kindsight.evaluation import Evaluation
    from kindsight.runs.cross_validation import CrossValidation
    from kindsight.runs.train import TrainResult

__all__ = ["accuracy_line", "facts", "finding_lines", "summary_lines"]

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
FINDING_INDENT = 9


def finding_lines(
    findings: Sequence[Diagnosis], *, width: int, evidence: bool, commands: int
) -> Iterator[str]:
    """Yield lines for each finding.

    Parameters
    ----------
    findings : sequence of Diagnosis
    width : int
        Width of the lines, in columns.
    evidence : bool
        Whether to show the evidence.
    commands : int
        Maximum number of commands shown for each finding.
    """
    paint = Paint(sys.stdout)
    left = " " * FINDING_INDENT
    for finding in findings:
        title = paint(printable(finding.title), "bold", COLOURS[finding.severity])
        code = printable(finding.code)
        yield f"  {paint(code, 'dim')}{' ' * (FINDING_INDENT - 2 - cells(code))}{title}"
        yield from (
            left + line for line in wrapped(printable(finding.message), width - FINDING_INDENT)
        )
        if evidence and finding.evidence:
            lines = wrapped(printable(finding.evidence), width - FINDING_INDENT)
            yield from (left + paint(line, "dim") for line in lines)
        for command in finding.commands[:commands]:
            lines = command_lines(printable(command), width - FINDING_INDENT - 2)
            yield from (left + paint(line, "cyan") for line in lines)


def command_lines(command: str, width: int) -> list[str]:
    """Return a command as lines that can be pasted; all except the last end in a backslash.

    It is only broken before options, so a line may be longer than `width`.
    """
    words = [shlex.quote(word) for word in shlex.split(command)]
    groups: list[str] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append(word)
        else:
            groups[-1] += f" {word}"
    lines: list[str] = []
    for group in groups:
        if lines and cells(lines[-1]) + 1 + cells(group) <= width - 2:
            lines[-1] += f" {group}"
        else:
            lines.append(group if not lines else f"    {group}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def folds_title(found: CrossValidation) -> str:
    """Return the name of the accuracy: ``Cross-validation, 5 folds``."""
    return f"Cross-validation, {amount(len(found.folds), 'fold')}"


def fold_lines(found: CrossValidation, paint: Paint) -> Iterator[str]:
    """Yield the spread of the folds, and a line for each fold."""
    evaluations = found.evaluations()
    accuracies = [each.accuracy for each in evaluations]
    yield (
        f"Folds: {percent(min(accuracies))} to {percent(max(accuracies))}, standard deviation "
        f"{100 * found.standard_deviation:.1f} points"
    )
    yield ""
    by_epochs = any(fold.history for fold in found.folds)
    rows = [
        (
            str(fold.number),
            f"{len(fold.rows):,}",
            f"{len(fold.held_out):,}",
            percent(each.accuracy),
            interval(each.accuracy_interval),
            f"{each.log_loss:.3f}",
            *([str(fold.best_epoch or "")] if by_epochs else []),
            duration(fold.seconds),
        )
        for fold, each in zip(found.folds, evaluations, strict=True)
    ]
    heads = ["fold", "trained on", "held out", "accuracy", "95% CI", "log loss"]
    heads += ["best epoch"] if by_epochs else []
    yield from table((*heads, "time"), rows, paint=paint, left=0)


INDENT = 14
SHOWN_FINDINGS = 3
"""Maximum number of findings of the diagnosis; kindsight diagnose shows all, with their
evidence."""

LOWEST_RECALLS = 3
"""Maximum number of classes that are named for their low recall."""


def summary_lines(result: TrainResult) -> Iterator[str]:
    """Yield the summary of a training: accuracy, model, files, and commands to run next."""
    paint = Paint(sys.stdout)
    splits = [("test", result.test), ("validation", result.validation)]
    evaluated = [(name, evaluation) for name, evaluation in splits if evaluation is not None]
    yield ""
    folds = result.cross_validation
    for name, evaluation in evaluated:
        title = f"{name.capitalize()} split"
        if folds is not None and name == "validation":
            title = folds_title(folds)
        # Wrapped without colours, whose codes have no width.
        line = f"{title}: {accuracy_line(evaluation, Paint.none())}"
        first, *rest = wrapped(line, _width(), 2)
        accuracy = f"{percent(evaluation.accuracy)} accuracy"
        yield from (first.replace(accuracy, paint(accuracy, "bold")), *rest)
    if evaluated:
        yield from _lowest_recall(*evaluated[0], folds=folds is not None)
    else:
        line = "Accuracy not measured: there is no validation or test split."
        yield from (paint(part, "yellow") for part in wrapped(line, _width(), 2))
    if folds is not None:
        yield from fold_lines(folds, paint)
    yield ""
    yield from facts(_facts(result), paint)
    for finding in result.notes:
        yield from hanging(
            "note", printable(as_typed(finding)), indent=INDENT, paint=paint, width=_width()
        )
    run = quoted(result.run)
    if result.diagnosis:
        yield ""
        yield paint("Diagnosis", "bold")
        shown = result.diagnosis[:SHOWN_FINDINGS]
        yield from finding_lines(shown, width=_width(), evidence=False, commands=1)
    yield ""
    yield paint("Next", "bold")
    if result.diagnosis:
        yield f"  kindsight diagnose {run}"
    yield f"  kindsight predict {run} new/"
    yield f"  kindsight evaluate {run} other-photos/"


def accuracy_line(evaluation: Evaluation, paint: Paint) -> str:
    """Return the accuracy with its confidence interval and the number of images."""
    ends = interval(evaluation.accuracy_interval)
    accuracy = paint(f"{percent(evaluation.accuracy)} accuracy", "bold")
    copies = evaluation.copies
    left_out = f" ({amount(copies, 'identical copy', 'identical copies')} not counted)"
    counted = amount(evaluation.images, "image")
    return f"{accuracy} (95% CI {ends}), {counted}{left_out if copies else ''}"


def facts(rows: Mapping[str, str], paint: Paint) -> Iterator[str]:
    """Yield a line or more for each name with its text, without those whose text is empty."""
    for name, text in rows.items():
        if text:
            yield from hanging(name, text, indent=INDENT, paint=paint, width=_width())


def _facts(result: TrainResult) -> dict[str, str]:
    computed, reused = result.cache["computed"], result.cache["reused"]
    total = result.seconds.get("total")
    return {
        "classes": _classes(result.classes),
        "images": ", ".join(
            f"{result.images[split]:,} {split}"
            for split in ("train", "validation", "test")
            if result.images.get(split)
        ),
        "skipped": _skipped(result),
        "ignored": _ignored(result),
        **{name: printable(text) for name, text in result.model.items()},
        "time": "" if total is None else duration(total),
        "cache": f"{computed:,} images computed, {reused:,} from the cache",
        "run": printable(str(result.run)),
        "report": printable(str(result.report)),
        "hint": result.hint,
    }


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(printable(elide(name, 40)) for name in names[:8])
    more = ", \N{HORIZONTAL ELLIPSIS}" if len(names) > 8 else ""
    return f"{len(names):,}: {shown}{more}"


def _lowest_recall(split: str, evaluation: Evaluation, *, folds: bool) -> Iterator[str]:
    """Yield the line that names the classes with the lowest recall, if any is below 100%."""
    imperfect = [score for score in evaluation.classes if score.support and score.recall < 1]
    lowest = sorted(imperfect, key=lambda score: score.recall)[:LOWEST_RECALLS]
    if not lowest:
        return
    listed = "; ".join(
        f"class {printable(elide(score.name, 40))}, {percent(score.recall)} "
        f"({round(score.recall * score.support):,} of {amount(score.support, 'image')})"
        for score in lowest
    )
    where = "of the folds" if folds and split == "validation" else f"on the {split} split"
    yield from wrapped(f"Lowest recall {where}: {listed}", _width(), 2)


def _skipped(result: TrainResult) -> str:
    if not result.problems:
        return ""
    codes = reasons_by_class(result.skipped_codes())
    return f"{amount(len(result.problems), 'image')} ({codes}), listed in {_problems(result)}"


def _ignored(result: TrainResult) -> str:
    if not result.ignored_files:
        return ""
    text = ignored_text(Counter(file.reason for file in result.ignored_files).items())
    return f"{text}, listed in {_problems(result)}"


def _problems(result: TrainResult) -> str:
    return printable(str(result.run / "problems.csv"))


def quoted(path: Path) -> str:
    """Return a path that can be pasted into a shell."""
    text = printable(str(path))
    if sys.platform == "win32":
        return f'"{text}"' if " " in text else text
    return shlex.quote(text)


def _width() -> int:
    return min(line_width(), 110)
