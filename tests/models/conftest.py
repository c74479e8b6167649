"""One built backbone and one Keras worker process for all tests of models."""

import textwrap

import pytest

from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.worker.process import KerasProcess

SMALL = (64, 48)
READY = """
import json, os, sys, time
def reply(**content):
    print(json.dumps({"ok": True, **content}), flush=True)
def jobs():
    for line in sys.stdin:
        yield json.loads(line)
"""


@pytest.fixture
def make_process(tmp_path, monkeypatch):
    """Start a worker of a few lines of Python, without TensorFlow."""
    started = []

    def make(code, **settings):
        (tmp_path / "stand_in.py").write_text(READY + textwrap.dedent(code))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        started.append(KerasProcess(module="stand_in", **settings))
        return started[-1]

    yield make
    for process in started:
        process.close(kill=True)


@pytest.fixture(scope="session")
def keras_process():
    with KerasProcess() as process:
        yield process


@pytest.fixture(scope="session")
def built(keras_process, machine_cache):
    """Lite0 for small images, whose height and width differ."""
    return ensure_backbone("efficientnet-lite0", SMALL, machine_cache, process=keras_process)


@pytest.fixture(scope="session")
def images():
    from kindsight.models.runtime import make_images

    return make_images(4, SMALL)
