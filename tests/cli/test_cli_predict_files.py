"""``predict --sort``, ``--out`` and ``--sheet``."""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pyarrow import parquet

import kindsight.cli.terminal.prediction_files as files
from tiny_bundle import probabilities, write_bundle, write_image

# Of one colour each: the mean blue, green and red decide.
SHADES = {"sure": (0, 0, 250), "close": (0, 120, 124), "middle": (0, 60, 140)}
HEADER = [
    "path", "label", "confidence", "error", "message", "reason", "best", "ood_score",
    "prediction_set", "p_blue", "p_green", "p_red",
]  # fmt: skip


@pytest.fixture
def shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, colour in SHADES.items():
        write_image(Path("new", f"{name}.png"), colour)
    Path("new", "broken.png").write_bytes(b"no image at all")
    write_image(Path("new", "=1+1.png"), (240, 0, 0))
    return tmp_path


def confidence(name: str) -> float:
    return max(probabilities(SHADES[name]).values())


def read_excel(path: str) -> list[list[list[str | float | None]]]:
    """Return the cells of each sheet, read from the XML without a library."""
    space = {"x": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    sheets = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if "/sheet" in name)
        for name in names:
            content = archive.read(name)
            assert b"<f>" not in content  # no formula
            rows = []
            for row in ElementTree.fromstring(content).iterfind(".//x:row", space):
                cells: dict[str, str | float] = {}
                for cell in row.iterfind("x:c", space):
                    text = cell.find(".//x:t", space)
                    number = cell.findtext("x:v", "", space)
                    column = re.sub(r"\d", "", cell.attrib["r"])
                    cells[column] = float(number) if text is None else text.text or ""
                rows.append([cells.get(column) for column in "ABCDEFGHIJKL"])
            sheets.append(rows)
    return sheets


def test_least_confident_first_and_unreadable_last(run, tiny, shades):
    names = ["sure", "close", "broken", "middle"]
    given = [f"new/{name}.png" for name in names]
    result = run("predict", tiny, *given, "--sort", "confidence", "--format", "csv")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    expected = ["close", "middle", "sure", "broken"]
    assert [row["path"] for row in rows] == [f"new/{name}.png" for name in expected]
    assert [float(row["confidence"]) for row in rows[:3]] == pytest.approx(
        [confidence(name) for name in expected[:3]], rel=1e-5
    )
    assert result.exit_code == 1  # one is unreadable


def test_another_order_is_an_error(run, tiny, shades):
    result = run("predict", tiny, "new", "--sort", "path")
    assert result.exit_code == 2 and "--sort must be confidence; got 'path'" in result.stderr


def test_a_csv_file_is_what_format_csv_prints(run, tiny, shades):
    printed = run("predict", tiny, "new", "--format", "csv")
    result = run("predict", tiny, "new", "--out", "rows.csv")
    assert result.stdout == "" and result.exit_code == 1
    assert "5 predictions written to rows.csv" in result.stderr
    assert Path("rows.csv").read_text("utf-8") == printed.stdout
    both = run("predict", tiny, "new", "--out", "again.csv", "--format", "csv", "--quiet")
    assert both.stdout == printed.stdout == Path("again.csv").read_text("utf-8")
    assert both.stderr == ""


def test_excel_and_parquet_files_have_the_same_cells(run, tiny, shades):
    order = ["new/close.png", "new/middle.png", "new/=1+1.png", "new/sure.png", "new/broken.png"]
    for ending in ("xlsx", "parquet"):
        result = run("predict", tiny, "new", "--sort", "confidence", "--out", f"rows.{ending}")
        assert result.stdout == "" and result.exit_code == 1
    table = parquet.read_table("rows.parquet")
    (sheet,) = read_excel("rows.xlsx")
    assert sheet[0] == table.column_names == HEADER
    for row, cells in zip(table.to_pylist(), sheet[1:], strict=True):
        for name, cell in zip(HEADER, cells, strict=True):
            assert cell == (pytest.approx(row[name]) if isinstance(row[name], float) else row[name])
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == order
    assert rows[0]["p_green"] == pytest.approx(probabilities(SHADES["close"])["green"], rel=1e-5)
    assert rows[-1]["label"] is None and rows[-1]["error"] == "not-an-image"


def test_top_leaves_the_other_cells_empty(run, tiny, shades):
    run("predict", tiny, "new/close.png", "--top", "2", "--out", "a.parquet", "--json")
    (row,) = parquet.read_table("a.parquet").to_pylist()
    assert row["p_red"] is None and row["p_green"] is not None


def test_names_that_are_no_unicode_are_escaped_and_texts_are_no_formulas(tmp_path):
    rows = [["a\udcff.png", "=1+1", 0.5, None, None, None, "b", 7.25, "[]", 0.5, 0.5, 0.0]]
    for ending in (".xlsx", ".parquet", ".csv"):
        files.write_table(str(tmp_path / f"t{ending}"), HEADER, iter(rows))
    ((_, cells),) = read_excel(str(tmp_path / "t.xlsx"))
    assert cells == ["a\\xff.png", "=1+1", 0.5, None, None, None, "b", 7.25, "[]", 0.5, 0.5, 0.0]
    (row,) = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert row["path"] == "a\\xff.png"
    assert "a\\xff.png" in (tmp_path / "t.csv").read_text("utf-8")


def test_more_rows_than_an_excel_sheet_has_go_on_in_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "EXCEL_ROWS", 4)
    rows = [
        [f"{k}.png", "blue", 0.5, None, None, None, "b", 7.25, "[]", 0.5, 0.5, 0.0]
        for k in range(7)
    ]
    files.write_table(str(tmp_path / "t.xlsx"), HEADER, iter(rows))
    sheets = read_excel(str(tmp_path / "t.xlsx"))
    assert [len(sheet) for sheet in sheets] == [4, 4, 2]
    assert [row[0] for sheet in sheets for row in sheet[1:]] == [f"{k}.png" for k in range(7)]
    assert all(sheet[0] == HEADER for sheet in sheets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.txt"], "must end in .csv, .xlsx or .parquet, or in / for a folder; got"),
        (["--sheet", "a.csv"], "must end in .html; got 'a.csv'"),
        (["--out", "none/a.csv"], "must be in a folder that exists"),
        (["--out", "there.csv"], "there.csv exists. Choose another --out, or overwrite it with"),
        (["--sheet", "there.html"], "there.html exists. Choose another --sheet, or overwrite"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_before_the_first_row(
    run, tiny, shades, options, message
):
    for name in ("there.csv", "there.html"):
        Path(name).write_text("mine")
    result = run("predict", tiny, "new", *options)
    assert result.exit_code == 2 and message in result.stderr and result.stdout == ""
    assert Path("there.csv").read_text() == Path("there.html").read_text() == "mine"
    assert run("predict", tiny, "new/sure.png", "--out", "there.csv", "--force").exit_code == 0
    assert Path("there.csv").read_text().startswith("path,label")


@pytest.mark.parametrize(("ending", "package"), [("xlsx", "xlsxwriter"), ("parquet", "pyarrow")])
def test_a_missing_package_is_named_with_its_command(
    run, tiny, shades, monkeypatch, ending, package
):
    real = files.find_spec
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == package else real(name))
    result = run("predict", tiny, "new", "--out", f"a.{ending}")
    assert result.exit_code == 2 and result.stdout == ""
    assert f"pip install 'kindsight[{ending}]'" in result.stderr


def test_more_classes_than_excel_has_columns(run, shades, monkeypatch, tiny):
    monkeypatch.setattr(files, "EXCEL_COLUMNS", 7)
    result = run("predict", tiny, "new", "--out", "a.xlsx")
    assert result.exit_code == 2 and "Write .csv or .parquet" in result.stderr


def test_the_sheet_shows_the_least_confident_images_first(run, tiny, shades):
    np.savez("more.npz", np.full((1, 8, 8, 3), (10, 10, 14), np.uint8))
    result = run("predict", tiny, "new", "more.npz", "--sheet", "sheet.html")
    assert "new/sure.png" in result.stdout  # the table is still printed
    assert "contact sheet written to sheet.html" in result.stderr
    page = Path("sheet.html").read_text("utf-8")
    shown = re.findall(r'class="path"><bdi>(.*?)</bdi>', page)
    assert shown[:3] == ["more.npz:arr_0[0]", "new/close.png", "new/middle.png"]
    assert shown[-1] == "new/broken.png" and len(shown) == 6
    assert page.count("data:image/jpeg") == 5 and page.count(">unreadable<") == 1
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert "1 image could not be read" in page
    low = sum(confidence(name) < 0.8 for name in SHADES) + 1
    assert f"{low} of 5 images</strong> with a confidence below 80%" in page


def test_the_sheet_has_a_limit_and_escapes_names(run, tmp_path, monkeypatch, shades):
    monkeypatch.setattr(files, "SHOWN", 2)
    bundle = write_bundle(tmp_path / "odd", classes=("<b>blue</b>", "green", "red"))
    run("predict", str(bundle), "new", "--sheet", "sheet.html")
    page = Path("sheet.html").read_text("utf-8")
    assert page.count('class="card') - page.count('class="cards') == 2
    assert "The 2 least confident of 5 images" in page
    assert "<b>blue</b>" not in page and "&lt;b&gt;blue" in page


def test_an_image_removed_since_has_no_preview(tiny, shades, monkeypatch):
    from kindsight.predictor import Predictor

    predicted = [
        files.PredictedImage(each, lambda path=each.path: files.load_image(path))
        for each in Predictor(tiny).predict(["new/sure.png"])
    ]
    Path("new/sure.png").unlink()
    files.write_sheet("sheet.html", predicted, tiny)
    assert "no preview" in Path("sheet.html").read_text("utf-8")
