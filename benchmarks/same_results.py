"""Compare the results of two checkouts: predictions, logits of the bundles, findings of checks.

Both checkouts train on the same folders with the same seeds, each with its own cache. The script
prints the largest difference of the validation probabilities and of the logits of ``model.tflite``
on the data's images, and the number of findings that only one checkout has.

    python benchmarks/same_results.py --before ../before --data cats-dogs/ sign-digits/
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]
TRAININGS = {
    "default": [],
    "linear head, seed 3": ["--head", "linear", "--seed", "3"],
    "small-cnn, 2 epochs": ["--model", "small-cnn", "--size", "48", "--epochs", "2"],
    "transfer, 1 epoch": ["--freeze", "all", "--dropout", "0.2", "--epochs", "1", "--size", "96"],
}
IMAGES = 64
LOGITS = """
import sys, numpy as np
from pathlib import Path
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
model = Interpreter(model_path=sys.argv[1]); model.allocate_tensors()
inputs, outputs = model.get_input_details()[0], model.get_output_details()[0]
size = inputs["shape"][1]
rows = []
for path in sys.argv[3:]:
    pixels = np.asarray(Image.open(path).convert("RGB").resize((size, size)), np.float32)
    model.set_tensor(inputs["index"], pixels[None]); model.invoke()
    rows.append(model.get_tensor(outputs["index"])[0])
np.save(sys.argv[2], np.array(rows))
"""


def run(checkout: Path, folder: Path, *arguments: str) -> str:
    """Run ``kindsight`` of a checkout with its own cache; return its standard output."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout / "src"),
        "KINDSIGHT_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "kindsight", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # Exit code 1 of `kindsight check` means findings.
    if done.returncode not in (0, 1) or (done.returncode and "check" not in arguments):
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def probabilities(run_folder: Path) -> dict[str, list[float]]:
    """Return the class probabilities of the validation images by path."""
    with (run_folder / "validation.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return {row[0]: [float(value) for value in row[3:]] for row in rows[1:]}


def logits(folder: Path, model: Path, images: list[str]) -> np.ndarray:
    """Return the logits of a bundle's LiteRT file on images."""
    out = folder / "logits.npy"
    subprocess.run([sys.executable, "-c", LOGITS, str(model), str(out), *images], check=True)
    return np.load(out)


def findings(checkout: Path, folder: Path, data: str) -> set[tuple[str, ...]]:
    """Return code and paths of all findings of ``kindsight check --full``."""
    out = folder / "check"
    run(checkout, folder, "check", data, "--full", "--out", str(out), "--quiet")
    (table,) = out.rglob("findings.csv")
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["code"], row["path"]) for row in rows}


def compare(before: Path, data: str) -> None:
    """Print the differences for one folder of images."""
    images = sorted(str(path) for path in Path(data).rglob("*.*"))
    images = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    with tempfile.TemporaryDirectory() as temporary:
        checkouts = {Path(temporary, "before"): before, Path(temporary, "now"): HERE}
        for folder in checkouts:
            folder.mkdir()
        for name, options in TRAININGS.items():
            results = []
            for folder, checkout in checkouts.items():
                out = run(
                    checkout, folder, "train", data, "--runs", str(folder), "--json", "--quiet",
                    *options,
                )  # fmt: skip
                run_folder = Path(json.loads(out)["run"])
                model = run_folder / "model.tflite"
                results.append((probabilities(run_folder), logits(folder, model, images)))
            (old, old_logits), (new, new_logits) = results
            same_split = set(old) == set(new)
            differences = [
                np.abs(np.subtract(old[path], new[path])).max() for path in old if same_split
            ]
            largest = max(differences, default=0.0 if same_split else np.nan)
            print(
                f"{data} {name}: {'same split' if same_split else 'DIFFERENT SPLIT'}, "
                f"probabilities {largest:.1e}, "
                f"logits {np.abs(old_logits - new_logits).max():.1e}",
                flush=True,
            )
        old_findings, new_findings = (
            findings(checkout, folder, data) for folder, checkout in checkouts.items()
        )
        print(
            f"{data} check --full: {len(old_findings)} findings before, "
            f"{len(old_findings ^ new_findings)} differ",
            flush=True,
        )


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, type=Path, help="checkout to compare with")
    parser.add_argument("--data", required=True, nargs="+", help="folders of class folders")
    options = parser.parse_args()
    for data in options.data:
        compare(options.before.resolve(), data)


if __name__ == "__main__":
    main()
