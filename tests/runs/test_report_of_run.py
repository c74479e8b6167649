"""The report of a finished run: the page of its training, images from the cache or the data."""

from __future__ import annotations

import json
import shutil

import pytest

from html_page import Page
from kindsight import make_report
from kindsight.errors import BundleError, UsageError
from kindsight.runs.reporting.facts import ReportFacts


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained.run, tmp_path / "run")


def images(page: str) -> int:
    return Page(page).names.count("img")


def test_it_is_the_page_that_training_wrote(trained):
    page = trained.report.read_text("utf-8")
    assert make_report(trained.run) == page
    assert images(page) > 0
    assert (trained.run / "model_card.md").read_text("utf-8").startswith("---\nlibrary_name")


def test_without_the_cache_the_images_come_from_the_data(trained, tmp_path):
    page = trained.report.read_text("utf-8")
    assert images(make_report(trained.run, cache=tmp_path / "empty")) == images(page)


def test_without_cache_and_data_there_are_no_images(run, tmp_path):
    settings = (run / "settings.toml").read_text()
    changed = [
        f'data = "{tmp_path / "gone"}"' if line.startswith("data =") else line
        for line in settings.splitlines()
    ]
    (run / "settings.toml").write_text("\n".join(changed))
    page = make_report(run, cache=tmp_path / "empty")
    # Overlays, pairs of images, are in the run folder.
    assert images(page) == 2 * len(ReportFacts.read(run).overlays)
    assert "Reproduce" in page


def test_what_was_added_since_is_shown(run):
    finding = {
        "code": "KD999", "title": "Found later", "severity": "note", "message": "A message.",
        "figure": {"accuracy": 0.5}, "evidence": "Some.", "commands": ["kindsight x"],
        "remedies": [],
    }  # fmt: skip
    (run / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    points = [
        {"images": n, "accuracy": a, "low": a - 0.1, "high": a} for n, a in ((5, 0.5), (9, 0.7))
    ]
    curve = {"points": points, "fit": points, "sentence": "Twice as many help.", "classes": []}
    (run / "learning_curve.json").write_text(json.dumps(curve))
    page = make_report(run)
    for text in ("KD999", "Found later", "kindsight x", "Twice as many help."):
        assert text in page


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("diagnosis.json", "{"),
        ("diagnosis.json", '{"findings": 3}'),
        ("diagnosis.json", '{"findings": [{}]}'),
        ("learning_curve.json", '{"points": [{"images": "many"}]}'),
        ("learning_curve.json", "[]"),
        ("report.json", '{"notes": 1}'),
    ],
)
def test_damage_is_named(run, name, text):
    (run / name).write_text(text)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        make_report(run)


def test_damaged_uncertainty_is_named(run):
    facts = json.loads((run / "bundle.json").read_text())
    facts["uncertainty"] = {"unsure": {"curve": "x"}}
    (run / "bundle.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=r"bundle\.json is damaged"):
        make_report(run)


def test_a_run_is_needed(tmp_path):
    with pytest.raises(UsageError, match="at least one run"):
        make_report()
    with pytest.raises(BundleError):
        make_report(tmp_path)
