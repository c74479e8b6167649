"""The pages in headless Chromium: no violation of axe's rules, and what their script does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from audit import audit, evaluate_in_page

from kindsight.explain import Explanation, map_images
from kindsight.explain.overlay import encode, place_map
from kindsight.explain.pages import MappedPrediction, render_explanations, render_image_map
from kindsight.explain.similarity import Neighbour
from kindsight.images import InputSpec
from kindsight.report.page import render_report
from kindsight.report.side_by_side import render_side_by_side
from kindsight.uncertainty.prediction import Prediction

sys.path.append(str(Path(__file__).parents[1] / "report"))
from test_report_page import everything, report
from test_side_by_side import two

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(everything())


def test_axe_finds_violations_where_there_are_some(page, tmp_path):
    pale = "<p style='color:#eee;background:#fff'>Pale words on white.</p>"
    bad = page.replace("<h1>", f"<img src='data:,'>{pale}<h1>")
    found = " ".join(audit(bad, tmp_path)["found"])
    assert "image-alt" in found
    assert "color-contrast" in found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_report_has_no_violations(page, tmp_path, dark):
    assert audit(page, tmp_path, dark=dark)["found"] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_runs_side_by_side_have_no_violations(tmp_path, dark):
    assert audit(render_side_by_side(two()), tmp_path, dark=dark)["found"] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_explanations_have_no_violations(tmp_path, dark):
    image = np.full((40, 60, 3), 120, np.uint8)
    maps = {
        "grad-cam": place_map(np.eye(8, dtype=np.float32), InputSpec(8, 8, fit="crop"), (40, 60))
    }
    classes, probabilities = ("cat", "dog"), np.array([0.9, 0.1], np.float32)
    found = Prediction("a.jpg", classes, np.log(probabilities), probabilities)
    near = (Neighbour("b.jpg", "dog", 0.8), Neighbour("c.jpg", "cat", 0.7, encode(image, "jpeg")))
    shown = Explanation(found, "cat", "dog", (40, 60), image, maps, near, ("A note.",))
    page = render_explanations([shown, shown], "photos-1")
    assert audit(page, tmp_path, dark=dark)["found"] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_map_of_images_has_no_violations(tmp_path, dark):
    vectors = np.eye(6, dtype=np.float32)
    placed = map_images("validation", [f"{n}.jpg" for n in range(6)], vectors)
    predictions = [MappedPrediction("cat", "dog" if n else "cat", 0.9) for n in range(6)]
    page = render_image_map(placed, predictions, lambda _: b"", "photos-1", total=9)
    assert audit(page, tmp_path, dark=dark)["found"] == []


def test_opened_images_have_no_violations(page, tmp_path):
    assert audit(page, tmp_path, at="class-0")["found"] == []


def test_a_report_of_many_classes_has_no_violations(tmp_path):
    assert audit(render_report(report(40, 400)), tmp_path)["found"] == []


def test_a_cell_opens_its_images_and_no_others(page, tmp_path):
    shown = "[...document.querySelectorAll('.cell')].filter((e) => e.offsetParent).map((e) => e.id)"
    assert evaluate_in_page(page, tmp_path, shown) == []
    assert evaluate_in_page(page, tmp_path, shown, at="cell-0-1") == ["cell-0-1"]
    opened = evaluate_in_page(page, tmp_path, shown, at="class-0")
    assert {"cell-0-0", "cell-0-1"} <= set(opened)
    assert all(name.startswith("cell-0-") for name in opened)


def test_the_policy_runs_the_script_of_the_page_and_no_other(page, tmp_path):
    sort = (
        "(document.querySelector('table.sortable .sort').click(), "
        "document.querySelectorAll('th[aria-sort]').length)"
    )
    assert evaluate_in_page(page, tmp_path, sort) == 1
    assert evaluate_in_page(page, tmp_path, "document.querySelectorAll('.copy').length") > 0
    foreign = page.replace("</main>", "<script>document.title = 'foreign'</script></main>")
    assert evaluate_in_page(foreign, tmp_path, "document.title") == "A report"


@pytest.mark.parametrize("kind", ["one", "several"])
def test_nothing_is_wider_than_a_phone(page, tmp_path, kind):
    shown = page if kind == "one" else render_side_by_side(two())
    assert (
        evaluate_in_page(shown, tmp_path, "document.documentElement.scrollWidth", width=390) <= 390
    )
