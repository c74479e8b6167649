from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kindsight.errors import DatasetError, MissingExtraError
from kindsight.evaluation import evaluate
from kindsight.runs import demo
from kindsight.runs.train import TrainResult

SHARES = (0.0, 1 / 3, 2 / 3, 1.0)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the data set by forty small images: each mean rating ten times."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 12, 12), np.uint8)
    module = ModuleType("elpv_dataset.utils")
    module.load_dataset = lambda: (images, np.array(SHARES * 10), np.array(["mono"] * 40))
    monkeypatch.setitem(sys.modules, "elpv_dataset", ModuleType("elpv_dataset"))
    monkeypatch.setitem(sys.modules, "elpv_dataset.utils", module)
    monkeypatch.setattr(demo, "IMAGES", 40)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")
    }


def test_a_quarter_of_each_class_is_the_test_split(package, tmp_path):
    data = demo.write_images(tmp_path)
    parts = Counter(str(Path(name).parent.as_posix()) for name in files(data))
    assert data == tmp_path / "elpv"
    assert parts == {
        "train/functional": 15,
        "train/defective": 15,
        "test/functional": 5,
        "test/defective": 5,
    }


def test_the_images_and_labels_are_those_of_the_package(package, tmp_path):
    data = demo.write_images(tmp_path)
    images, shares, _ = sys.modules["elpv_dataset.utils"].load_dataset()
    found = sorted(data.rglob("*.png"), key=lambda path: path.name)
    for path, image, share in zip(found, images, shares, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), image)
        assert path.parent.name == ("defective" if share >= 0.5 else "functional")


def test_the_split_is_the_same_every_time(package, tmp_path):
    assert files(demo.write_images(tmp_path / "a")) == files(demo.write_images(tmp_path / "b"))


def test_existing_images_are_not_written_again(package, tmp_path, monkeypatch):
    data = demo.write_images(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}
    monkeypatch.setitem(sys.modules, "elpv_dataset.utils", None)
    assert demo.write_images(tmp_path) == data
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}


def test_a_demo_stopped_half_way_leaves_nothing(package, tmp_path):
    def stop(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("demo", 40)
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.write_images(tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_folder_is_an_error(package, tmp_path):
    data = demo.write_images(tmp_path)
    next(data.rglob("*.png")).unlink()
    with pytest.raises(DatasetError, match=r"has 39 of .*Delete the folder"):
        demo.write_images(tmp_path)


def test_a_faster_second_demo_is_no_error(package, tmp_path):
    other = demo.write_images(tmp_path / "other")

    def overtake(stage: str, done: int, total: int) -> None:
        if done == total:
            other.rename(tmp_path / "elpv")

    assert len(files(demo.write_images(tmp_path, overtake))) == 40


def test_a_missing_package_is_reported_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    monkeypatch.setitem(sys.modules, "elpv_dataset.utils", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kindsight\[demo\]'"):
        demo.write_images(tmp_path)


def test_the_papers_figures():
    # Deitsch et al. 2019, Solar Energy 185, abstract: "82.44 %" and "88.42 %"
    assert [row.value for row in demo.PAPER] == [0.8244, 0.8842]


@pytest.fixture
def trained(package, monkeypatch, tmp_path):
    """Replace the training; return its arguments."""
    given = []
    table = np.array([[0.9, 0.1]] * 5 + [[0.2, 0.8]] * 5, np.float32)
    test = evaluate(table, np.array([0] * 4 + [1] * 6), ("defective", "functional"))

    def train(settings, *, progress=None, reference=()):
        given.append((settings, tuple(reference)))
        run = tmp_path / "runs" / "elpv-1"
        return TrainResult(
            run=run,
            report=run / "report.html",
            classes=("defective", "functional"),
            images={"train": 30, "validation": 0, "test": 10, "skipped": 0},
            validation=None,
            test=test,
            seconds={"total": 70.0},
            cache={"computed": 40, "reused": 0, "folder": "/cache"},
            notes=(),
            problems=(),
            model={"head": "rbf"},
            temperature=1.0,
        )

    monkeypatch.setattr(demo, "train", train)
    monkeypatch.chdir(tmp_path)
    return given


def call(*words: str):
    from kindsight.cli.app import app

    return CliRunner().invoke(app, ["demo", *words])


def test_the_demo_trains_with_its_settings_and_the_papers_figures(trained):
    assert call().exit_code == 0
    ((settings, reference),) = trained
    assert settings.data == str(Path("demo-data", "elpv"))
    assert settings.runs == "runs"
    assert all(getattr(settings, name) == value for name, value in demo.DEMO_SETTINGS.items())
    assert reference == demo.PAPER
    assert call("--best").exit_code == 0
    settings = trained[1][0]
    assert all(getattr(settings, name) == value for name, value in demo.BEST_SETTINGS.items())


def test_the_output_has_both_accuracies_the_licence_and_the_report(trained):
    text = " ".join(call("--quiet").stdout.split())
    assert "90.00% kindsight (95% CI 59.6\N{EN DASH}98.2%)" in text
    assert "test split 10 of 40 images" in text
    assert "head rbf" in text
    assert "82.44% SVM" in text and "88.42% VGG-19" in text
    assert "CC BY-NC-SA 4.0" in text
    assert "report.html" in text
    assert "kindsight demo --best" in text


def test_the_demo_as_json(trained):
    value = json.loads(call("--json", "--quiet").stdout)
    assert value["test"]["accuracy"] == 0.9
    assert [row["accuracy"] for row in value["reference"]] == [0.8244, 0.8842]
    assert value["licence"] == "CC BY-NC-SA 4.0"
    assert value["report"].endswith("report.html")


@pytest.mark.slow
def test_the_real_data_set(tmp_path):
    pytest.importorskip("elpv_dataset")
    data = demo.write_images(tmp_path)
    parts = Counter(path.parent.relative_to(data).as_posix() for path in data.rglob("*.png"))
    # 2,624 cells; 821 of them with a mean of annotators of 0.5 or more; a quarter of each class
    assert parts["train/defective"] + parts["test/defective"] == 821
    assert sum(parts.values()) == 2624
    assert parts["test/defective"] == pytest.approx(821 / 4, abs=1)
    assert parts["test/functional"] == pytest.approx(1803 / 4, abs=1)
