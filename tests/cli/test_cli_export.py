"""``kindsight export``: says early what cannot work, writes nothing that it cannot prove."""

from __future__ import annotations

import json
import re
import shutil

import pytest


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained.run, tmp_path / "one")


def test_the_formats_are_written_into_the_run(folder, run):
    done = run("export", "one", "--to", "litert,litert-float16", "--images", "6", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert "one, compared on 6 of 18 validation images" in done.stdout
    for name in ("litert", "litert-float16"):
        written = folder / "export" / name
        assert {path.name for path in written.iterdir()} >= {
            "model.tflite", "labels.txt", "model.json", "export.json",
        }  # fmt: skip
        assert json.loads((written / "export.json").read_text())["status"] == "proved"
    assert not list((folder / "export").glob(".*"))


def test_json_has_the_proof(folder, run):
    done = run("export", "one", "--to", "litert", "--out", "out", "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)["exports"]
    assert found["folder"] == "out/litert" and found["status"] == "proved"
    assert found["proof"]["images"] == 18 and found["proof"]["label_agreement"] == 1.0
    interval = found["proof"]["exported_accuracy"]["interval"]
    assert interval == found["proof"]["accuracy"]["interval"] and interval[0] < interval[1]


def test_nothing_is_overwritten(folder, run):
    (folder / "export" / "litert").mkdir(parents=True)
    (folder / "export" / "litert" / "mine.txt").write_text("mine")
    done = run("export", "one", "--to", "litert")
    assert done.exit_code == 2
    assert "litert exists. Choose another --out" in done.stderr.replace("\n", " ")
    assert (folder / "export" / "litert" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [
        ("litert-int8", "ai_edge_quantizer", "quantize"),
        ("onnx", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("coreml", "coremltools", "coreml"),
    ],
)
def test_a_missing_extra_is_named_before_the_work(folder, run, monkeypatch, name, missing, extra):
    from kindsight.export import target

    find = target.importlib.util.find_spec
    monkeypatch.setattr(
        target.importlib.util,
        "find_spec",
        lambda module: None if module == missing else find(module),
    )
    done = run("export", "one", "--to", f"litert,{name}")
    assert done.exit_code == 2
    assert f"pip install 'kindsight[{extra}]'" in done.stderr
    assert not (folder / "export").exists()


def test_a_bundle_without_its_images_needs_data(folder, run, photos):
    (folder / "settings.toml").unlink()
    done = run("export", "one", "--to", "litert")
    assert done.exit_code == 2 and "--data" in done.stderr
    done = run("export", "one", "--to", "litert", "--data", str(photos), "--images", "9", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert "compared on 9 of 91 images" in done.stdout or "compared on 9 of" in done.stdout


def test_images_that_moved_are_said_to_have_moved(folder, run):
    text = (folder / "settings.toml").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("data =")]
    (folder / "settings.toml").write_text("\n".join(['data = "gone"', *lines]), "utf-8")
    done = run("export", "one", "--to", "litert")
    assert done.exit_code == 2
    assert "cannot be opened" in done.stderr and "--data" in done.stderr


def test_an_unknown_format_is_answered_with_the_formats(folder, run):
    done = run("export", "one", "--to", "tflite")
    assert done.exit_code == 2 and "--to must be one of litert, litert-float16" in done.stderr


def test_the_help_names_every_format(run):
    from kindsight.export.targets import TARGETS

    # A line of the help may end at the hyphen of a name.
    text = re.sub(r"-\s+", "-", run("export", "--help").stdout)
    assert set(TARGETS) <= set(re.findall(r"[\w-]+", text))
