from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import pytest

from kindsight.cli import cache as info
from kindsight.models.worker import device as devices


def test_info_has_everything_for_a_bug_report(run, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    shown = json.loads(run("info", "--json").stdout)
    assert shown["kindsight"] == version("kindsight")
    assert shown["python"].endswith(platform.python_version())
    assert shown["packages"]["NumPy"] == version("numpy")
    assert shown["packages"]["Keras"] == version("keras")
    assert shown["packages"]["TensorFlow"]
    assert 1 <= shown["cores_usable"] <= shown["cores"]
    assert shown["onednn"] == {"setting": "1", "from": "kindsight"}
    assert shown["cache"]["folder"] == os.environ["KINDSIGHT_CACHE"]


def test_the_users_own_settings_are_shown(run, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "3GB")
    shown = json.loads(run("info", "--json").stdout)
    assert shown["onednn"] == {"setting": "0", "from": "environment"}
    assert shown["cache"]["limit"] == 3 * 10**9
    assert shown["settings"]["KINDSIGHT_CACHE_LIMIT"] == "3GB"
    text = run("info").stdout
    assert "TF_ENABLE_ONEDNN_OPTS=0 (set by you, for training)" in text
    assert "limit for features and images 3.0 GB" in text


def test_a_missing_package_is_reported(run, monkeypatch):
    monkeypatch.setitem(info._PACKAGES, "LiteRT", ("no-such-distribution",))
    assert ["LiteRT", "not", "installed"] in [
        line.split() for line in run("info").stdout.splitlines()
    ]


def test_two_variants_of_a_package_are_warned_about(run, monkeypatch):
    """Both distributions write into the folder cv2."""
    known = {"opencv-python-headless": "5.0.0", "opencv-python": "4.10.0", "tensorflow": "2.21.0"}

    def installed(name):
        if name not in known:
            raise PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr("importlib.metadata.version", installed)
    facts = json.loads(run("info", "--json").stdout)
    (warning,) = facts["warnings"]
    assert "opencv-python-headless and opencv-python are both installed" in warning
    assert warning in " ".join(run("info").stdout.split())


def test_the_processors_name_on_linux(monkeypatch):
    text = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A Processor 3000\n"
    assert info._from_cpuinfo(text) == "A Processor 3000"
    monkeypatch.setattr(platform, "processor", lambda: "aarch64")
    assert info._from_cpuinfo("processor\t: 0\nBogoMIPS\t: 50\n") == "aarch64"


def test_a_processor_that_cannot_be_asked_is_no_error(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(info.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert info.processor() == "arm"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Make a GPU visible, or none."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_ROOT", tmp_path)
    (tmp_path / "dev").mkdir()

    def connect():
        (tmp_path / "dev" / "nvidia0").touch()

    return connect


def gpu_row(run):
    (row,) = (line for line in run("info").stdout.splitlines() if line.startswith("GPU"))
    return " ".join(row.split()[1:])


def test_the_gpus_that_are_visible_are_shown(run, gpu, monkeypatch):
    assert gpu_row(run) == "none visible"
    gpu()
    monkeypatch.setattr(devices, "_is_installed", lambda name: name == "tensorflow")
    assert gpu_row(run) == "NVIDIA GPU; trainings use it if TensorFlow can"
    monkeypatch.setattr(devices, "_is_installed", lambda name: name == "tensorflow-cpu")
    assert "NVIDIA GPU; not usable: tensorflow-cpu has no CUDA" in gpu_row(run)
    assert json.loads(run("info", "--json").stdout)["gpus"]["visible"] == ["NVIDIA GPU"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_row(run) == "none visible (CUDA_VISIBLE_DEVICES=)"


@pytest.mark.parametrize("model", [(), ("--model", "small-cnn"), ("--freeze", "all")])
def test_a_training_on_a_missing_gpu_is_rejected_before_it_begins(run, gpu, tmp_path, model):
    result = run("train", str(tmp_path), "--device", "gpu", *model)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "A GPU cannot be used. No NVIDIA GPU is visible" in line
    assert line.endswith("Or use --device cpu.")
