"""The page of several runs: each has its column, and what differs is shown."""

from __future__ import annotations

import dataclasses

from test_report_page import everything, report

from html_page import HOSTILE, Page
from kindsight.report.side_by_side import Difference, SideBySide, render_side_by_side


def two(**changes) -> SideBySide:
    first = dataclasses.replace(everything(), settings={"seed": "1", "data": "photos"})
    second = report(3, 60, run="photos-2", settings={"seed": "2", "data": "photos"})
    difference = Difference("photos-2", -0.043, -0.1, 0.02, 0.21, "No real difference.")
    facts = {"differences": (difference,), "images": 90, "source": "test split"}
    return SideBySide((first, second), **(facts | changes))


def test_every_run_has_its_metrics():
    data = two()
    rows = Page(render_side_by_side(data)).rows
    head = next(i for i, row in enumerate(rows) if row[:1] == ["Metric"])
    assert rows[head] == ["Metric", "photos-1", "photos-2"]
    accuracies = [f"{100 * run.results[0].evaluation.accuracy:.1f}%" for run in data.runs]
    assert rows[head + 1][0] == "Accuracy"
    for cell, accuracy in zip(rows[head + 1][1:], accuracies, strict=True):
        assert cell.startswith(accuracy)


def test_differences_and_different_settings_are_shown():
    page = Page(render_side_by_side(two()))
    assert ["photos-2", "-4.3 points", "-10.0 to +2.0", "0.21"] in page.rows
    assert "No real difference." in page.text_of("p")
    assert ["seed", "1", "2"] in page.rows
    assert ["data", "photos", "photos"] not in page.rows


def test_curves_have_tables():
    rows = Page(render_side_by_side(two())).rows
    dash = "\N{EN DASH}"
    assert ["2", "90.0%", dash] in rows  # of the run with epochs
    assert ["50.0%", "99.0%", dash] in rows
    assert ["80.0%", "95.0%", dash] in rows
    assert ["90.0%", "90.0%", dash] in rows


def test_runs_of_one_name_are_told_apart_by_their_folders():
    same = tuple(report(run="a", run_folder=f"{name}/a") for name in ("x", "y"))
    rows = Page(render_side_by_side(SideBySide(same))).rows
    assert ["Metric", "x/a", "y/a"] in rows


def test_text_from_outside_is_escaped():
    hostile = report(run=HOSTILE, settings={HOSTILE: HOSTILE}, diagnoses=everything().diagnoses)
    item = Difference(HOSTILE, 0.0, 0.0, 0.0, 1.0, HOSTILE)
    data = SideBySide((hostile, report()), (item,), 9, HOSTILE, (HOSTILE,))
    text = render_side_by_side(data)
    assert text.lower().count("<script") == 1
    assert "img" not in Page(text).names
    assert Page(text).unbalanced == []
