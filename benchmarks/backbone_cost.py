"""Measure how long backbones take per image, relative to EfficientNet-Lite0, and their parity.

Each backbone is built with random weights, which take the same time as pretrained ones, and run by
LiteRT on one image after another, on one thread. The runs of all backbones alternate, so that a
change in the machine's speed affects all of them; the median is reported. Prints a table, or JSON
with --json::

    python benchmarks/backbone_cost.py
    python benchmarks/backbone_cost.py --only dinov2-small:126 vit-small-patch16:224
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from kindsight.cache.folder import Cache
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.runtime import Interpreter, make_images

REFERENCE = "efficientnet-lite0:224"
DEFAULT = (
    "dinov2-small:126", "dinov2-small:224", "dinov2-small-registers:224", "vit-small-patch16:128",
    "vit-small-patch16:224", "vit-base-patch16:224",
)  # fmt: skip


def build(name: str, size: int, cache: str | None) -> tuple[Interpreter, float]:
    """Return an interpreter of a backbone and the difference between Keras and LiteRT."""
    files = ensure_backbone(name, (size, size), Cache(cache).folder(), weights="none")
    record = json.loads(Path(files.tflite).with_suffix(".json").read_text())
    return Interpreter(files.tflite), float(record["difference"])


def main() -> None:
    """Print the cost of each backbone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=DEFAULT, metavar="NAME:SIZE")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--cache", help="cache folder; the user's own by default")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [REFERENCE, *options.only]
    built = {}
    for name in names:
        backbone, _, size = name.partition(":")
        built[name] = build(backbone, int(size), options.cache)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    images = {
        name: make_images(1, one.size)[0].astype(np.uint8) for name, (one, _) in built.items()
    }
    for run in range(options.runs + 1):  # the first runs are slower
        for name, (interpreter, _) in built.items():
            start = time.perf_counter()
            interpreter(images[name])
            if run:
                seconds[name].append(time.perf_counter() - start)
    reference = statistics.median(seconds[REFERENCE])
    rows = [
        {
            "backbone": name,
            "milliseconds": round(1000 * statistics.median(times), 1),
            "ratio": round(statistics.median(times) / reference, 2),
            "difference": built[name][1],
        }
        for name, times in seconds.items()
    ]
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    print(f"{'backbone':28} {'ms/image':>9} {'ratio':>6}  Keras and LiteRT differ by")
    for row in rows:
        print(
            f"{row['backbone']:28} {row['milliseconds']:9} {row['ratio']:6} "
            f" {row['difference']:.1e}"
        )


if __name__ == "__main__":
    main()
