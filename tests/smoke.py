"""Train, predict and evaluate with an installed kindsight: a test of a release, without pytest.

Run with the Python of the environment: ``python tests/smoke.py``. It makes its own images.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib import metadata
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


def main() -> None:
    """Train in a temporary folder and check the result."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_images(work / "train")
        make_images(work / "new", 4)
        run = work / "run"
        trained = kindsight("train", work / "train", "--run", run, "--quiet")
        assert trained["classes"] == ["left", "top"], trained
        scores = kindsight("evaluate", run, work / "new")
        assert scores["accuracy"] == 1.0, scores
        first = kindsight("predict", run, work / "new" / "top" / "0.jpg")
        assert first["label"] == "top", first
        kindsight("train", work / "train", "--run", work / "cnn", "--model", "small-cnn",
                  "--size", 32, "--epochs", 2, "--quiet")  # fmt: skip
    versions = ", ".join(
        f"{package} {metadata.version(package)}"
        for package in ("kindsight", "numpy", "keras", "ai-edge-litert", "pillow")
    )
    print(f"trained, evaluated and predicted with Python {sys.version.split()[0]}, {versions}")


if __name__ == "__main__":
    main()
