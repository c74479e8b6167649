"""In ``model.fit``: on every backend that is installed, with worker threads and worker processes.

A process each, since a backend is chosen when Keras is imported. Keras's own generator is asked
beside ours, and both must show the model the same images.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
SCRIPT = Path(__file__).with_name("fit_once.py")
installed = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
        ),
    )
    for name, package in BACKENDS.items()
]


def run(backend: str, folder: Path) -> dict:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("backend", installed)
def test_models_are_fitted_as_with_keras_s_own(backend, class_folders):
    told = run(backend, class_folders)
    assert told["backend"] == backend
    assert told["tensorflow imported"] is (backend == "tensorflow")
    assert told["onednn"] == "1"
    assert len(told["keras"]) == len(told["ours"]) == 3
    for one, other in zip(told["keras"], told["ours"], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert told["predictions"] == 16
    # With worker threads and worker processes: every image once in each epoch.
    for name in ("threads", "processes") if backend == "tensorflow" else ():
        assert told[name] == {"epochs": 2, "sums": [2.0**16 - 1] * 2}
