"""Training curves as Matplotlib figures, without pyplot's global state."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import MissingExtraError, UsageError

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ImportError:
    raise MissingExtraError("Drawing training curves", "train") from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "INK", "VALIDATION", "TrainingFigure", "history_figure", "learning_rate_figure", "style_axes",
]  # fmt: skip

# The report's colours in its light theme.
PAGE, PANEL, LINE, INK, QUIET = "#fbfaf7", "#f1efe9", "#d9d5cb", "#1d2024", "#575d64"
VALIDATION, BEST = "#1a659e", "#a9480a"

MAX_DOTS = 40  # epochs up to which each point is marked
OUTLIER = 8.0  # multiple of the median loss beyond which the axis is cut
LABEL_WIDTH, ARROW_WIDTH = 0.12, 0.02  # of the axes' width, of a value that is cut
TITLE_PAD = 20  # points between title and plot; labels of phases and of cut values are between
DPI = 144


class TrainingFigure(Figure):
    """A Matplotlib figure that notebooks display; ``savefig`` writes it."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAGE)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self) -> bytes:
        """Return the figure as PNG."""
        buffer = io.BytesIO()
        # Without Matplotlib's version the same curves give the same bytes.
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def history_figure(columns: Mapping[str, NDArray[Any]], best_epoch: int) -> TrainingFigure:
    """Draw accuracy and loss by epoch, with the phases and the best epoch, on two axes.

    `columns` are those of :meth:`.history.History.frame`, with at least one epoch.
    """
    epochs = columns["epoch"]
    validated = not np.isnan(columns["val_accuracy"][0])
    figure = TrainingFigure(9.0, 3.7)
    both = figure.subplots(1, 2)
    for axes, quantity in zip(both, ("accuracy", "loss"), strict=True):
        style_axes(axes, quantity, "epoch")
        _mark_phases(axes, columns["phase"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = {"training": columns[quantity]}
        if validated:
            lines["validation"] = columns[f"val_{quantity}"]
        for label, values in lines.items():
            strong = label == "validation" or not validated
            color, width, style = (VALIDATION, 1.9, "-") if strong else (QUIET, 1.4, "--")
            axes.plot(
                epochs, values, label=label, color=color, linewidth=width, linestyle=style,
                marker="o" if len(epochs) <= MAX_DOTS else None, markersize=3,
            )  # fmt: skip
        _mark_best(axes, best_epoch, values[best_epoch - 1])
        axes.set_xlim(0.5, len(epochs) + 0.5)
    losses = [columns["loss"], columns["val_loss"]] if validated else [columns["loss"]]
    _limit_loss(both[1], epochs, losses)
    both[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    _legend(figure, both[0])
    return figure


def learning_rate_figure(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None
) -> TrainingFigure:
    """Draw the loss (nats) by learning rate of a learning-rate finder, and its suggestion.

    Losses that are not finite are left out. UsageError if none is finite, or rates and losses
    differ in number.
    """
    if len(rates) != len(losses) or not np.isfinite(losses).any():
        raise UsageError(
            "`losses` must have a value for each learning rate, at least one of them finite; "
            f"got {len(rates)} rates, {len(losses)} losses, "
            f"{np.isfinite(losses).sum()} finite."
        )
    figure = TrainingFigure(5.4, 3.7)
    axes: Any = figure.subplots()
    style_axes(axes, "loss", "learning rate")
    axes.set_xscale("log")
    axes.plot(rates, losses, color=VALIDATION, linewidth=1.9, label="loss")
    _limit_loss(axes, np.asarray(rates, np.float64), [np.asarray(losses, np.float64)])
    if suggestion is not None:
        label = f"suggested: {suggestion:.2g}"
        axes.axvline(suggestion, color=BEST, linewidth=1.3, linestyle=":", label=label)
        _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Add the legend of `axes` below all plots, where no curve is."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip


def _limit_loss(axes: Axes, places: NDArray[Any], columns: Sequence[NDArray[np.float64]]) -> None:
    """Start the axis at 0, cut off values far above the rest, and mark them.

    Each has an arrow at the top, NaN has none; the highest of neighbours has its value above the
    plot. `columns` have one value for each of `places`.
    """
    values = np.concatenate(columns)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    top = 1.05 * min(finite.max(), OUTLIER * np.median(finite)) or 1.0
    axes.set_ylim(min(0.0, finite.min()), top)
    # Fractions of the width: of the axes, whose scale is set already.
    fractions = (axes.transData + axes.transAxes.inverted()).transform(
        np.column_stack([np.tile(places, len(columns)), np.zeros(len(values))])
    )[:, 0]
    labels: list[float] = []
    arrows: list[float] = []
    for number in np.argsort(-values, kind="stable"):
        value, x = float(values[number]), float(fractions[number])
        if value <= top:
            continue
        if value > top and all(abs(x - other) >= ARROW_WIDTH for other in arrows):
            arrows.append(x)
            axes.plot(
                x, 0.985, "^", transform=axes.transAxes, color=BEST, markersize=6, clip_on=False,
                label="_cut",
            )  # fmt: skip
        if all(abs(x - other) >= LABEL_WIDTH for other in labels):
            labels.append(x)
            text = {np.inf: "infinite"}.get(value) or f"{value:.3g}".replace("nan", "NaN")
            axes.annotate(
                text, (x, 1.0), xycoords="axes fraction", xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=8, color=BEST, label="_cut",
            )  # fmt: skip


def style_axes(axes: Axes, title: str, x_label: str) -> None:
    """Set the title, the label of the x axis, and the report's style."""
    axes.set_facecolor(PAGE)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=TITLE_PAD)
    axes.set_xlabel(x_label, fontsize=9, color=QUIET)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=QUIET, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)


def _mark_phases(axes: Axes, phases: NDArray[np.str_]) -> None:
    """Shade every second phase and name each, if there are several."""
    starts = [0, *(np.flatnonzero(phases[1:] != phases[:-1]) + 1).tolist()]  # indices of epochs
    if len(starts) < 2:
        return
    for number, (start, end) in enumerate(itertools.pairwise([*starts, len(phases)])):
        if number % 2:
            axes.axvspan(start + 0.5, end + 0.5, color=PANEL, linewidth=0, zorder=0)
        axes.annotate(
            str(phases[start])[:24].replace("$", r"\$"), ((start + end + 1) / 2, 1.0),
            xycoords=("data", "axes fraction"), xytext=(0, 12), textcoords="offset points",
            ha="center", fontsize=8, color=QUIET,
        )  # fmt: skip


def _mark_best(axes: Axes, epoch: int, value: float) -> None:
    axes.axvline(epoch, color=BEST, linewidth=1.2, linestyle=":")
    axes.plot(
        epoch, value, "o", markersize=7, markerfacecolor=PAGE, markeredgecolor=BEST,
        markeredgewidth=1.8, linestyle="none", label=f"best: {epoch}",
    )  # fmt: skip
