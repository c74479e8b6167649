"""Matplotlib figures of a history and of the learning-rate finder."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kindsight.errors import UsageError
from kindsight.runs.reporting.make import write_history_figures, write_learning_rate_figures
from kindsight.training.engine.history import EpochRow, History
from kindsight.training.engine.plots import learning_rate_figure

HISTORY = History([
    EpochRow(1, "head", 1.0, 0.1, 0.75, 0.5, 0.7, 0.6),
    EpochRow(2, "head", 1.0, 0.1, 0.5, 0.75, 0.6, 0.8),
    EpochRow(3, "all $x$", 1.0, 0.1, 0.25, 1.0, 0.65, 0.7),
])  # fmt: skip


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_both_axes_have_both_lines_and_the_best_epoch():
    accuracy, loss = HISTORY.plot().axes
    assert accuracy.get_title(loc="left") == "accuracy"
    found = lines(accuracy)
    assert found["training"] == [[1, 0.5], [2, 0.75], [3, 1.0]]
    assert found["validation"] == [[1, 0.6], [2, 0.8], [3, 0.7]]
    assert found["best: 2"] == [[2, 0.8]]
    found = lines(loss)
    assert found["training"] == [[1, 0.75], [2, 0.5], [3, 0.25]]
    assert found["best: 2"] == [[2, 0.6]]
    assert loss.get_ylim()[0] == 0
    assert [text.get_text() for text in loss.texts] == ["head", r"all \$x\$"]


def test_what_is_cut_is_marked_with_its_value():
    losses = [900.0, 0.5, 0.4, 0.4, 0.3, 0.3, 45.25, 0.3, math.nan]
    history = History(
        EpochRow(k, "on", 1.0, 0.1, 0.3, 0.5, loss, 0.5) for k, loss in enumerate(losses, 1)
    )
    figure = history.plot()
    _, loss = figure.axes
    arrows = [line.get_xydata()[0] for line in loss.get_lines() if line.get_marker() == "^"]
    # epochs 1 and 7 of an axis from 0.5 to 9.5
    assert [x for x, _ in arrows] == pytest.approx([0.5 / 9, 6.5 / 9])
    assert [text.get_text() for text in loss.texts] == ["900", "45.2", "NaN"]
    # The legend is outside of both plots: no curve is below it.
    assert not any(axes.get_legend() for axes in figure.axes)
    (legend,) = figure.legends
    figure.draw_without_rendering()
    frame = legend.get_window_extent()
    assert all(frame.y1 <= axes.get_window_extent().y0 for axes in figure.axes)
    assert not [line for line in HISTORY.plot().axes[1].get_lines() if line.get_marker() == "^"]


def test_without_validation_there_is_one_line():
    history = History([EpochRow(1, "train", 1.0, 0.1, math.nan, 0.5)])
    accuracy, _ = history.plot().axes
    assert lines(accuracy)["training"] == [[1, 0.5]]
    assert "validation" not in lines(accuracy)
    assert len(accuracy.texts) == 0


def test_notebooks_get_the_same_png_each_time():
    figure = HISTORY.plot()
    content = figure._repr_png_()
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.width > 2 * image.height
        assert len(np.unique(np.asarray(image.convert("L")))) > 50
    assert HISTORY.plot().png() == content


def test_plots_do_not_import_pyplot():
    code = (
        "import sys; from kindsight.training.engine.history import EpochRow, History\n"
        "assert 'matplotlib' not in sys.modules\n"
        "History([EpochRow(1, 'a', 1, 1, 1, 1)]).plot().png()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_to_draw_raises():
    with pytest.raises(UsageError, match="without epochs"):
        History().plot()
    for rates, losses in (([], []), ([0.1], []), ([0.1], [math.nan])):
        with pytest.raises(UsageError, match="at least one of them finite"):
            learning_rate_figure(rates, losses, None)


def test_the_learning_rate_figure_marks_the_suggestion():
    (axes,) = learning_rate_figure([1e-4, 1e-3, 1e-2], [1.0, 0.5, 9.0], 1e-3).axes
    assert axes.get_xscale() == "log"
    assert lines(axes)["loss"] == [[1e-4, 1.0], [1e-3, 0.5], [1e-2, 9.0]]
    assert [x for x, _ in lines(axes)["suggested: 0.001"]] == [1e-3, 1e-3]
    # eight times the middle loss of 1.0, and a twentieth of room
    assert axes.get_ylim() == pytest.approx((0, 8.4))


def test_files_are_written_whole(tmp_path):
    svg, png = write_history_figures(HISTORY, tmp_path)
    assert svg.read_text("utf-8").count("<svg") == 3
    assert png.read_bytes() == HISTORY.plot().png()
    svg, png = write_learning_rate_figures([1e-3, 1e-2], [0.5, 0.4], 1e-2, tmp_path)
    assert "suggested: 0.01" in svg.read_text("utf-8")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.png", "history.svg", "learning_rate.png", "learning_rate.svg"
    ]  # fmt: skip
    with pytest.raises(UsageError):
        write_history_figures(History(), tmp_path)
