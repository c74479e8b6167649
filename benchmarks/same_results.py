"""Compare the results of two checkouts: predictions, logits of the bundles, findings of checks.

Both checkouts train on the same folders with the same seeds, each with a cache of its own. Printed
is the largest difference of a probability on the validation split, of a logit of ``model.tflite``
on images of the data, and the number of findings that only one of them has.

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
given, out = model.get_input_details()[0], model.get_output_details()[0]
side = given["shape"][1]
rows = []
for path in sys.argv[3:]:
    pixels = np.asarray(Image.open(path).convert("RGB").resize((side, side)), np.float32)
    model.set_tensor(given["index"], pixels[None]); model.invoke()
    rows.append(model.get_tensor(out["index"])[0])
np.save(sys.argv[2], np.array(rows))
"""


def run(checkout: Path, folder: Path, *arguments: str) -> str:
    """Run ``kindsight`` of a checkout with a cache of its own; return what it prints."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout / "src"),
        "KINDSIGHT_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "kindsight", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
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
    with tempfile.TemporaryDirectory() as place:
        sides = {"before": (before, Path(place, "before")), "now": (HERE, Path(place, "now"))}
        for name, options in TRAININGS.items():
            found = {}
            for side, (checkout, folder) in sides.items():
                folder.mkdir(exist_ok=True)
                out = run(
                    checkout, folder, "train", data, "--runs", str(folder), "--json", "--quiet",
                    *options,
                )  # fmt: skip
                made = Path(json.loads(out)["run"])
                found[side] = (
                    probabilities(made),
                    logits(folder, made / "model.tflite", images),
                )
            one, other = found["before"], found["now"]
            same = set(one[0]) == set(other[0])
            largest = (
                max(
                    (np.abs(np.subtract(one[0][path], other[0][path])).max() for path in one[0]),
                    default=0.0,
                )
                if same
                else np.nan
            )
            scale = np.abs(one[1] - other[1]).max()
            split = "same split" if same else "ANOTHER SPLIT"
            print(
                f"{data} {name}: {split}, probabilities {largest:.1e}, logits {scale:.1e}",
                flush=True,
            )
        rows = [findings(checkout, folder, data) for checkout, folder in sides.values()]
        print(
            f"{data} check --full: {len(rows[0])} findings before, {len(rows[0] ^ rows[1])} differ",
            flush=True,
        )


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, type=Path, help="checkout to compare with")
    parser.add_argument("--data", required=True, nargs="+", help="folders of class folders")
    given = parser.parse_args()
    for data in given.data:
        compare(given.before.resolve(), data)


if __name__ == "__main__":
    main()
