"""Time the stages of a training on many images in one process; started by scale.py.

The last line of the output is JSON: seconds and peak resident memory (MB) at the end of each stage.
Without images, the backbone is built. Generated features are stored in half precision, as those of
large datasets are: `--generated 1000000` needs 10 GB of disk space for features and up to 4 GB for
the columns of the fit. `--labels` predicts out of fold, too, as `check --full` does.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.checks.rules.labels import find_label_errors
from kindsight.dataset import ImageDataset
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.models.backbones.table import BACKBONES
from kindsight.training.frozen.column_store import ColumnStore
from kindsight.training.frozen.feature_cache import HALF, FeatureRow, FeatureTable
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.prepared import prepare_frozen
from kindsight.training.frozen.select_head import fit_head, predict_out_of_fold
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.near_duplicates import find_near_duplicates

MODEL = "efficientnet-lite0"
CLASSES = 43
FACTORS = 64
"""Independent factors that the generated features are made of."""


class Digests(Sequence[str]):
    """Names of generated images, created when they are needed."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, rows: Any) -> Any:
        found = self._numbers[rows]
        return Digests(found) if isinstance(rows, slice) else f"{found:09d}"


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


def generated_layout(width: int) -> FeatureLayout:
    """Return the backbone's layout, or two blocks of another width."""
    if not width:
        return BACKBONES[MODEL].layout()
    half = width // 2
    return FeatureLayout(
        (FeatureBlock("stage_mean", 0, half), FeatureBlock("top_mean", half, width))
    )


def fit_generated(
    count: int, folder: Path, classes: int, width: int, kind: str, labels: bool
) -> dict[str, object]:
    """Fit a head to generated features in a feature cache."""
    stages, layout = Stages(), generated_layout(width)
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, count)
    centers = random.normal(size=(classes, FACTORS)).astype(np.float32)
    loadings = random.normal(size=(FACTORS, layout.width)).astype(np.float32)
    digests = Digests(range(count))
    with closing(FeatureTable(folder / f"generated{HALF}.sqlite", layout.width)) as table:
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
        folds, store = random.integers(0, 5, count), ColumnStore(folder)
        with stages.measured("fit"):
            head = fit_head(
                features, targets, classes, layout, folds=folds, kind=kind, seed=0, store=store
            )
        with stages.measured("logits"):
            logits = features.map(head.layers.logits)
        found = {"accuracy": float((logits.argmax(1) == targets).mean()), "head": head.chosen.kind}
        if labels:
            with stages.measured("label checks"):
                predicted = predict_out_of_fold(
                    features, targets, classes, layout, folds=folds, store=store
                )
                found["questioned"] = len(find_label_errors(predicted, targets).rows)
    return {"images": count, **found, "seconds": stages.seconds, "megabytes": stages.megabytes}


def main() -> None:
    """Read the command line and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="images in class folders")
    parser.add_argument("--generated", type=int, default=0, metavar="N", help="rows of features")
    parser.add_argument("--classes", type=int, default=CLASSES, metavar="C", help="of them")
    parser.add_argument("--width", type=int, default=0, metavar="W", help="another width of them")
    parser.add_argument("--kind", default="auto", choices=("auto", "linear", "rbf"))
    parser.add_argument("--labels", action="store_true", help="question the labels, too")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(train_on(options.folder, options.cache)))
    elif options.generated:
        found = fit_generated(
            options.generated, options.cache, options.classes, options.width, options.kind,
            options.labels,
        )  # fmt: skip
        print(json.dumps(found))
    else:
        FrozenTrainer(model=MODEL, cache=str(options.cache)).backbone()


if __name__ == "__main__":
    main()
