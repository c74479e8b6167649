from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from tiny_bundle import COLOURS, probabilities, write_bundle, write_image


def rows_of(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_rows_have_exactly_the_promised_keys_and_the_numbers_worked_out_by_hand(
    run, tiny, colours
):
    result = run("predict", tiny, "new/red.png", "--format", "jsonl")
    (row,) = rows_of(result)
    assert result.exit_code == 0
    assert list(row) == [
        "path", "label", "reason", "best", "confidence", "ood_score", "prediction_set",
        "probabilities", "error",
    ]  # fmt: skip
    assert row["best"] == "red"
    assert row["reason"] is row["ood_score"] is row["prediction_set"] is None
    assert (row["path"], row["label"], row["error"]) == ("new/red.png", "red", None)
    # softmax of (0, 0, 255 / 50)
    assert row["probabilities"] == pytest.approx(
        {"blue": 0.0060233, "green": 0.0060233, "red": 0.9879534}, rel=1e-5
    )
    assert row["confidence"] == row["probabilities"]["red"]


def test_the_temperature_of_the_bundle_softens_the_probabilities(run, colours):
    warm = write_bundle(colours / "warm", temperature=5.0)
    (row,) = rows_of(run("predict", str(warm), "new/red.png", "--json"))
    # softmax of (0, 0, 1.02)
    assert row["confidence"] == pytest.approx(0.580992, abs=1e-5)


def test_an_unreadable_image_gets_a_row_the_rest_goes_on_and_the_exit_code_is_1(run, tiny, colours):
    files = ("new/red.png", "new/broken.png", "nowhere.png", "new/blue.png")
    result = run("predict", tiny, *files, "--json")
    rows = rows_of(result)
    assert result.exit_code == 1
    assert [row["path"] for row in rows] == list(files)
    assert [row["label"] for row in rows] == ["red", None, None, "blue"]
    assert rows[1]["error"]["code"] == "not-an-image"
    assert rows[2]["error"]["code"] == "missing"
    assert rows[1]["error"]["message"]
    for row in rows[1:3]:
        assert row["confidence"] is None and row["probabilities"] is None
    assert "2 of 4 images could not be read" in result.stderr


def test_json_is_the_same_as_format_jsonl(run, tiny, colours):
    short, long = (
        run("predict", tiny, "new/red.png", *given) for given in (["--json"], ["--format", "jsonl"])
    )
    assert short.stdout == long.stdout != ""


def test_top_keeps_the_most_probable_classes_in_order(run, tiny, colours):
    write_image(colours / "mixed.png", (100, 50, 200))
    (row,) = rows_of(run("predict", tiny, "mixed.png", "--json", "--top", "2"))
    expected = probabilities((100, 50, 200))
    assert list(row["probabilities"]) == ["blue", "red"]
    assert row["probabilities"]["red"] == pytest.approx(expected["red"], rel=1e-5)


def test_top_above_the_number_of_classes_gives_them_all(run, tiny, colours):
    (row,) = rows_of(run("predict", tiny, "new/red.png", "--json", "--top", "99"))
    assert set(row["probabilities"]) == set(COLOURS)


def test_csv_has_one_heading_and_a_column_for_each_class(run, tiny, colours):
    result = run("predict", tiny, "new/green.png", "new/broken.png", "--format", "csv")
    head, good, bad = csv.reader(io.StringIO(result.stdout))
    assert result.exit_code == 1
    assert head == [
        "path", "label", "confidence", "error", "message", "reason", "best", "ood_score",
        "prediction_set", "p_blue", "p_green", "p_red",
    ]  # fmt: skip
    assert good[:2] == ["new/green.png", "green"] and good[3:9] == ["", "", "", "green", "", ""]
    assert [float(cell) for cell in good[9:]] == pytest.approx([0.0060233, 0.9879534, 0.0060233])
    assert bad[:4] == ["new/broken.png", "", "", "not-an-image"]
    assert bad[4] and bad[5:] == [""] * 7


def test_csv_leaves_the_cells_of_classes_below_the_top_empty(run, tiny, colours):
    result = run("predict", tiny, "new/green.png", "--format", "csv", "--top", "1")
    assert [bool(cell) for cell in next(csv.reader(result.stdout.splitlines()[1:]))[9:]] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["=1+1.png", "+a.png", "@sum.png", "-1.png"])
def test_no_path_in_csv_starts_like_a_formula_and_it_still_names_the_file(run, tiny, colours, name):
    write_image(colours / name, COLOURS["red"])
    result = run("predict", tiny, "--format", "csv", "--", name)
    row = list(csv.reader(io.StringIO(result.stdout)))[1]
    assert row[0] == f".{os.sep}{name}"
    assert Path(row[0]).is_file()


@pytest.mark.parametrize(
    ("name", "cell"), [("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("-1", "-1"), ("+2.5", "+2.5")]
)
def test_a_label_in_csv_that_looks_like_a_formula_is_made_text_but_a_number_is_not(
    run, colours, name, cell
):
    bundle = write_bundle(colours / "formulas", ("blue", "green", name))
    result = run("predict", str(bundle), "new/red.png", "--format", "csv")
    head, row = csv.reader(io.StringIO(result.stdout))
    assert row[1] == row[head.index("best")] == cell
    assert head[-1] == f"p_{name}"


def test_quotes_commas_and_line_ends_in_names_survive_csv_and_json(run, tiny, colours):
    name = 'a "b", c\nd.png' if os.name != "nt" else "a, c.png"
    write_image(colours / name, COLOURS["blue"])
    table = run("predict", tiny, name, "--format", "csv")
    assert list(csv.reader(io.StringIO(table.stdout)))[1][0] == name
    assert rows_of(run("predict", tiny, name, "--json"))[0]["path"] == name


def test_the_table_has_fixed_columns_and_the_whole_path_last(run, tiny, colours):
    deep = "a/very/long/path/" * 6 + "red.png"
    write_image(colours / deep, COLOURS["red"])
    result = run("predict", tiny, "new/blue.png", deep, "new/broken.png")
    assert result.stdout.splitlines()[:3] == [
        "label  confidence  image",
        "blue        98.8%  new/blue.png",
        f"red         98.8%  {deep}",
    ]
    assert result.stdout.splitlines()[3].startswith("unreadable              new/broken.png  (")


def test_the_table_shows_the_next_classes_with_top(run, tiny, colours):
    write_image(colours / "mixed.png", (100, 50, 200))
    result = run("predict", tiny, "mixed.png", "--top", "3")
    assert result.stdout.splitlines() == [
        "label  confidence  next           next           image",
        "blue        84.4%  red     11.4%  green    4.2%  mixed.png",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist there only")
def test_names_that_are_not_utf8_are_escaped_and_come_back(run, tiny, colours):
    name = os.fsdecode(b"new/\xff\x1b.png")
    write_image(colours / name, COLOURS["red"])
    (row,) = rows_of(run("predict", tiny, name, "--json"))
    assert row["path"] == "new/\\xff\x1b.png"
    written = run("predict", tiny, name, "--format", "csv").stdout_bytes
    assert written.decode().splitlines()[1].startswith("new/\\xff\x1b.png,red,")
    (colours / "predictions.csv").write_bytes(written)
    (row,) = rows_of(run("predict", tiny, "predictions.csv", "--json"))
    assert (row["path"], row["label"]) == ("new/\\xff\x1b.png", "red")
    table = run("predict", tiny, name)
    assert table.exit_code == 0
    assert table.stdout.splitlines()[1].endswith(r"new/\xff\x1b.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_lists_of_names_in_other_encodings(run, tiny, colours, encoding):
    write_image(colours / "grün.png", COLOURS["green"])
    names = "new/red.png\r\ngrün.png\n".encode(encoding)
    given = ["--encoding", encoding] if encoding == "cp1252" else []
    rows = rows_of(run("predict", tiny, "-", "--json", *given, input=names))
    assert [row["path"] for row in rows] == ["new/red.png", "grün.png"]
    assert [row["label"] for row in rows] == ["red", "green"]
    if given:
        result = run("predict", tiny, "-", "--json", input=names)
        assert result.exit_code == 2
        assert "Line 2 of standard input is not UTF-8" in result.stderr
        assert "--encoding cp1252" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist there only")
def test_a_list_of_names_that_are_not_utf8(run, tiny, colours):
    name = os.fsdecode(b"new/\xff.png")
    write_image(colours / name, COLOURS["red"])
    for line in (b"new/\xff.png\n", b"new/\\xff.png\n"):
        (row,) = rows_of(run("predict", tiny, "-", "--json", input=line))
        assert (row["path"], row["label"]) == (r"new/\xff.png", "red")


def test_class_names_of_any_script_are_written_as_they_are(run, colours):
    bundle = write_bundle(colours / "scripts", ("blå", "grün", "红"))
    result = run("predict", str(bundle), "new/red.png", "--json")
    assert "红" in result.stdout
    assert rows_of(result)[0]["label"] == "红"
    table = run("predict", str(bundle), "new/red.png", "new/blue.png").stdout.splitlines()
    # 红 takes two columns of a terminal
    assert table[1:] == ["红          98.8%  new/red.png", "blå         98.8%  new/blue.png"]


def test_a_folder_stands_for_the_images_in_and_below_it(run, tiny, colours):
    write_image(colours / "new" / "more" / "red.png", COLOURS["red"])
    (colours / "new" / "more" / "notes.txt").write_text("passed over")
    (colours / "new" / ".hidden.png").write_bytes(b"")
    result = run("predict", tiny, "new", "--json")
    assert [row["path"] for row in rows_of(result)] == [
        str(Path("new", name))
        for name in ("blue.png", "broken.png", "green.png", "red.png", "more/red.png")
    ]
    assert "1 x hidden file, 1 x not an image (.txt)" in result.stderr


def test_a_pattern_that_the_shell_left_alone_is_expanded(run, tiny, colours):
    result = run("predict", tiny, "new/*e*.png", "--json")
    assert [row["path"] for row in rows_of(result)] == [
        str(Path("new", name)) for name in ("blue.png", "broken.png", "green.png", "red.png")
    ]
    deep = run("predict", tiny, "**/red.png", "--json")
    assert [row["path"] for row in rows_of(deep)] == [str(Path("new", "red.png"))]


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist on Windows")
def test_a_file_whose_name_is_a_pattern_is_that_file(run, tiny, colours):
    write_image(colours / "new" / "[ab]*.png", COLOURS["green"])
    (row,) = rows_of(run("predict", tiny, "new/[ab]*.png", "--json"))
    assert (row["path"], row["label"]) == ("new/[ab]*.png", "green")


def test_a_pattern_that_matches_nothing_is_a_misuse_and_nothing_is_printed(run, tiny, colours):
    result = run("predict", tiny, "new/red.png", "old/*.jpg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No file matches old/*.jpg." in result.stderr


def test_a_folder_without_images_is_a_misuse(run, tiny, colours):
    (colours / "empty").mkdir()
    (colours / "empty" / "notes.txt").write_text("nothing")
    result = run("predict", tiny, "empty")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No images found; ignored: 1 x not an image (.txt)." in result.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "new/red.png\nnew/blue.png\n"),
        ((), "new/red.png\r\n\r\nnew/blue.png"),
        (("--null",), "new/red.png\0new/blue.png\0"),
        (("-0",), "new/red.png\0new/blue.png"),
    ],
)
def test_a_list_on_standard_input(run, tiny, colours, options, text):
    result = run("predict", tiny, "-", "--json", *options, input=text.encode())
    assert result.exit_code == 0
    assert [row["path"] for row in rows_of(result)] == ["new/red.png", "new/blue.png"]


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("options", [(), ("--null",)])
def test_an_image_on_standard_input(run, tiny, colours, format_, options):
    file = io.BytesIO()
    Image.new("RGB", (12, 9), COLOURS["red"]).save(file, format_)
    if options and format_ not in ("PNG", "JPEG", "PPM"):
        return  # may be the name of a file
    result = run("predict", tiny, "-", "--json", *options, input=file.getvalue())
    (row,) = rows_of(result)
    assert (row["path"], row["label"], row["error"]) == ("-", "red", None)
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\xff\xd8\xff\xe0 cut", "truncated"), (b"\xff\x0a" + bytes(40), "unsupported")],
)
def test_an_image_on_standard_input_that_cannot_be_read(run, tiny, colours, content, code):
    result = run("predict", tiny, "-", "--json", input=content)
    (row,) = rows_of(result)
    assert (row["path"], row["error"]["code"], result.exit_code) == ("-", code, 1)


def test_names_that_begin_like_an_image(run, tiny, colours):
    names = ["GIF89a.png", "P6 1.png", "BM.png"]
    for name in names:
        write_image(colours / name, COLOURS["red"])
    for name in names:
        result = run("predict", tiny, "-", "--json", input=f"{name}\nnew/blue.png\n".encode())
        assert [row["path"] for row in rows_of(result)] == [name, "new/blue.png"]


def test_names_on_standard_input_may_begin_with_a_byte_order_mark(run, tiny, colours):
    result = run("predict", tiny, "-", "--json", input="\ufeffnew/red.png\nnew/blue.png".encode())
    assert [row["label"] for row in rows_of(result)] == ["red", "blue"]


def test_names_on_standard_input_may_hold_line_feeds_with_null(run, tiny, colours):
    if os.name == "nt":
        pytest.skip("such names do not exist on Windows")
    write_image(colours / "a\nb.png", COLOURS["red"])
    (row,) = rows_of(run("predict", tiny, "-", "-0", "--json", input=b"a\nb.png\0"))
    assert (row["path"], row["label"]) == ("a\nb.png", "red")


def test_folders_and_other_arguments_stand_beside_standard_input(run, tiny, colours):
    files = ("new/blue.png", "-", "new/green.png")
    result = run("predict", tiny, *files, "--json", input=b"new/red.png\n")
    assert [row["label"] for row in rows_of(result)] == ["blue", "red", "green"]


def test_an_empty_list_on_standard_input_is_no_error(run, tiny, colours):
    result = run("predict", tiny, "-", "--json", input=b"")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no file names" in result.stderr


def test_a_list_without_line_ends_is_refused_before_it_fills_the_memory(run, tiny, colours):
    result = run("predict", tiny, "-", input=b"x" * 300_000)
    assert result.exit_code == 2
    assert "longer than 131,072 bytes" in result.stderr


def test_many_names_on_standard_input_come_back_in_order(run, tiny, colours):
    names = [f"new/{name}.png" for name in COLOURS] * 120
    result = run("predict", tiny, "-", "--json", input="\n".join(names).encode())
    assert [row["path"] for row in rows_of(result)] == names


def test_a_name_with_a_nul_is_a_row_like_any_other(run, tiny, colours):
    result = run("predict", tiny, "-", "--json", input=b"a\0b.png\nnew/red.png\n")
    assert [row["label"] for row in rows_of(result)] == [None, "red"]
    assert result.exit_code == 1


def test_quiet_leaves_rows_and_the_exit_code(run, tiny, colours):
    result = run("predict", tiny, "new", "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (1, "")
    assert len(rows_of(result)) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "xml"), "--format must be one of table, jsonl, csv; got 'xml'"),
        (("--format", "csv", "--json"), "--json means --format jsonl"),
        (("--top", "0"), "--top"),
        (("--workers", "0"), "--workers"),
        (("--nonsense",), "No such option"),
    ],
)
def test_misuse_exits_with_2_and_prints_no_row(run, tiny, colours, options, said):
    result = run("predict", tiny, "new/red.png", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_bundle_that_is_none_exits_with_1(run, colours):
    result = run("predict", "new", "new/red.png")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("kindsight: new is not a bundle: it has no bundle.json.")


def test_without_images_the_usage_is_shown(run, tiny):
    result = run("predict", tiny)
    assert result.exit_code == 2
    assert "kindsight predict [OPTIONS] BUNDLE FILES..." in result.stderr


@pytest.mark.parametrize("workers", ["1", "4"])
def test_the_predictions_do_not_depend_on_the_number_of_workers(run, tiny, colours, workers):
    result = run("predict", tiny, "new", "--json", "--workers", workers)
    assert [row["label"] for row in rows_of(result)] == ["blue", None, "green", "red"]


def test_unsupported_files_get_a_row_each_named_or_in_a_folder(run, tiny, colours):
    contents = {
        "a.HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
        "b.svg": b"<svg></svg>",
        "c": b"%PDF-1.7 " + bytes(40),
        "d.mov": b"\0\0\0\x18ftypqt  " + bytes(40),
    }
    for name, content in contents.items():
        (colours / "new" / name).write_bytes(content)
    (colours / "new" / "broken.png").unlink()
    folder = run("predict", tiny, "new", "--json")
    names = sorted(f"new/{file.name}" for file in (colours / "new").iterdir())
    named = run("predict", tiny, *names, "--json")
    assert folder.exit_code == named.exit_code == 1
    assert rows_of(folder) == rows_of(named)
    errors = [row["error"]["code"] for row in rows_of(folder) if row["error"]]
    assert errors == ["unsupported"] * 4
    assert "4 of 7 images could not be read" in folder.stderr


def test_what_a_table_does_not_use_is_noted(run, tiny, colours, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    write_image(outside / "red.png", COLOURS["red"])
    try:
        (colours / "new" / "link.png").symlink_to(outside / "red.png")
    except (OSError, NotImplementedError):
        pytest.skip("no symbolic links here")
    (colours / "new" / "table.csv").write_text("path\nred.png\nlink.png\n")
    followed = run("predict", tiny, "new/table.csv", "--json")
    assert [row["label"] for row in rows_of(followed)] == ["red", "red"]
    result = run("predict", tiny, "new/table.csv", "--json", "--no-follow-links")
    assert [row["label"] for row in rows_of(result)] == ["red"]
    assert "Ignored: 1 x link to outside the folder, first 'link.png'." in result.stderr
    assert "ignored: 1 x link to outside the folder." in result.stderr
    folder = run("predict", tiny, "new", "--json", "--no-follow-links")
    assert "1 x link to outside the folder" in folder.stderr
    assert len(rows_of(folder)) == 4
