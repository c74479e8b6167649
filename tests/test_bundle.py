"""The bundle on disk: whole or refused, and never a pickle."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import kindsight
from kindsight.bundle import Bundle, load_bundle
from kindsight.digest import file_digest
from kindsight.errors import BundleError
from kindsight.images import InputSpec
from kindsight.predictor import Predictor


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained run that a test may spoil; what it does not change is linked."""
    folder = tmp_path / "bundle"
    shutil.copytree(trained.run, folder, copy_function=os.link)
    return folder


def rewrite(folder, **changes):
    """Change entries of bundle.json; ... takes one out."""
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


def test_a_bundle_says_what_the_classifier_is(trained):
    bundle = load_bundle(str(trained.run))
    assert bundle.classes == ("bar", "chequer", "ring")
    assert bundle.spec.size == (64, 64)
    assert bundle.temperature == trained.temperature > 0
    assert bundle.backbone == "efficientnet-lite0"
    assert bundle.tflite == trained.run / "model.tflite"
    assert bundle.keras == trained.run / "model.keras"
    assert bundle.facts["seed"] == 3


def test_what_is_written_is_read(folder):
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


def test_the_digest_of_a_file_is_blake2b(tmp_path):
    import hashlib

    content = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(content)
    assert file_digest(tmp_path / "x") == hashlib.blake2b(content, digest_size=16).hexdigest()


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


def test_json_that_is_too_large(folder, monkeypatch):
    monkeypatch.setattr("kindsight.bundle.MAX_JSON_BYTES", 1000)
    assert "must not be larger" in refused(folder)


@pytest.mark.parametrize("version", [None, 0, -1, 1.5, "1", True, [1], {}])
def test_a_format_that_is_none(folder, version):
    rewrite(folder, format=version)
    assert "format must be a whole number from 1" in refused(folder)


@pytest.mark.parametrize("version", [2, 10**30])
def test_a_newer_format_asks_for_a_newer_program(folder, version):
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
def test_classes_that_cannot_be(folder, classes):
    rewrite(folder, classes=classes)
    assert "classes must be a list of two or more different names" in refused(folder)


@pytest.mark.parametrize(
    "temperature",
    [..., None, 0, 0.0, -1, "1", True, [1.0], float("nan"), float("inf"), 1e6, 10**400],
)
def test_temperatures_that_cannot_be(folder, temperature):
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
def test_inputs_that_cannot_be(folder, spec):
    rewrite(folder, input=spec)
    assert "bundle.json" in refused(folder)


def test_a_missing_model(folder):
    (folder / "model.tflite").unlink()
    assert "must hold model.tflite" in refused(folder)
    (folder / "model.tflite").mkdir()
    assert "must hold model.tflite" in refused(folder)


def test_a_changed_model(folder):
    content = bytearray((folder / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.tflite").unlink()
    (folder / "model.tflite").write_bytes(content)
    assert "its content has changed" in refused(folder)


def test_a_model_that_is_too_large(folder, monkeypatch):
    monkeypatch.setattr("kindsight.bundle.MAX_MODEL_BYTES", 1000)
    assert "too large" in refused(folder)


@pytest.mark.parametrize("files", [..., None, [], "x", {}])
def test_without_digests_the_model_is_still_looked_at(folder, files):
    rewrite(folder, files=files)
    (folder / "model.tflite").unlink()
    (folder / "model.tflite").write_bytes(b"no model at all")
    with pytest.raises(BundleError, match="LiteRT model"):
        Predictor(folder)


@pytest.mark.parametrize("classes", [["bar", "ring"], ["bar", "chequer", "ring", "star"]])
def test_another_number_of_classes_than_logits(folder, classes):
    rewrite(folder, classes=classes)
    with pytest.raises(BundleError, match=f"give {len(classes)} logits.*gives 3"):
        Predictor(folder)


def test_another_size_than_the_models(folder):
    rewrite(folder, input={"height": 64, "width": 65})
    with pytest.raises(BundleError, match=r"images of \(64, 65\)"):
        Predictor(folder)


def test_no_bundle(tmp_path, folder):
    assert "must hold bundle.json" in refused(tmp_path / "absent")
    assert "did not finish" not in refused(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "must hold bundle.json" in refused(tmp_path / "file")
    # What an interrupted training leaves is told from what never was a run.
    (folder / "bundle.json").unlink()
    assert "same train command continues it" in refused(folder)


def test_json_that_cannot_be_read(folder, monkeypatch):
    real = Path.open

    def fail(path, *arguments, **options):
        if path.name == "bundle.json":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    assert "Permission denied" in refused(folder)


def test_entries_of_a_later_program_are_kept(folder):
    rewrite(folder, thresholds={"bar": 0.5})
    assert load_bundle(folder).facts["thresholds"] == {"bar": 0.5}


def test_no_pickle_anywhere():
    # What is read by pickle can run anything. The reader of PyTorch's old files takes its opcodes
    # apart by itself, and its modules and comments may name what they refuse to do.
    root = Path(kindsight.__file__).parent
    sources = {path: path.read_text("utf-8") for path in root.rglob("*.py")}
    assert len(sources) > 50
    loads = (
        r"^\s*(?:import|from)\s+(?:pickle|cPickle|_pickle|dill|cloudpickle|joblib|shelve|marshal)\b"
    )
    for path, source in sources.items():
        assert not re.search(loads, source, re.MULTILINE), path
        assert not re.search(r"allow_pickle\s*=\s*True|\bpickle\.loads?\b|torch\.load", source), (
            path
        )
        assert not re.search(r"import_module\(\s*[\"'](?:pickle|joblib|dill)", source), path
        # NumPy's loader unpickles unless it is told not to; each call says so.
        for call in re.findall(r"np\.load\([^)]*\)", source):
            assert "allow_pickle=False" in call, (path, call)
        # Nor does Keras load layers that are code.
        assert "safe_mode=False" not in source and "enable_unsafe_deserialization" not in source, (
            path
        )
