"""Time the stages of a training on many images in one process; started by scale.py.

The last line of the output is JSON: seconds and peak resident memory (MB) at the end of each stage.
Without images, the backbone is built.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from kindsight.dataset import ImageDataset
from kindsight.models.backbones.table import BACKBONES
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.prepared import prepare_frozen
from kindsight.training.frozen.select_head import fit_head
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.near_duplicates import find_near_duplicates

MODEL = "efficientnet-lite0"
CLASSES = 43
FACTORS = 64
"""Independent factors that the generated features are made of."""


class Stages:
    """Seconds and peak memory of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Measure a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.megabytes[name] = peak_megabytes()
        print(f"{name}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


def peak_megabytes() -> float:
    """Return the peak resident memory of this process in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def train_on(folder: Path, cache: Path) -> dict[str, object]:
    """Run the stages on the images of a folder, and those that a second training repeats."""
    stages, trainer = Stages(), FrozenTrainer(model=MODEL, cache=str(cache))
    dataset = ImageDataset.from_folder(folder)
    trainer.backbone()
    found: dict[str, object] = {"images": len(dataset)}
    for name in ("", " again"):
        with stages.measured("features" + name):
            images = prepare_frozen(trainer, dataset)
        with stages.measured("near-duplicates" + name):
            near = find_near_duplicates(
                images.dataset, images.measure_similarity, images.small_grey
            )
    with stages.measured("fit"):
        fitted = images.fit_head(dataset.classes, np.arange(len(images.dataset)))
    found["groups"] = len(near.groups)
    found["grouped"] = sum(map(len, near.groups))
    found["complete"] = near.context.cached("duplicates", lambda: None).complete
    found["accuracy"] = fitted.head.chosen.accuracy
    return {**found, "seconds": stages.seconds, "megabytes": stages.megabytes}


def fit_generated(count: int, folder: Path) -> dict[str, object]:
    """Fit a head to generated features in a feature cache."""
    stages, layout = Stages(), BACKBONES[MODEL].layout()
    random = np.random.default_rng(0)
    targets = random.integers(0, CLASSES, count)
    centers = random.normal(size=(CLASSES, FACTORS)).astype(np.float32)
    loadings = random.normal(size=(FACTORS, layout.width)).astype(np.float32)
    digests = [f"{number:08d}" for number in range(count)]
    with closing(FeatureTable(folder / "generated.sqlite", layout.width)) as table:
        with stages.measured("generate"):
            for start in range(0, count, 1024):
                rows = slice(start, min(start + 1024, count))
                noise = random.normal(size=(len(targets[rows]), FACTORS)).astype(np.float32)
                factors = 0.5 * centers[targets[rows]] + noise
                values = np.maximum(0.1 * factors @ loadings + 0.3, 0)
                table.put(
                    [
                        FeatureRow(digest, value)
                        for digest, value in zip(digests[rows], values, strict=True)
                    ]
                )
        with stages.measured("read"):
            features = FeatureRows.of_table(table, digests)
        with stages.measured("fit"):
            fit_head(features, targets, CLASSES, layout, folds=random.integers(0, 5, count), seed=0)
    return {"images": count, "seconds": stages.seconds, "megabytes": stages.megabytes}


def main() -> None:
    """Read the command line and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="images in class folders")
    parser.add_argument("--generated", type=int, default=0, metavar="N", help="rows of features")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(train_on(options.folder, options.cache)))
    elif options.generated:
        print(json.dumps(fit_generated(options.generated, options.cache)))
    else:
        FrozenTrainer(model=MODEL, cache=str(options.cache)).backbone()


if __name__ == "__main__":
    main()
