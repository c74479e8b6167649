"""Plot accuracy against seconds from the results of `fine_tune.py budget` and `curve`.

Examples
--------
::

    python benchmarks/fine_tune.py curve elpv --budgets 2m 10m --repeats 4 --json elpv.json
    python benchmarks/draw_curves.py elpv.json sign-digits.json --out docs/images/budgets.svg
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import log

# The name of a row: dataset, budget and figure.
ROW = re.compile(r"(?P<data>.+), (?P<budget>\S+): (?P<figure>accuracy|seconds)(, mean of \d+)?")
FROZEN = "frozen head"


@dataclass(frozen=True)
class Point:
    """Median seconds and mean accuracy (0 to 1) of a budget or of the frozen head."""

    name: str
    seconds: float
    accuracy: float


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("files", nargs="+", type=Path, help="JSON files of fine_tune.py")
    parser.add_argument("--out", type=Path, required=True, help="SVG or PNG file")
    return parser.parse_args(arguments)


def points_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    """Return the points of each dataset, sorted by time.

    If a budget occurs twice, the later row is used; for the frozen head, the first one.
    """
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if (found := ROW.fullmatch(row["what"])) is None:
            continue
        data, budget, figure = found["data"], found["budget"], found["figure"]
        points = figures.setdefault(data, {})
        points.setdefault(FROZEN, {}).setdefault(figure, statistics.median(row["theirs"]))
        points.setdefault(budget, {})[figure] = statistics.median(row["ours"])
    return {
        data: sorted(
            (Point(name, each["seconds"], each["accuracy"]) for name, each in points.items()),
            key=lambda point: point.seconds,
        )
        for data, points in figures.items()
    }


def draw(curves: dict[str, list[Point]], out: Path) -> None:
    """Draw a panel per dataset with a logarithmic time axis."""
    import matplotlib as mpl
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from kindsight.training.engine.plots import INK, VALIDATION, TrainingFigure, style_axes

    # Makes the SVG file deterministic.
    mpl.rcParams["svg.hashsalt"] = "kindsight"
    figure = TrainingFigure(3.4 * len(curves), 3.0)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (data, points) in zip(panels, curves.items(), strict=True):
        style_axes(axes, data, "seconds")
        axes.set_xscale("log")
        seconds = [point.seconds for point in points]
        accuracies = [point.accuracy for point in points]
        axes.plot(seconds, accuracies, "o-", color=VALIDATION, linewidth=1.9, markersize=4)
        for point in points:
            axes.annotate(
                f"{point.name}: {point.accuracy:.2%}", (point.seconds, point.accuracy),
                xytext=(7, -11), textcoords="offset points", ha="left", fontsize=8, color=INK,
            )  # fmt: skip
        room = max(max(accuracies) - min(accuracies), 0.002)
        axes.set_ylim(min(accuracies) - 0.45 * room, max(accuracies) + 0.25 * room)
        axes.set_xlim(min(seconds) / 1.6, max(seconds) * 12)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the results and draw them."""
    options = parse(arguments)
    files = [json.loads(file.read_text("utf-8")) for file in options.files]
    curves = points_of([row for file in files for section in file for row in section["rows"]])
    if not curves:
        raise SystemExit("draw_curves: the files have no rows of budgets.")
    draw(curves, options.out)
    for data, points in curves.items():
        text = ", ".join(f"{p.name} {p.accuracy:.2%} in {p.seconds:.0f} s" for p in points)
        log(f"{data}: {text}")


if __name__ == "__main__":
    main()
