"""Served bundles: names, checks, and swaps without a wrong answer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_conv
from kindsight import Predictor
from kindsight.errors import BundleError, SettingsError
from kindsight.server.models import Models
from tiny_bundle import tflite_bytes, write_bundle, write_image

PIXELS = 10**6


@pytest.fixture
def red(tmp_path: Path) -> bytes:
    return write_image(tmp_path / "red.png", (255, 0, 0)).read_bytes()


def label(models: Models, data: bytes) -> str | None:
    model = models.get()
    return model.predict("red", data, model.decisions(None), PIXELS).label


def changed(models: Models) -> None:
    """Look twice: what still changes is not loaded."""
    models.look()
    models.look()


def renamed(folder: Path, classes: tuple[str, ...]) -> None:
    """Write a bundle over another, as a training does: the description last."""
    write_bundle(folder.with_name("new"), classes)
    for name in ("model.tflite", "bundle.json"):
        folder.with_name("new").joinpath(name).replace(folder / name)


def test_a_model_has_the_name_of_its_folder_and_the_first_is_the_default(tmp_path: Path) -> None:
    runs = [write_bundle(tmp_path / "b"), write_bundle(tmp_path / "a")]
    models = Models(runs, 1)
    assert [served.name for served in models.all] == ["b", "a"]
    assert models.get().name == "b"
    assert models.get("a").name == "a"


def test_the_name_of_the_current_folder_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_bundle(tmp_path / "photos"))
    assert Models([Path()], 1).get().name == "photos"


def test_two_folders_of_one_name_are_refused_before_any_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"different folder names.*ln -s"):
        Models([tmp_path / "a" / "run", tmp_path / "b" / "run"], 1)


def test_the_version_changes_with_the_bundle_only(tmp_path: Path) -> None:
    first = Models([write_bundle(tmp_path / "a")], 1).get().version
    assert Models([write_bundle(tmp_path / "b")], 1).get().version == first
    assert Models([write_bundle(tmp_path / "c", temperature=2.0)], 1).get().version != first


def test_a_new_bundle_is_swapped_in(tmp_path: Path, red: bytes) -> None:
    models = Models([write_bundle(tmp_path / "m")], 1)
    old = models.get()
    renamed(tmp_path / "m", ("bleu", "vert", "rouge"))
    models.look()
    assert models.get() is old  # it may still be being written
    models.look()
    assert label(models, red) == "rouge"
    assert models.all[0].fault == ""
    # A request that began with the old one ends with it.
    assert old.predict("red", red, old.decisions(None), PIXELS).label == "red"


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_link_that_is_switched_is_followed(tmp_path: Path, red: bytes) -> None:
    write_bundle(tmp_path / "1")
    write_bundle(tmp_path / "2", ("bleu", "vert", "rouge"))
    link = tmp_path / "current"
    link.symlink_to("1")
    models = Models([link], 1)
    assert (models.get().name, label(models, red)) == ("current", "red")
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(link)
    changed(models)
    assert (models.get().name, label(models, red)) == ("current", "rouge")


def test_a_broken_bundle_keeps_the_old_one_and_says_so(tmp_path: Path, red: bytes) -> None:
    folder = write_bundle(tmp_path / "m")
    models = Models([folder], 1)
    version = models.get().version
    (folder / "bundle.json").write_text("{", "utf-8")
    changed(models)
    assert (label(models, red), models.get().version) == ("red", version)
    assert "not valid JSON" in models.all[0].fault
    assert str(tmp_path) not in models.all[0].public_fault
    # A good one mends it.
    renamed(folder, ("bleu", "vert", "rouge"))
    changed(models)
    assert (label(models, red), models.all[0].fault) == ("rouge", "")


@pytest.mark.parametrize("kind", ["removed", "other digest", "other network"])
def test_no_bundle_that_does_not_work_is_swapped_in(kind: str, tmp_path: Path, red: bytes) -> None:
    folder = write_bundle(tmp_path / "m")
    models = Models([folder], 1)
    if kind == "removed":
        (folder / "bundle.json").unlink()
    elif kind == "other digest":
        content = json.loads((folder / "bundle.json").read_text("utf-8"))
        content["files"] = {"model.tflite": "0" * 32}
        (folder / "bundle.json").write_text(json.dumps(content), "utf-8")
    else:
        (folder / "model.tflite").write_bytes(tflite_bytes(2))
    changed(models)
    assert models.all[0].fault
    assert label(models, red) == "red"


def test_a_network_overwritten_in_place_does_not_change_answers(tmp_path: Path, red: bytes) -> None:
    folder = write_bundle(tmp_path / "m")
    models = Models([folder], 2)
    with (folder / "model.tflite").open("r+b") as file:
        file.write(os.urandom(200))
        file.truncate(300)
    assert label(models, red) == "red"


def test_a_bundle_that_cannot_be_served_fails_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        Models([tmp_path / "none"], 1)
    with pytest.raises(SettingsError, match="at least one run"):
        Models([], 1)


def test_a_model_in_memory_predicts_as_its_files(tmp_path: Path) -> None:
    folder = tiny_conv.write_bundle(tmp_path / "conv", tiny_conv.random_weights(3))
    path = tmp_path / "noise.png"
    noise = np.random.default_rng(5).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    (expected,) = Predictor(folder).predict([path])
    model = Models([folder], 2).get()
    found = model.predict("noise", path.read_bytes(), model.decisions(None), PIXELS)
    assert found.probabilities is not None
    assert expected.probabilities is not None
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
