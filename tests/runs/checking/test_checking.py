"""Checking data from the folder to the written findings."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.cache.folder import Cache
from kindsight.checks import all_checks
from kindsight.dataset import DataOptions
from kindsight.digest import content_digest
from kindsight.errors import DatasetError, ImageError, SettingsError, UsageError
from kindsight.images import read_image
from kindsight.runs.checking import CheckSettings, check_data, open_for_checking, write_report
from kindsight.runs.checking import report as report_module
from kindsight.runs.checking.report import COLUMNS
from kindsight.training.frozen import feature_rows
from shapes import shape


def png(seed: int, kind: str = "ring") -> bytes:
    file = io.BytesIO()
    Image.fromarray(shape(kind, seed)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes with a truncated image, a duplicate, a dark image and a text file."""
    folder = tmp_path / "photos"
    files = {
        "bar/a.png": png(1, "bar"),
        "bar/b.png": png(2, "bar"),
        "bar/again.png": png(1, "bar"),
        "ring/c.png": png(3),
        "ring/cut.png": png(4)[:900],
        "ring/notes.txt": b"taken in spring",
    }
    dark = io.BytesIO()
    Image.fromarray(shape("ring", 5) // 10).save(dark, "PNG")
    files["ring/dark.png"] = dark.getvalue()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    time.sleep(0.1)  # until a later change would show in the files' times
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def codes(report) -> set[str]:
    return {finding.code for finding in report.findings}


def test_findings_and_unchanged_data(photos, cache, tmp_path):
    before = fingerprint(photos)
    report = check_data(photos, cache=cache)
    assert {"KS102", "KS114", "KS203", "KS301"} <= codes(report)
    assert report.failed and report.counts()["error"] == 1
    write_report(report, tmp_path / "out", cache=cache)
    assert fingerprint(photos) == before


def test_the_tables_contain_all_findings(photos, cache, tmp_path):
    report = check_data(photos, cache=cache)
    folder = write_report(report, tmp_path / "out", cache=cache)
    assert {path.name for path in folder.iterdir()} == {
        "findings.csv",
        "findings.json",
        "report.html",
    }
    with (folder / "findings.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    copies = [row for row in rows if row["code"] == "KS301"]
    assert [row["path"] for row in copies] == ["bar/a.png", "bar/again.png"]
    assert len({row["finding"] for row in copies}) == 1
    assert {row["label"] for row in copies} == {"bar"}
    (cut,) = (row for row in rows if row["code"] == "KS102")
    assert (cut["severity"], cut["path"], cut["finding"]) == ("error", "ring/cut.png", "1")
    (beside,) = (row for row in rows if row["code"] == "KS114")
    assert (beside["path"], beside["label"]) == ("ring/notes.txt", "")
    said = json.loads((folder / "findings.json").read_text("utf-8"))
    assert said == report.to_dict()
    assert [check["code"] for check in said["checks"]] == [check.code for check in all_checks()]
    assert said["images"] == 6 and said["readable"] == 5
    assert said["classes"] == {"bar": 3, "ring": 3}


def test_findings_and_images_are_counted_alike_everywhere(photos, cache, tmp_path):
    from kindsight.cli.check import report_lines

    report = check_data(photos, cache=cache)
    folder = write_report(report, tmp_path / "out", cache=cache)
    of_check = {check["code"]: check for check in report.to_dict()["checks"]}
    # Two copies are one finding; a text file beside the images is one about no image.
    assert len(of_check["KS301"]["findings"]) == 1 and of_check["KS301"]["images"] == 2
    assert len(of_check["KS114"]["findings"]) == 1 and of_check["KS114"]["images"] == 0
    lines = [line.split() for line in report_lines(report, folder)]
    (header,) = (line for line in lines if line[:2] == ["severity", "code"])
    assert header[-2:] == ["findings", "images"]
    table = {line[1]: line[-2:] for line in lines if len(line) > 4 and line[1] in of_check}
    page = (folder / "report.html").read_text("utf-8")
    for code, check in of_check.items():
        if not check["findings"]:
            continue
        findings, images = len(check["findings"]), check["images"]
        assert table[code] == [str(findings), str(images) if images else "-"]
        units = f"{findings} finding{'s' * (findings != 1)}"
        units += f", {images} image{'s' * (images != 1)}" if images else ""
        assert f'<a href="#{code}">' in page
        entry = page.split(f'<a href="#{code}">')[1].split("</li>")[0]
        assert f'<span class="amount">{units}</span>' in entry
    total = len(report.findings)
    assert any(line[:2] == [str(total), "findings:"] for line in lines)
    assert f"<strong>{total} findings</strong>" in page and "6 images checked" in page


def test_a_second_check_reads_no_image(photos, cache, tmp_path, monkeypatch):
    write_report(check_data(photos, cache=cache), tmp_path / "one", cache=cache)
    import kindsight.images.read as reading

    def refuse(*_, **__):
        raise AssertionError("no file is read again")

    monkeypatch.setattr(reading, "read_bytes", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    again = check_data(photos, cache=cache)
    write_report(again, tmp_path / "two", cache=cache)
    pages = [(tmp_path / name / "report.html").read_text("utf-8") for name in ("one", "two")]
    assert pages[1].count("data:image/jpeg") == pages[0].count("data:image/jpeg") > 0


def test_a_changed_image_is_read_again(photos, cache):
    assert "ring/dark.png" in str(check_data(photos, cache=cache).findings)
    (photos / "ring" / "dark.png").write_bytes(png(9))
    assert "ring/dark.png" not in str(check_data(photos, cache=cache).findings)


def test_findings_do_not_depend_on_the_number_of_threads(photos, tmp_path):
    found = []
    for workers in (1, 3):
        settings = CheckSettings(workers=workers)
        cache = Cache(tmp_path / f"cache {workers}")
        found.append(check_data(photos, settings, cache=cache).to_dict()["checks"])
    assert found[0] == found[1]


def test_ignored_checks_are_reported(photos, cache, tmp_path):
    report = check_data(photos, CheckSettings(ignore=("KS203", "KS102")), cache=cache)
    assert not {"KS102", "KS203"} & codes(report) and not report.failed
    assert report.states()["ignored"] == ["KS102", "KS203"]
    assert report.to_dict()["ignored"] == ["KS102", "KS203"]
    page = write_report(report, tmp_path / "out", cache=cache) / "report.html"
    assert "2 ignored" in page.read_text("utf-8")


def test_settings_from_a_file(tmp_path):
    file = tmp_path / "checks.toml"
    file.write_text('ignore = ["KS203"]\nfull = true\n')
    assert CheckSettings.from_toml(file) == CheckSettings(ignore=("KS203",), full=True)
    more = CheckSettings.from_toml(file, ignore=("KS101", "KS203"))
    assert more.ignore == ("KS101", "KS203")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('ignore = ["KS999"]', "there is no check 'KS999'"),
        ('ignroe = ["KS203"]', "Did you mean 'ignore'"),
        ('ignore = "KS203"', "ignore must be a list"),
        ("full = 1", "`full` must be true or false"),
        ("ignore = [", "valid TOML"),
    ],
)
def test_invalid_settings(tmp_path, text, message):
    file = tmp_path / "checks.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        CheckSettings.from_toml(file)


def test_folders_are_numbered_and_not_overwritten(photos, cache, tmp_path):
    report = check_data(photos, cache=cache)
    parent = tmp_path / "checks"
    assert write_report(report, parent=parent, cache=cache).name == "photos-1"
    (parent / "photos-7").mkdir()
    assert write_report(report, parent=parent, cache=cache).name == "photos-8"
    with pytest.raises(UsageError, match="nothing is overwritten"):
        write_report(report, parent / "photos-1", cache=cache)
    with pytest.raises(UsageError, match="nothing is overwritten"):
        write_report(report, photos / "bar" / "a.png", cache=cache)


def test_images_outside_of_class_folders_are_checked_too(photos):
    (photos / "loose.png").write_bytes(b"")
    dataset, contents = open_for_checking(photos)
    assert dataset.path[-1] == "loose.png" and dataset.label[-1] is None
    assert dataset.notes[-1].startswith("Checked without labels") and len(dataset.notes) == 2
    assert dataset.notes[0].startswith("Ignored, not an image (.txt): 1 in 'ring'")
    assert [other.path for other in contents.other_files] == ["loose.png", "ring/notes.txt"]


def test_a_folder_without_classes_is_checked_without_labels(photos):
    dataset, _ = open_for_checking(photos / "bar")
    assert len(dataset) == 3 and set(dataset.label) == {None}
    assert "checked without labels" in dataset.notes[-1]


def test_a_folder_whose_table_is_refused_is_checked_without_labels(photos):
    (photos / "bar" / "t.csv").write_text("image,A,B\na.png,1,1\nb.png,0,1\n")
    dataset, _ = open_for_checking(photos / "bar")
    assert set(dataset.label) == {None}
    assert "without labels. The labels in 't.csv' are multi-label: 1 of 2" in dataset.notes[-1]


def test_a_class_missing_from_the_train_split_is_checked(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    dataset, _ = open_for_checking(tmp_path)
    assert dataset.classes == ("a", "b", "c")


def test_a_table_is_checked_with_its_labels(photos, cache, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,label\nphotos/bar/a.png,x\nphotos/ring/c.png,y\nphotos/gone.png,y\n")
    report = check_data(table, cache=cache)
    # One file is gone, which leaves each class a single image.
    assert {"KS101", "KS601"} == {f.code for f in report.findings if f.severity == "error"}
    assert report.context.folder_contents is None


def test_data_without_images_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no images in"):
        open_for_checking(tmp_path / "empty")


def test_a_label_map_that_maps_no_label_is_an_error(tmp_path):
    for name in ("bar", "ring"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(shape(name, 1)).save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "map.csv").write_text("label,class\nrod,bar\n")
    options = DataOptions(label_map=str(tmp_path / "map.csv"))
    with pytest.raises(DatasetError, match="has no label of the data"):
        open_for_checking(tmp_path / "photos", options)


def test_arrays_in_memory_are_checked(cache):
    from kindsight.dataset import ImageDataset
    from kindsight.runs.checking import check_dataset

    images = [shape("ring", n) for n in range(3)] + [np.zeros((40, 40, 3), np.uint8)]
    report = check_dataset(ImageDataset.from_arrays(images, list("abab")), cache=cache)
    assert "KS201" in codes(report)


def test_two_checks_at_once_share_a_cache(photos, tmp_path):
    code = (
        "import sys; from kindsight.runs.checking import *; from kindsight.cache.folder import Cache\n"  # noqa: E501
        "r = check_data(sys.argv[1], cache=Cache(sys.argv[2]))\n"
        "print(write_report(r, parent=sys.argv[3], cache=Cache(sys.argv[2])).name)"
    )
    places = [str(photos), str(tmp_path / "shared"), str(tmp_path / "o")]
    arguments = [sys.executable, "-c", code, *places]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = {process.communicate(timeout=280)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert names == {"photos-1", "photos-2"}


def test_full_checks_compute_features_of_readable_images(photos, backbone):
    # The backbone that other tests use has been built for 64 pixels.
    whole = Image.fromarray(shape("chequer", 7, 200))
    whole.save(photos / "bar" / "whole.png")
    whole.crop((20, 30, 190, 185)).save(photos / "ring" / "part.png")
    report = check_data(photos, CheckSettings(full=True, size=64))
    rows, vectors = report.context.features
    assert len(rows) == len(vectors) == 7
    assert not any(path.endswith("cut.png") for path in np.array(report.context.dataset.path)[rows])
    assert "skipped" not in report.states()


def test_full_checks_of_features_that_stay_in_the_cache(photos, backbone, monkeypatch):
    for row in range(60):
        Image.fromarray(shape("bar", row + 100)).save(photos / "bar" / f"more{row}.png")
        Image.fromarray(shape("ring", row + 100)).save(photos / "ring" / f"more{row}.png")
    found = []
    for limit in (10**9, 0):
        monkeypatch.setattr(feature_rows, "IN_MEMORY", limit)
        report = check_data(photos, CheckSettings(full=True, size=64))
        findings = [item for result in report.results for item in result.findings]
        found.append((findings, report.context.features.vectors[:]))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_images_read_for_features_are_measured(photos, cache, monkeypatch):
    from kindsight.checks import measure_dataset
    from kindsight.checks.measurements import MeasuringObserver
    from kindsight.dataset import ImageDataset
    from kindsight.images import InputSpec

    dataset = ImageDataset.from_folder(photos)
    other = Cache(cache.root.parent / "other")
    _, alone = measure_dataset(dataset, other)
    with MeasuringObserver(cache, dataset) as measuring:
        for row in range(len(dataset)):
            data = dataset.load(row)
            digest = content_digest(data)
            try:
                image = measuring.decode(digest, data, InputSpec(224, 224))
            except ImageError as error:
                assert error.code == "truncated"
            else:
                assert np.array_equal(image, read_image(data, target=(224, 224)))
    from kindsight.checks import measurements

    def refuse(*_):
        raise AssertionError("it is measured already")

    monkeypatch.setattr(measurements, "measure_image", refuse)
    _, beside = measure_dataset(dataset, cache)
    assert beside.numeric.tobytes() == alone.numeric.tobytes()
    assert all(beside.text[name] == alone.text[name] for name in alone.text)


def test_long_lists_are_cut_in_the_json_alone(photos, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "MAX_LISTED", 1)
    for number in range(3):
        (photos / "bar" / f"again {number}.png").write_bytes(png(1, "bar"))
        (photos / "ring" / f"cut {number}.png").write_bytes(png(4)[:900])
    folder = write_report(check_data(photos, cache=cache), tmp_path / "out", cache=cache)
    checks = {c["code"]: c for c in json.loads((folder / "findings.json").read_text())["checks"]}
    (group,) = checks["KS301"]["findings"]
    assert len(group["paths"]) == len(group["rows"]) == 1 and group["total"] == 5
    assert "total" not in checks["KS301"]
    assert len(checks["KS102"]["findings"]) == 1 and checks["KS102"]["total"] == 4
    with (folder / "findings.csv").open(newline="") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    assert codes.count("KS301") == 5 and codes.count("KS102") == 4
