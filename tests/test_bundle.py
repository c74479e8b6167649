"""The bundle on disk: complete or refused, and never a pickle."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import kindsight
from kindsight.bundle import Bundle, load_bundle
from kindsight.errors import BundleError
from kindsight.images import InputSpec
from kindsight.predictor import Predictor


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained run, with hard links, that a test may change."""
    folder = tmp_path / "bundle"
    shutil.copytree(trained.run, folder, copy_function=os.link)
    return folder


def rewrite(folder, **changes):
    """Change entries of bundle.json; ... removes one."""
    facts = json.loads((folder / "bundle.json").read_text("utf-8"))
    for name, value in changes.items():
        if value is ...:
            del facts[name]
        else:
            facts[name] = value
    write(folder, json.dumps(facts))


def write(folder, content):
    (folder / "bundle.json").unlink()  # a link to the session's run: must not be written through
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "bundle.json").write_bytes(data)


def refused(folder):
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_load_bundle(trained):
    bundle = load_bundle(str(trained.run))
    assert bundle.classes == ("bar", "chequer", "ring")
    assert bundle.spec.size == (64, 64)
    assert bundle.temperature == trained.temperature > 0
    assert bundle.backbone == "efficientnet-lite0"
    assert bundle.tflite == trained.run / "model.tflite"
    assert bundle.keras == trained.run / "model.keras"
    assert bundle.facts["seed"] == 3


def test_round_trip(folder):
    bundle = load_bundle(folder)
    other = Bundle(
        folder,
        ("a", "b"),
        InputSpec(32, 48, fit="pad"),
        0.5,
        "net",
        {"note": "Käse", "files": bundle.facts["files"]},
    )
    (folder / "bundle.json").unlink()
    other.write()
    assert load_bundle(folder) == other
    assert json.loads((folder / "bundle.json").read_text("utf-8")) == other.to_dict()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 50,
        b"{",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"7",
        b'{"format": 1}',
        b"\xff\xfe{}",
        b"[" * 200_000,
        b'{"a":' * 50_000,
        b'{"format": 1, "classes": ' + b"9" * 100_000 + b"}",
        b"{'format': 1}",
    ],
)
def test_hostile_json(folder, content):
    write(folder, content)
    assert "bundle.json" in refused(folder)


def test_too_large_json(folder, monkeypatch):
    monkeypatch.setattr("kindsight.bundle.MAX_JSON_BYTES", 1000)
    assert "is larger than" in refused(folder)


@pytest.mark.parametrize("version", [None, 0, -1, 1.5, "1", True, [1], {}])
def test_invalid_format(folder, version):
    rewrite(folder, format=version)
    assert "format must be a whole number from 1" in refused(folder)


@pytest.mark.parametrize("version", [2, 10**30])
def test_newer_format(folder, version):
    rewrite(folder, format=version)
    assert "pip install -U kindsight" in refused(folder)


@pytest.mark.parametrize(
    "classes",
    [
        ...,
        None,
        [],
        ["one"],
        ["a", "a", "b"],
        ["a", 1, "b"],
        ["a", None, "b"],
        "abc",
        {"a": 1, "b": 2, "c": 3},
        [["a"], ["b"], ["c"]],
        [f"{n}" for n in range(100_001)],
    ],
)
def test_invalid_classes(folder, classes):
    rewrite(folder, classes=classes)
    assert "classes must be a list of two or more different names" in refused(folder)


@pytest.mark.parametrize(
    "temperature",
    [..., None, 0, 0.0, -1, "1", True, [1.0], float("nan"), float("inf"), 1e6, 10**400],
)
def test_invalid_temperature(folder, temperature):
    rewrite(folder, temperature=temperature)
    assert "temperature must be a number above 0" in refused(folder)


@pytest.mark.parametrize(
    "spec",
    [
        ...,
        None,
        [],
        "64x64",
        {},
        {"height": 64},
        {"height": 64, "width": 0},
        {"height": 64, "width": 10**9},
        {"height": 64, "width": "64"},
        {"height": 64.0, "width": 64},
        {"height": True, "width": 64},
        {"height": 64, "width": 64, "fit": "squash"},
        {"height": 64, "width": 64, "fit": []},
        {"height": 64, "width": 64, "interpolation": {}},
        {"height": 64, "width": 64, "depth": 3},
    ],
)
def test_invalid_input(folder, spec):
    rewrite(folder, input=spec)
    assert "bundle.json" in refused(folder)


def test_a_missing_model(folder):
    (folder / "model.tflite").unlink()
    assert "model.tflite is missing" in refused(folder)
    (folder / "model.tflite").mkdir()
    assert "model.tflite is missing" in refused(folder)


def test_a_changed_model(folder):
    content = bytearray((folder / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.tflite").unlink()
    (folder / "model.tflite").write_bytes(content)
    assert "has changed since" in refused(folder)


def test_too_large_model(folder, monkeypatch):
    monkeypatch.setattr("kindsight.bundle.MAX_MODEL_BYTES", 1000)
    assert "too large" in refused(folder)


@pytest.mark.parametrize("files", [..., None, [], "x", {}])
def test_the_model_is_checked_without_digests(folder, files):
    rewrite(folder, files=files)
    (folder / "model.tflite").unlink()
    (folder / "model.tflite").write_bytes(b"no model at all")
    with pytest.raises(BundleError, match="LiteRT model"):
        Predictor(folder)


@pytest.mark.parametrize("classes", [["bar", "ring"], ["bar", "chequer", "ring", "star"]])
def test_number_of_classes_that_differs_from_the_logits(folder, classes):
    rewrite(folder, classes=classes)
    with pytest.raises(
        BundleError, match=rf"returns 3 logits, but bundle.json says .* and {len(classes)}"
    ):
        Predictor(folder)


def test_input_size_that_differs_from_the_models(folder):
    rewrite(folder, input={"height": 64, "width": 65})
    with pytest.raises(BundleError, match=r"bundle.json says \(64, 65\)"):
        Predictor(folder)


def test_no_bundle(tmp_path, folder):
    assert "does not exist" in refused(tmp_path / "absent")
    assert "did not finish" not in refused(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "has no bundle.json" in refused(tmp_path / "file")
    # An interrupted training can be continued.
    (folder / "bundle.json").unlink()
    assert "run the same train command to continue it" in refused(folder)


def test_unreadable_json(folder, monkeypatch):
    real = Path.open

    def fail(path, *arguments, **options):
        if path.name == "bundle.json":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    assert "Permission denied" in refused(folder)


def test_unknown_entries_stay(folder):
    rewrite(folder, thresholds={"bar": 0.5})
    assert load_bundle(folder).facts["thresholds"] == {"bar": 0.5}


def test_no_pickle_anywhere():
    # Unpickling can run any code. Only the reader of PyTorch's files may do it, with a restricted
    # Unpickler that is tested with hostile files, and workers on a Ray cluster, which itself sends
    # code to them as pickles: whoever may connect to it may run code.
    root = Path(kindsight.__file__).parent
    sources = {path: path.read_text("utf-8") for path in root.rglob("*.py")}
    assert len(sources) > 50
    loads = (
        r"^\s*(?:import|from)\s+(?:pickle|cPickle|_pickle|dill|cloudpickle|joblib|shelve|marshal)\b"
    )
    for path, source in sources.items():
        if path.name in {"torch_checkpoint.py", "ray_executor.py", "ray_worker.py"}:
            continue
        assert not re.search(loads, source, re.MULTILINE), path
        assert not re.search(r"allow_pickle\s*=\s*True|\bpickle\.loads?\b|torch\.load", source), (
            path
        )
        assert not re.search(r"import_module\(\s*[\"'](?:pickle|joblib|dill)", source), path
        # Every call of NumPy's loader must forbid pickles explicitly.
        for call in re.findall(r"np\.load\([^)]*\)", source):
            assert "allow_pickle=False" in call, (path, call)
        # Keras must not load layers that are code.
        assert "safe_mode=False" not in source and "enable_unsafe_deserialization" not in source, (
            path
        )
