from __future__ import annotations

import json

import pytest
from PIL import Image


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sheet_is_written(run, photos, place):
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    result = run("preview", str(photos), "--images", "2", "--copies", "1", "--size", "64")
    assert result.exit_code == 0, result.stderr
    with Image.open(place / "sheet.png") as sheet:
        assert f"sheet.png ({sheet.width:,} x {sheet.height:,} pixels)" in result.stdout
    assert "classic: rotation ±40°, shift ±20%" in result.stdout
    assert "2 of 94, augmented copies of each: 1" in result.stdout
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_json_has_the_changes(run, photos, place):
    (place / "mine.toml").write_text('recipe = "light"\nmixup = 0.2\n')
    options = ["--augment", "mine.toml", "--out", "s.jpg", "--size", "32", "--copies", "3"]
    result = run("preview", str(photos), *options, "--seed", "4", "--epoch", "5", "--json")
    found = json.loads(result.stdout)
    assert list(found) == ["out", "name", "augment", "seed", "images", "skipped", "ignored_files"]
    assert (found["out"], found["name"], found["seed"]) == ("s.jpg", "mine", 4)
    assert (found["augment"]["rotation"], found["augment"]["mixup"]) == (10, 0.2)
    assert len(found["images"]) == 6
    for image in found["images"]:
        assert [copy["epoch"] for copy in image["copies"]] == [5, 6, 7]
        assert all(abs(copy["changes"]["rotation"]) <= 10 for copy in image["copies"])
    assert (place / "s.jpg").exists()


def test_notes_about_skipped_images_and_mixing(run, photos, place):
    (place / "mine.toml").write_text("mixup = 0.2\n")
    options = ["--augment", "mine.toml", "--size", "8", "--copies", "1", "--images", "99"]
    result = run("preview", str(photos), *options)
    assert "MixUp and CutMix mix the images of a batch" in result.stderr
    assert result.stderr.count("skipped: ") == 3 and "empty.png" in result.stderr
    assert run("preview", str(photos), *options, "--quiet", "--force").stderr == ""


def test_an_existing_file_is_overwritten_only_with_force(run, photos, place):
    (place / "sheet.png").write_text("mine")
    short = [str(photos), "--images", "1", "--copies", "1", "--size", "16"]
    result = run("preview", *short)
    assert result.exit_code == 2
    assert "exists. Choose another --out" in result.stderr
    assert (place / "sheet.png").read_text() == "mine"
    assert run("preview", *short, "--force").exit_code == 0
    assert (place / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--augment", "clasic"], "Did you mean classic?"),
        (["--augment", "absent.toml"], "absent.toml (No such file"),
        (["--out", "sheet.pdf"], "--out must end with .png"),
        (["--size", "0"], "`height` must be an integer from 1"),
        (["--resize", "squash"], "`fit` must be one of stretch, crop, pad"),
        (["--size", "4000"], "at most 100 million pixels"),
    ],
)
def test_invalid_options_are_refused(run, photos, place, options, rule):
    result = run("preview", str(photos), *options)
    assert result.exit_code == 2
    assert rule in result.stderr.replace("\n", " ")
    assert list(place.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(run, place):
    result = run("preview", "photos")
    assert result.exit_code == 2 and "does not exist" in result.stderr


def test_images_of_a_table_of_pixels_are_shown(run, place):
    header = ",".join(["label", *(f"pixel{k + 1}" for k in range(784))])
    rows = [
        ",".join(map(str, [n % 3, *[(37 * n + k) % 256 for k in range(784)]])) for n in range(9)
    ]
    (place / "signs.csv").write_text("\n".join([header, *rows]) + "\n")
    result = run("preview", "signs.csv", "--size", "28", "--images", "4", "--copies", "2", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["images"]) == 4 and (place / "sheet.png").exists()
