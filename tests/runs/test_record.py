"""A finished run is read back as it was written; damage is named."""

import json
import shutil

import numpy as np
import pytest

from kindsight.errors import BundleError
from kindsight.evaluation import evaluate
from kindsight.report.data import Predictions
from kindsight.runs.record import load_run
from kindsight.runs.result import write_predictions


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained.run, tmp_path / "run")


def test_a_run_is_read_back(trained):
    record = load_run(trained.run)
    assert record.classes == trained.classes
    assert record.settings is not None
    assert record.history is None
    assert len(record.images) == sum(
        trained.images[name] for name in ("train", "validation", "test")
    )
    found = record.predictions["validation"]
    assert len(found.paths) == trained.images["validation"]
    digests = record.digests("validation")
    assert all(digests)
    assert len(digests) == len(found.paths)
    scores = evaluate(found.probabilities, found.targets, record.classes, digests)
    assert scores.accuracy == trained.validation.accuracy
    labels = {image.path: image.label for image in record.images}
    assert [labels[path] for path in found.paths] == [record.classes[t] for t in found.targets]


def test_odd_names_come_back(tmp_path, run):
    classes = ("p_a", 'quote" and, comma', " space", "line\r\nend")
    names = ("\udce9.jpg", "a\\x41.jpg", "plain.jpg")
    probabilities = np.array([[0.25] * 4, [1, 0, 0, 0], [0, 0, 0.5, 0.5]], np.float32)
    given = Predictions(names, np.array([3, 0, 2]), probabilities)
    write_predictions(run / "validation.csv", given, classes)
    (run / "train.csv").unlink(missing_ok=True)  # of the classes that the bundle had
    facts = json.loads((run / "bundle.json").read_text())
    facts["classes"] = list(classes)
    (run / "bundle.json").write_text(json.dumps(facts))
    found = load_run(run).predictions["validation"]
    assert found.paths == names
    assert found.targets.tolist() == [3, 0, 2]
    assert np.array_equal(found.probabilities, probabilities)


def test_a_bare_bundle_has_empty_records(run):
    for path in run.iterdir():
        if path.name not in ("bundle.json", "model.tflite", "model.keras"):
            path.unlink()
    record = load_run(run)
    assert record.settings is None
    assert record.predictions == {}
    assert record.images == ()
    assert record.problems == ()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("validation.csv", "path,label\n", "columns"),
        ("validation.csv", None, "line"),
        ("split.csv", "path,label\n", "no column split"),
        ("split.csv", "path,label,split\na,b\n", "line 2"),
        ("problems.csv", b"path,label,code,reason\n\xff,,,\n", "UTF-8"),
        ("settings.toml", "seed = [", "settings.toml"),
        ("history.csv", "x\n", "history"),
    ],
)
def test_damage_is_named(run, name, content, why):
    path = run / name
    if content is None:
        content = path.read_text("utf-8") + "more,unknown,cells\n"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BundleError, match=why):
        load_run(run)


def test_a_probability_must_be_one(run):
    path = run / "validation.csv"
    lines = path.read_text("utf-8").splitlines()
    cells = lines[1].split(",")
    path.write_text("\n".join([lines[0], ",".join([*cells[:3], "1.5", *cells[4:]])]) + "\n")
    with pytest.raises(BundleError, match="from 0 to 1"):
        load_run(run)
