"""What is said at the end of a training."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kindsight.cli.terminal.text import Paint, hanging, line_width, printable
from kindsight.report.format import amount, duration, elide, interval, percent

if TYPE_CHECKING:
    from kindsight.evaluation import Evaluation
    from kindsight.runs.train import TrainResult

__all__ = ["facts", "headline", "reasons", "summary_lines"]

INDENT = 14
WEAKEST = 3


def summary_lines(result: TrainResult) -> Iterator[str]:
    """Yield the lines that end a training: how good it is, what it is, and what to do next.

    Parameters
    ----------
    result : TrainResult
        As :func:`kindsight.runs.train.train` gives it.
    """
    paint = Paint(sys.stdout)
    yield ""
    for part, evaluation in (("test", result.test), ("validation", result.validation)):
        if evaluation is not None:
            yield headline(evaluation, f"{part} image", paint)
    if result.test is None and result.validation is None:
        yield paint("No images were kept back: how good it is has not been measured.", "yellow")
    yield ""
    yield from facts(_facts(result), paint)
    for finding in result.notes:
        yield from hanging("note", printable(finding), indent=INDENT, paint=paint, width=_width())
    run = _quoted(result.run)
    yield ""
    yield paint("Next", "bold")
    yield f"  kindsight predict {run} new/"
    yield f"  kindsight evaluate {run} other-photos/"


def headline(evaluation: Evaluation, what: str, paint: Paint) -> str:
    """Say in one line how many are right, and how far that can be relied on."""
    right = paint(
        f"{percent(evaluation.accuracy)} of {amount(evaluation.images, what)} right", "bold"
    )
    ends = f"95% interval {interval(evaluation.accuracy_interval)}"
    return f"{right}  {paint(f'({ends})', 'dim')}"


def facts(rows: Mapping[str, str], paint: Paint) -> Iterator[str]:
    """Yield names with what is to be said about them, those with nothing left out."""
    for name, text in rows.items():
        if text:
            yield from hanging(name, text, indent=INDENT, paint=paint, width=_width())


def _facts(result: TrainResult) -> dict[str, str]:
    times = _seconds({name: s for name, s in result.seconds.items() if name != "total"})
    total = result.seconds.get("total")
    return {
        "classes": _classes(result.classes),
        "weakest": _weakest(result.test or result.validation),
        "images": _images(result.images),
        "skipped": _skipped(result),
        **{name: printable(text) for name, text in result.model.items()},
        "fine-tuning": _seconds(result.fine_tuning.get("seconds", {})),
        "time": times if total is None else f"{duration(total)} ({times})",
        "cache": f"{result.cache['computed']:,} computed, "
        f"{result.cache['reused']:,} found in the cache, {printable(str(result.cache['folder']))}",
        "run": printable(str(result.run)),
        "report": printable(str(result.report)),
        "more time": result.hint,
    }


def _seconds(seconds: Mapping[str, float]) -> str:
    """Say where time went."""
    shown = {name: value for name, value in seconds.items() if value >= 0.005}
    return ", ".join(f"{name} {duration(value)}" for name, value in shown.items())


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(printable(elide(name, 40)) for name in names[:8])
    more = ", \N{HORIZONTAL ELLIPSIS}" if len(names) > 8 else ""
    return f"{len(names):,}: {shown}{more}"


def _weakest(evaluation: Evaluation | None) -> str:
    """Name the classes of which most is wrong, the worst first."""
    if evaluation is None:
        return ""
    wrong = [score for score in evaluation.classes if score.support and score.recall < 1]
    worst = sorted(wrong, key=lambda score: score.recall)[:WEAKEST]
    return ", ".join(
        f"{printable(elide(score.name, 40))} ({percent(score.recall)} of {score.support:,} right)"
        for score in worst
    )


def _images(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{counts[split]:,} {split}"
        for split in ("train", "validation", "test")
        if counts.get(split)
    )


def _skipped(result: TrainResult) -> str:
    if not result.problems:
        return ""
    where = printable(str(result.run / "problems.csv"))
    return f"{len(result.problems):,}, {reasons(p.code for p in result.problems)}; see {where}"


def reasons(codes: Iterator[str]) -> str:
    """Count reasons, the commonest first: 3 truncated, 1 empty."""
    return ", ".join(f"{n:,} {code}" for code, n in Counter(codes).most_common())


def _quoted(path: Path) -> str:
    text = printable(str(path))
    if sys.platform == "win32":
        return f'"{text}"' if " " in text else text
    return shlex.quote(text)


def _width() -> int:
    return min(line_width(), 110)
