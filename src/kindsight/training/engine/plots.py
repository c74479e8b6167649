"""A training's curves as Matplotlib figures, without pyplot and its global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from kindsight.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kindsight.training.engine.history import History

__all__ = [
    "INK",
    "VALIDATION",
    "TrainingFigure",
    "history_figure",
    "learning_rate_figure",
    "style_axes",
]

# The colours of the report on light ground.
PAGE, PANEL, LINE, INK, QUIET = "#fbfaf7", "#f1efe9", "#d9d5cb", "#1d2024", "#575d64"
VALIDATION, BEST = "#1a659e", "#a9480a"

MAX_DOTS = 40
OUTLIER = 8.0
DPI = 144


class TrainingFigure(Figure):
    """A Matplotlib figure that notebooks show by itself; ``savefig`` writes it."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAGE)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        """Give the image to a notebook."""
        return self.png()

    def png(self) -> bytes:
        """Return the figure as PNG."""
        buffer = io.BytesIO()
        # Without the name of the program and its version, the same curves give the same bytes.
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def history_figure(history: History) -> TrainingFigure:
    """Draw accuracy and loss of both parts over the epochs, with phases and the best epoch.

    Parameters
    ----------
    history : History
        At least one epoch.

    Returns
    -------
    TrainingFigure
        Two axes, accuracy and loss; lines are labelled "training" and "validation".

    Raises
    ------
    UsageError
        For a history without epochs.
    """
    if not len(history):
        raise UsageError("A history must have an epoch to be drawn. Received: none.")
    figure = TrainingFigure(9.0, 3.7)
    both = figure.subplots(1, 2)
    for axes, quantity in zip(both, ("accuracy", "loss"), strict=True):
        style_axes(axes, quantity, "epoch")
        _phases(axes, history)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        kinds = {"training": quantity}
        if history.validated:
            kinds["validation"] = f"val_{quantity}"
        for label, name in kinds.items():
            strong = label == "validation" or not history.validated
            axes.plot(
                history.column("epoch"),
                history.column(name),
                label=label,
                color=VALIDATION if strong else QUIET,
                linewidth=1.9 if strong else 1.4,
                linestyle="-" if strong else "--",
                marker="o" if len(history) <= MAX_DOTS else None,
                markersize=3,
            )
        _mark_best(axes, history, list(kinds.values())[-1])
        axes.set_xlim(0.5, len(history) + 0.5)
    _limit_loss(both[1], [history.column(name) for name in ("loss", "val_loss")])
    both[0].yaxis.set_major_formatter(FuncFormatter(lambda share, place: f"{100 * share:.4g}%"))
    both[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def learning_rate_figure(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> TrainingFigure:
    """Draw the steps of a learning-rate finder, and the rate that it suggests.

    Parameters
    ----------
    rates : sequence of float
        Above 0, rising.
    losses : sequence of float
        As many, in nats; values that are not finite are left out.
    suggestion : float or None
        A rate.

    Raises
    ------
    UsageError
        Where no loss is finite, or rates and losses differ in number.
    """
    if len(rates) != len(losses) or not np.isfinite(losses).any():
        raise UsageError(
            "There must be a loss for each learning rate, and a finite one at least. Received: "
            f"{len(rates)} rates, {len(losses)} losses, {np.isfinite(losses).sum()} finite."
        )
    figure = TrainingFigure(5.4, 3.7)
    axes: Any = figure.subplots()
    style_axes(axes, "loss", "learning rate")
    _limit_loss(axes, [np.asarray(losses, np.float64)])
    axes.set_xscale("log")
    axes.plot(rates, losses, color=VALIDATION, linewidth=1.9, label="loss")
    if suggestion is not None:
        axes.axvline(
            suggestion,
            color=BEST,
            linewidth=1.3,
            linestyle=":",
            label=f"suggested: {suggestion:.2g}",
        )
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _limit_loss(axes: Axes, columns: Sequence[NDArray[np.float64]]) -> None:
    """Start at 0; leave out values far above the rest, as those of a start that diverged."""
    values = np.concatenate(columns)
    values = values[np.isfinite(values)]
    if len(values):
        top = min(values.max(), OUTLIER * np.median(values))
        axes.set_ylim(min(0.0, values.min()), 1.05 * top or 1.0)


def style_axes(axes: Axes, title: str, across: str) -> None:
    """Give axes a title, a name of what goes across, and the look of the report."""
    axes.set_facecolor(PAGE)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(across, fontsize=9, color=QUIET)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=QUIET, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)


def _phases(axes: Axes, history: History) -> None:
    """Shade every second phase and name each, where there are several."""
    rows = history.rows()
    starts = [row.epoch for before, row in zip((None, *rows), rows, strict=False)
              if before is None or before.phase != row.phase]  # fmt: skip
    if len(starts) < 2:
        return
    for place, start in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else rows[-1].epoch + 1
        if place % 2:
            axes.axvspan(start - 0.5, end - 0.5, color=PANEL, linewidth=0, zorder=0)
        axes.annotate(
            rows[start - 1].phase[:24].replace("$", r"\$"),
            ((start + end - 1) / 2, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=QUIET,
        )


def _mark_best(axes: Axes, history: History, name: str) -> None:
    best = history.best_epoch
    assert best is not None
    axes.axvline(best, color=BEST, linewidth=1.2, linestyle=":")
    axes.plot(
        best,
        history.column(name)[best - 1],
        "o",
        markersize=7,
        markerfacecolor=PAGE,
        markeredgecolor=BEST,
        markeredgewidth=1.8,
        linestyle="none",
        label=f"best: {best}",
    )
