"""``model.fit`` on every installed backend, with worker threads and worker processes.

Each backend needs a process, since it is selected when Keras is imported.
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
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("backend", installed)
def test_fit_gives_the_same_losses_as_keras(backend, class_folders):
    result = run(backend, class_folders)
    assert result["backend"] == backend
    assert result["tensorflow imported"] is (backend == "tensorflow")
    assert result["onednn"] == "1"
    assert len(result["keras"]) == len(result["ours"]) == 3
    for one, other in zip(result["keras"], result["ours"], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert result["predictions"] == 16
    # Every image occurs once in each epoch.
    for name in ("threads", "processes") if backend == "tensorflow" else ():
        assert result[name] == {"epochs": 2, "sums": [2.0**16 - 1] * 2}
