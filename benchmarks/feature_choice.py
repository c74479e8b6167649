"""How the default features were chosen: accuracy of other stages, statistics, sizes and views.

One pass of EfficientNet-Lite0 gives mean, maximum and standard deviation over space at the end of
its stages 2 to 7, spread and extremes of the means of rows and columns, and the last mean. Each
choice of columns is judged by the accuracy of the head that
:func:`kindsight.training.frozen.select_head.fit_head` makes of them, on images held out: five
folds of folders,
four draws of a quarter of the solar cells, as in ``accuracy_job.py``. The head is chosen on the
training part alone.

Examples
--------
::

    python benchmarks/feature_choice.py cats-dogs/ sign-digits/ elpv
    python benchmarks/feature_choice.py elpv --only stages --limit 60
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accuracy_job import load, make_splits, some_rows
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.folds import fold_indices
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.models.backbones.backbone import PROFILES
from kindsight.models.backbones.backbone import STATISTICS as STATISTICS_OF_PLACES
from kindsight.models.backbones.layout import FeatureBlock, FeatureLayout
from kindsight.models.backbones.tta import transform_image, tta_variants
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv
from kindsight.training.frozen.select_head import FOLDS, fit_head
from processes import log

NAME = "efficientnet-lite0"
EVERY = range(2, 8)
STAGES: dict[str, Sequence[int]] = {
    "last mean": (),
    "3-6 and last mean": range(3, 7),
    "4-7 and last mean": range(4, 8),
    "3-7 and last mean": range(3, 8),
    "2-7 and last mean": range(2, 8),
}
STATISTICS = {
    "mean": ("mean",),
    "mean, std": ("mean", "std"),
    "mean, max, std": ("mean", "max", "std"),
    "and rows, columns": (*STATISTICS_OF_PLACES, *PROFILES),
}
DEFAULT = (224, "crop", "as they are", "3-6 and last mean", "and rows, columns")
Views = Callable[[Any], list[Any]]
VIEWS: dict[str, Views] = {
    "as they are": lambda pixels: [pixels],
    "and left-right": lambda pixels: [pixels, pixels[:, ::-1]],
    "and left-right, up-down": lambda pixels: [pixels, pixels[:, ::-1], pixels[::-1]],
    "and the middle": lambda pixels: [
        transform_image(pixels, view) for view in tta_variants((0,), 2)
    ],
    "and the middle, the corners": lambda pixels: [
        transform_image(pixels, v) for v in tta_variants((0,), 6)
    ],
    "those three, and their middles": lambda pixels: [
        transform_image(pixels, v) for v in tta_variants((0, 1, 2), 2)
    ],
}
# Each asks one question; what it does not ask about is as in DEFAULT.
QUESTIONS = {
    "stages": [(*DEFAULT[:3], stages, DEFAULT[4]) for stages in STAGES],
    "statistics": [(*DEFAULT[:4], statistics) for statistics in STATISTICS],
    "size": [(size, *DEFAULT[1:]) for size in (224, 300)],
    "resize": [(224, fit, *DEFAULT[2:]) for fit in ("crop", "stretch", "pad")],
    "views": [(224, "crop", views, *DEFAULT[3:]) for views in VIEWS],
}


class Network:
    """Lite0 with statistics at every stage, as one LiteRT interpreter for each thread.

    Parameters
    ----------
    size : int
        Height and width of the images in pixels.
    folder : pathlib.Path
        Where its file is written.
    """

    def __init__(self, size: int, folder: Path) -> None:
        from kindsight.models.backbones.features import build_feature_model, build_network
        from kindsight.models.backbones.table import get_backbone, lite_stages
        from kindsight.models.formats.convert import convert_to_litert
        from kindsight.models.runtime import InterpreterPool

        backbone = dataclasses.replace(get_backbone(NAME), stages=lite_stages(NAME, EVERY))
        model, _ = build_feature_model(backbone, build_network(backbone, (size, size)))
        file = folder / f"every-stage-{size}.tflite"
        file.write_bytes(convert_to_litert(model))
        self.layout = backbone.layout()
        self.run = InterpreterPool(file).run


@dataclasses.dataclass
class Bench:
    """Networks and features, each made once.

    Parameters
    ----------
    folder : pathlib.Path
        For the networks' files.
    """

    folder: Path
    networks: dict[int, Network] = dataclasses.field(default_factory=dict)
    made: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)

    def network(self, size: int) -> Network:
        """Return the network for images of `size`."""
        if size not in self.networks:
            self.networks[size] = Network(size, self.folder)
        return self.networks[size]

    def features(self, name: str, dataset: ImageDataset, size: int, fit: str, views: str) -> Any:
        """Return float32 (images, width): all statistics, averaged over the views."""
        key = (name, size, fit, views)
        if key in self.made:
            return self.made[key]
        network, spec = self.network(size), InputSpec(size, size, fit=fit)  # type: ignore[arg-type]

        def row(index: int) -> Any:
            data = dataset.load(index)
            image = read_image(data, target=spec.size) if isinstance(data, bytes) else data
            pixels = resize_image(image, spec)
            every = [network.run(np.ascontiguousarray(view)) for view in VIEWS[views](pixels)]
            return np.mean(every, axis=0)

        start = time.monotonic()
        with single_threaded_opencv():
            found = list(map_ordered(row, range(len(dataset)), count_cores() + 1))
        log(f"{name}, {size} {fit}, {views}: {time.monotonic() - start:.0f} s")
        self.made[key] = np.stack(found)
        return self.made[key]


def choose_columns(
    layout: FeatureLayout, stages: Sequence[int], statistics: Sequence[str]
) -> tuple[Any, FeatureLayout]:
    """Return which columns belong to some stages' statistics and the last mean, and their layout.

    Parameters
    ----------
    layout : FeatureLayout
        Of all columns.
    stages : sequence of int
    statistics : sequence of str
    """
    wanted = {f"stage{stage}_{statistic}" for stage in stages for statistic in statistics}
    columns, blocks, start = [], [], 0
    for block in layout.blocks:
        if block.name in wanted or block.name == "top_mean":
            columns.append(np.arange(block.start, block.stop))
            stop = start + block.stop - block.start
            blocks.append(FeatureBlock(block.name, start, stop))
            start = stop
    return np.concatenate(columns), FeatureLayout(tuple(blocks))


def accuracy(features: Any, labels: Sequence[str], layout: FeatureLayout, folds: bool) -> float:
    """Return the mean accuracy over the divisions of ``accuracy_job.py``."""
    classes, targets = np.unique(labels, return_inverse=True)
    found = []
    for train, test in make_splits(labels, folds):
        inner = max(2, min(FOLDS, int(np.bincount(targets[train]).min())))
        head = fit_head(
            features[train],
            targets[train],
            len(classes),
            layout,
            folds=fold_indices(targets[train], None, inner, 0),
        )
        answers = head.layers.logits(features[test]).argmax(1)
        found.append(float((answers == targets[test]).mean()))
    return float(np.mean(found))


def main() -> None:
    """Ask the questions of each data set and print the answers."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", nargs="+", help="folders of class folders, or elpv")
    parser.add_argument("--only", default=",".join(QUESTIONS), help="questions, with commas")
    parser.add_argument("--limit", type=int, help="use about this many images of each: a trial")
    options = parser.parse_args()
    asked = options.only.split(",")
    if unknown := [question for question in asked if question not in QUESTIONS]:
        parser.error(f"--only takes some of {','.join(QUESTIONS)}. Received: {','.join(unknown)}")
    table: dict[tuple[str, Any], list[float]] = {}
    names = [Path(data).name for data in options.data]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder))
        for name, data in zip(names, options.data, strict=True):
            dataset = load(data)
            dataset = dataset[some_rows(dataset.label, options.limit)]
            known: dict[Any, float] = {}
            for question in asked:
                for choice in QUESTIONS[question]:
                    if choice not in known:
                        known[choice] = _judge(bench, name, dataset, choice, data != "elpv")
                    table.setdefault((question, choice), []).append(known[choice])
            bench.made.clear()
    _print(table, names)


def _judge(bench: Bench, name: str, dataset: Any, choice: tuple[Any, ...], folds: bool) -> float:
    size, fit, views, stages, statistics = choice
    features = bench.features(name, dataset, size, fit, views)
    layout = bench.network(size).layout
    columns, chosen = choose_columns(layout, STAGES[stages], STATISTICS[statistics])
    found = accuracy(np.ascontiguousarray(features[:, columns]), dataset.label, chosen, folds)
    log(f"{name}, {choice}: {100 * found:.2f}%")
    return found


def _print(table: dict[tuple[str, Any], list[float]], names: Sequence[str]) -> None:
    place = {"size": 0, "resize": 1, "views": 2, "stages": 3, "statistics": 4}
    print("| question | choice | " + " | ".join(names) + " | mean |")
    print("|---|---|" + "--:|" * (len(names) + 1))
    for (question, choice), values in table.items():
        mark = " (default)" if choice == DEFAULT else ""
        cells = [f"{100 * value:.2f}%" for value in (*values, float(np.mean(values)))]
        print(f"| {question} | {choice[place[question]]}{mark} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
