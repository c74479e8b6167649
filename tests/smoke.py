"""Train, predict and evaluate with an installed kindsight: a test of a release, without pytest.

``python tests/smoke.py train FOLDER``, with a Python that has ``kindsight[train]``, makes images
and a run in a folder. ``python tests/smoke.py predict FOLDER``, with a Python that has
``kindsight`` alone, uses the run and compares the results.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image


def make_images(folder: Path, each: int = 20) -> None:
    """Write two classes of small photographs: bright at the top, or at the left."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(40, 215, 64)
    for name, pattern in (("top", ramp[::-1, None]), ("left", ramp[None, ::-1])):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = pattern[..., None] + generator.normal(0, 12, (64, 64, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{number}.jpg"
            )


def kindsight(*arguments: object) -> dict[str, object]:
    """Run a command and return what it prints as JSON."""
    command = [sys.executable, "-m", "kindsight", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def train(work: Path) -> None:
    """Train in a folder, check the results, and leave the run there."""
    make_images(work / "train")
    make_images(work / "new", 4)
    run = work / "run"
    trained = kindsight("train", work / "train", "--run", run, "--quiet")
    assert trained["classes"] == ["left", "top"], trained
    scores = kindsight("evaluate", run, work / "new")
    assert scores["accuracy"] == 1.0, scores
    first = kindsight("predict", run, work / "new" / "top" / "0.jpg")
    assert first["label"] == "top", first
    (work / "first.json").write_text(json.dumps(first), "utf-8")
    kindsight("train", work / "train", "--run", work / "cnn", "--model", "small-cnn",
              "--size", 32, "--epochs", 2, "--quiet")  # fmt: skip
    print(f"trained, evaluated and predicted with {versions('keras', 'ai-edge-litert')}")


def predict(work: Path) -> None:
    """Use the run of :func:`train` without the packages of training."""
    for module in ("tensorflow", "keras", "h5py", "matplotlib", "scipy", "sklearn"):
        assert find_spec(module) is None, f"{module} is installed"
    run = work / "run"
    expected = json.loads((work / "first.json").read_text("utf-8"))
    first = kindsight("predict", run, work / "new" / "top" / "0.jpg")
    assert first["label"] == expected["label"] == "top", first
    difference = abs(first["confidence"] - expected["confidence"])  # type: ignore[operator]
    assert difference < 1e-5, (first, expected)
    assert kindsight("evaluate", run, work / "new")["accuracy"] == 1.0
    command = [sys.executable, "-m", "kindsight", "train", work / "train", "--run", work / "again"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    advice = "Training needs an optional package: pip install 'kindsight[train]'"
    assert done.returncode == 2 and advice in done.stderr, done
    assert not (work / "again").exists()
    print(
        f"evaluated and predicted with {versions('ai-edge-litert')}, without TensorFlow and Keras"
    )


def versions(*packages: str) -> str:
    """Return the versions of Python and of packages."""
    names = ("kindsight", "numpy", "pillow", *packages)
    found = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"Python {sys.version.split()[0]}, {found}"


if __name__ == "__main__":
    {"train": train, "predict": predict}[sys.argv[1]](Path(sys.argv[2]))
