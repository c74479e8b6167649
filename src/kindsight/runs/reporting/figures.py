"""Training curves as separate files of a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kindsight.files import replacing, write_text
from kindsight.report.drawing.curves import curve_table, draw_curve, draw_rate, rate_table, svg_file
from kindsight.training.engine.history import History

__all__ = ["write_history_figures", "write_learning_rate_figures"]


def write_history_figures(history: History, folder: Path) -> tuple[Path, Path]:
    """Write accuracy and loss by epoch as ``history.svg`` and ``history.png``.

    Parameters
    ----------
    history : History
        At least one epoch.
    folder : pathlib.Path
        Files of these names in it are replaced.

    Returns
    -------
    svg, png : pathlib.Path

    Raises
    ------
    UsageError
        For a history without epochs.
    """
    png = history.plot().png()
    drawings = [
        draw_curve(curve_table(history.rows(), history.best_epoch, quantity), quantity)
        for quantity in ("accuracy", "loss")
    ]
    return _write(folder, "history", svg_file(drawings, "Accuracy and loss by epoch"), png)


def write_learning_rate_figures(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None, folder: Path
) -> tuple[Path, Path]:
    """Write loss by learning rate as ``learning_rate.svg`` and ``learning_rate.png``.

    Parameters
    ----------
    rates : sequence of float
        Above 0, rising.
    losses : sequence of float
        As many, in nats; values that are not finite are left out.
    suggestion : float or None
        The rate to mark.
    folder : pathlib.Path
        Files of these names in it are replaced.

    Returns
    -------
    svg, png : pathlib.Path

    Raises
    ------
    UsageError
        Where there is no step with a finite loss, or rates and losses differ in number.
    """
    from kindsight.training.engine.plots import learning_rate_figure

    png = learning_rate_figure(rates, losses, suggestion).png()
    drawing = draw_rate(rate_table(rates, losses, suggestion))
    return _write(folder, "learning_rate", svg_file([drawing], "Loss by learning rate"), png)


def _write(folder: Path, name: str, svg: str, png: bytes) -> tuple[Path, Path]:
    targets = folder / f"{name}.svg", folder / f"{name}.png"
    write_text(targets[0], svg)
    with replacing(targets[1]) as temporary:
        temporary.write_bytes(png)
    return targets
