"""Tables, rows of pixels, arrays and telling names, through predict and evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiny_bundle import COLOURS, write_image


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Blue, green and red, as files, in a table, as rows of pixels and as arrays."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    lines = ["path,label"]
    for name, colour in COLOURS.items():
        write_image(folder / f"{name}_1.png", colour)
        lines.append(f"{name}_1.png,{name}")
    (folder / "table.csv").write_text("\n".join([*lines, "gone.png,red", ""]))
    rows = [[name, *(COLOURS[name] * 4)] for name in COLOURS]
    header = ["label", *(f"pixel{k}" for k in range(12))]
    text = "\n".join(",".join(map(str, row)) for row in [header, *rows])
    (folder / "pixels.csv").write_text(text)
    images = np.array([np.full((5, 4, 3), COLOURS[name]) for name in COLOURS], np.uint8)
    np.savez(folder / "arrays.npz", x_test=images, y_test=[0, 1, 2], x_train=images[::-1])
    return folder


def answers(result) -> list[tuple[str, str | None]]:
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [(row["path"], row["label"]) for row in rows]


@pytest.mark.parametrize(
    ("file", "paths"),
    [
        ("table.csv", [f"data/{name}_1.png" for name in COLOURS]),
        ("pixels.csv", [f"data/pixels.csv:{line}" for line in (2, 3, 4)]),
    ],
)
def test_predict_takes_the_rows_of_a_table(run, tiny, data, file, paths):
    result = run("predict", tiny, f"data/{file}", "--json")
    given = answers(result)
    if file == "table.csv":
        assert given.pop() == ("data/gone.png", None)
    assert given == list(zip(paths, COLOURS, strict=True))
    assert result.exit_code == int(file == "table.csv")


def test_predict_takes_arrays_among_other_images(run, tiny, data):
    result = run(
        "predict", tiny, "data/red_1.png", "data/arrays.npz", "data/pixels.csv", "-", "--json",
        input="data/blue_1.png\n",
    )  # fmt: skip
    assert [path for path, _ in answers(result)] == [
        "data/red_1.png",
        *(f"data/arrays.npz:x_train[{row}]" for row in range(3)),
        *(f"data/arrays.npz:x_test[{row}]" for row in range(3)),
        *(f"data/pixels.csv:{line}" for line in (2, 3, 4)),
        "data/blue_1.png",
    ]
    assert [label for _, label in answers(result)][:4] == ["red", "red", "green", "blue"]


def test_a_name_on_standard_input_is_that_of_an_image(run, tiny, data):
    result = run("predict", tiny, "-", "--json", input="data/pixels.csv\n")
    assert answers(result) == [("data/pixels.csv", None)]


def test_predict_with_a_column_and_a_root(run, tiny, data, tmp_path):
    (tmp_path / "t.csv").write_text("where;path\nblue_1.png;3\nred_1.png;4\n")
    options = ("--column", "path=where", "--root", "data")
    result = run("predict", tiny, "t.csv", "--json", *options)
    assert answers(result) == [("data/blue_1.png", "blue"), ("data/red_1.png", "red")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["t.csv", "--column", "path"],
            "must be KIND=NAME, such as label=species; got 'path'.",
        ),
        (["data/red_1.png", "--root", "data"], "--root can only be used with a table or arrays"),
        (["t.csv", "--column", "colour=x"], "--column must map path, label, split or group"),
        (["t.csv", "--pixel-shape", "3"], "--pixel-shape must be HEIGHTxWIDTH"),
        (["data/pixels.csv", "--pixel-shape", "3x5"], "3x5 has 15 pixels, but 'pixels.csv' has 12"),
    ],
)
def test_predict_rejects_wrong_options(run, tiny, data, arguments, said):
    result = run("predict", tiny, *arguments, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "images", "where"),
    [
        (["data/table.csv"], 3, "data/table.csv"),
        (["data/pixels.csv"], 3, "data/pixels.csv"),
        (["data/arrays.npz", "--label-names=blue,green,red"], 3, "test split"),
        (["data", "--label-from", r"^(\w+)_\d"], 3, "on data"),
        (["data/table.csv", "--column", "label=label", "--root", "data"], 3, "table.csv"),
    ],
)
def test_evaluate_takes_data_of_any_form(run, tiny, data, arguments, images, where):
    result = run("evaluate", tiny, *arguments)
    assert result.exit_code == 0, result.stderr
    assert "100% accuracy" in result.stdout.replace("100.0%", "100%")
    assert where in result.stdout.splitlines()[0]
    scores = json.loads(run("evaluate", tiny, *arguments, "--json").stdout)
    assert (scores["images"], scores["accuracy"]) == (images, 1.0)
    gone = [problem["path"] for problem in scores["skipped"]]
    assert gone == (["gone.png"] if "table.csv" in arguments[0] else [])


def test_evaluate_notes_ignored_images(run, tiny, data):
    result = run("evaluate", tiny, "data/arrays.npz", "--label-names=blue,green,red")
    assert "note: Ignored without labels: 3 images in the array" in " ".join(result.stderr.split())


def test_evaluate_names_the_invalid_line(run, tiny, data):
    with (data / "pixels.csv").open("a") as file:
        file.write("\nred,1,2,3\n")
    result = run("evaluate", tiny, "data/pixels.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid: 1 row, line 5 (4 values)." in " ".join(result.stderr.split())
