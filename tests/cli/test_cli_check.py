"""``kindsight check``: its output, exit codes and files."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.checks import Finding
from kindsight.cli.check import correction_lines
from shapes import shape


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with photos/ of two classes without problems."""
    monkeypatch.chdir(tmp_path)
    for kind in ("bar", "ring"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for seed in range(4):
            Image.fromarray(shape(kind, seed)).save(tmp_path / "photos" / kind / f"{seed}.png")
    return tmp_path


def break_one(folder: Path) -> None:
    file = folder / "photos" / "ring" / "0.png"
    file.write_bytes(file.read_bytes()[:500])


def darken_one(folder: Path) -> None:
    Image.fromarray(shape("ring", 9) // 12).save(folder / "photos" / "ring" / "dark.png")


def ignoring_small_classes() -> list[str]:
    from kindsight.checks import known_codes

    codes = [code for code in known_codes() if code[2] == "6"]
    return [argument for code in codes for argument in ("--ignore", code)]


def test_clean_data_exit_with_0(run, photos):
    result = run("check", "photos", *ignoring_small_classes())
    assert result.exit_code == 0
    assert "photos: 8 images, 2 classes" in result.stdout
    assert "No findings." in result.stdout
    assert "checks/photos-1/report.html" in result.stdout
    assert (photos / "checks" / "photos-1" / "report.html").exists()


def test_an_error_exits_with_1(run, photos):
    break_one(photos)
    result = run("check", "photos")
    assert result.exit_code == 1
    assert "8 images, 2 classes, 1 unreadable" in result.stdout
    line = next(line for line in result.stdout.splitlines() if "KS102" in line)
    assert line.split() == ["error", "KS102", "Truncated", "images", "1", "1"]
    assert "1 error" in result.stdout


def test_a_warning_alone_exits_with_0(run, photos):
    darken_one(photos)
    result = run("check", "photos")
    assert result.exit_code == 0 and "KS203" in result.stdout


def test_misuse_exits_with_2(run, photos):
    assert run("check", "nowhere").exit_code == 2
    (photos / "full").mkdir()
    (photos / "full" / "x").write_text("mine")
    result = run("check", "photos", "--out", "full")
    assert result.exit_code == 2 and "nothing is overwritten" in result.stderr
    result = run("check", "photos", "--ignore", "KS200")
    assert result.exit_code == 2 and "Did you mean KS20" in result.stderr
    assert not (photos / "checks").exists()


def test_an_unknown_code_is_named_with_the_nearest(run):
    result = run("check", "photos", "--ignore", "KS999", "--ignore", "KS20")
    assert result.exit_code == 2
    first, second = sorted(result.stderr.splitlines())
    assert first.startswith("kindsight: --ignore must name checks; there is no check 'KS20'. Did")
    assert second.startswith("kindsight: --ignore must name checks; there is no check 'KS999'.")


def test_ignore_by_option_and_by_file(run, photos):
    break_one(photos)
    darken_one(photos)
    (photos / "s.toml").write_text('ignore = ["KS203"]')
    result = run("check", "photos", "--ignore", "KS102", "--settings", "s.toml")
    assert result.exit_code == 0
    assert "2 checks ignored: KS102, KS203" in result.stdout


def test_json_is_one_object_and_the_folder_is_in_it(run, photos):
    break_one(photos)
    result = run("check", "photos", "--json", "--quiet", "--out", "findings")
    assert result.exit_code == 1 and result.stderr == ""
    said = json.loads(result.stdout)
    assert said["folder"] == "findings"
    assert said["counts"]["error"] == 1
    on_disk = json.loads((photos / "findings" / "findings.json").read_text("utf-8"))
    del said["folder"]
    assert said == on_disk


def test_a_narrow_terminal_gets_short_lines(photos, monkeypatch):
    from kindsight.cli import check
    from kindsight.runs.checking import check_data

    darken_one(photos)
    monkeypatch.setattr(check, "line_width", lambda: 44)
    lines = check.report_lines(check_data("photos"), Path("checks/photos-1"))
    assert all(len(line) <= 44 for line in lines[1:])


def test_control_characters_in_names_are_escaped(run, photos):
    odd = photos / "photos\x1b[31m"
    (photos / "photos").rename(odd)
    result = run("check", str(odd))
    assert result.exit_code == 0 and "\x1b[31m" not in result.stdout
    assert "\\x1b[31m" in result.stdout


@pytest.mark.slow
def test_ctrl_c_keeps_the_measurements(start, photos, tmp_path):
    random = np.random.default_rng(0)
    for number in range(60):
        noise = random.integers(0, 256, (700, 700, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / "photos" / "bar" / f"n{number}.png", compress_level=1)
    environment = {"KINDSIGHT_CACHE": str(tmp_path / "own cache")}
    first = start("check", "photos", environment=environment, cwd=photos)
    table = tmp_path / "own cache" / "measurements"
    end = time.monotonic() + 60
    while not table.exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    first.send_signal(signal.SIGINT)
    _, complaint = first.communicate(timeout=200)
    if first.returncode == 0:
        pytest.skip("it was faster")
    assert first.returncode == 130 and b"run the same command again to continue" in complaint
    assert not (photos / "checks").exists()
    again = start("check", "photos", environment=environment, cwd=photos)
    out, _ = again.communicate(timeout=200)
    assert again.returncode in (0, 1) and b"68 images" in out


def test_a_corrected_table_is_not_overwritten_and_can_be_checked(run, photos):
    break_one(photos)
    result = run("check", "photos", "--apply", "corrected.csv", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["corrected"] == {
        "table": "corrected.csv", "excluded": 1, "relabelled": 0, "regrouped": 0, "uncertain": [],
    }  # fmt: skip
    written = (photos / "corrected.csv").read_bytes()
    again = run("check", "photos", "--apply", "corrected.csv")
    assert (again.exit_code, again.stdout) == (2, "") and "nothing is overwritten" in again.stderr
    assert not (photos / "checks" / "photos-2").exists()
    assert (photos / "corrected.csv").read_bytes() == written
    clean = run("check", "corrected.csv", *ignoring_small_classes())
    assert clean.exit_code == 0 and "7 images, 2 classes" in clean.stdout
    said = run("check", "photos", "--apply", "other.csv").stdout
    assert "1 image excluded, in other.csv" in said and "kindsight train other.csv" in said


def test_uncertain_labels_are_printed():
    message = "Labelled 'cat'; a classifier not trained on it predicts 'dog' (73% against 27%)."
    found = [
        Finding("KS403", "warning", message, (k,), (f"cat/{k}.jpg",), "dog", -0.46, 0.73)
        for k in range(12)
    ]
    lines = correction_lines({"relabelled": 1}, "new.csv", "kindsight train new.csv", found, 0.9)
    text = " ".join(" ".join(lines).split())
    assert "uncertain 12 images whose suggested label is less than 90% probable" in text
    assert f"cat/9.jpg: {message}" in text and "cat/10.jpg" not in text
    assert "and 2 more in new.csv" in text


@pytest.mark.parametrize("value", ["0", "1.1", "nan"])
def test_a_confidence_is_a_probability(run, photos, value):
    wrong = run("check", "photos", "--apply", "new.csv", "--relabel-confidence", value)
    assert wrong.exit_code == 2 and "--relabel-confidence must be a probability" in wrong.stderr
    alone = run("check", "photos", "--relabel-confidence", "0.8")
    assert alone.exit_code == 2 and "--relabel-confidence needs --apply" in alone.stderr
