"""Compare candidate default features: other stages, statistics, image sizes, resizing and TTA.

One pass of EfficientNet-Lite0 returns the mean, maximum and standard deviation over space at the
end of stages 2 to 7, the standard deviation and extremes of the row and column means, and the mean
of the last feature map. Each configuration is scored by the test accuracy of the head that
:func:`kindsight.training.frozen.select_head.fit_head` fits to its columns: five folds of a folder,
four splits of the solar cells with a quarter for testing, as in ``accuracy_job.py``. The head is
selected on the training split only.

Examples
--------
::

    python benchmarks/feature_choice.py cats-dogs/ sign-digits/ elpv
    python benchmarks/feature_choice.py elpv --only stages --limit 60
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accuracy_job import load, make_splits, some_rows
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.groups import fold_indices
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.models.backbones.backbone import PROFILES, FeatureBlock, FeatureLayout
from kindsight.models.backbones.backbone import STATISTICS as SPATIAL_STATISTICS
from kindsight.models.backbones.tta import transform_image, tta_variants
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv
from kindsight.training.frozen.select_head import FOLDS, fit_head
from processes import log

NAME = "efficientnet-lite0"
ALL_STAGES = range(2, 8)
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
    "mean, max, std, row and column statistics": (*SPATIAL_STATISTICS, *PROFILES),
}
TTA = {
    "none": tta_variants((0,), 1),
    "mirror image": tta_variants((0, 1), 1),
    "mirror image, upside down": tta_variants((0, 1, 2), 1),
    "center crop": tta_variants((0,), 2),
    "center and corner crops": tta_variants((0,), 6),
    "mirror image, upside down, center crops": tta_variants((0, 1, 2), 2),
}


class Config(NamedTuple):
    """How features are computed; `tta`, `stages` and `statistics` are keys of the tables above."""

    size: int = 224
    resize: str = "crop"
    tta: str = "none"
    stages: str = "3-6 and last mean"
    statistics: str = "mean, max, std, row and column statistics"


DEFAULT = Config()
# Each comparison varies one field of the default.
COMPARISONS: dict[str, list[Config]] = {
    field: [DEFAULT._replace(**{field: value}) for value in values]
    for field, values in {
        "stages": STAGES,
        "statistics": STATISTICS,
        "size": (224, 300),
        "resize": ("crop", "stretch", "pad"),
        "tta": TTA,
    }.items()
}


class Network:
    """Lite0 with statistics of every stage, as one LiteRT interpreter per thread.

    Parameters
    ----------
    size : int
        Height and width of the images in pixels.
    folder : pathlib.Path
        Where the LiteRT file is written.
    """

    def __init__(self, size: int, folder: Path) -> None:
        from kindsight.models.backbones.features import build_feature_model, build_network
        from kindsight.models.backbones.table import get_backbone, lite_stages
        from kindsight.models.runtime import InterpreterPool, convert_to_litert

        backbone = dataclasses.replace(get_backbone(NAME), stages=lite_stages(NAME, ALL_STAGES))
        model, _ = build_feature_model(backbone, build_network(backbone, (size, size)))
        file = folder / f"every-stage-{size}.tflite"
        file.write_bytes(convert_to_litert(model))
        self.layout = backbone.layout()
        self.run = InterpreterPool(file).run


@dataclasses.dataclass
class FeatureCache:
    """Networks and features, each computed once.

    Parameters
    ----------
    folder : pathlib.Path
        For the networks' files.
    """

    folder: Path
    networks: dict[int, Network] = dataclasses.field(default_factory=dict)
    computed: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)

    def network(self, size: int) -> Network:
        """Return the network for images of `size`."""
        if size not in self.networks:
            self.networks[size] = Network(size, self.folder)
        return self.networks[size]

    def features(self, name: str, dataset: ImageDataset, config: Config) -> Any:
        """Return all statistics, averaged over the TTA variants: float32 (images, width)."""
        size, resize, tta = config[:3]
        key = (name, size, resize, tta)
        if key in self.computed:
            return self.computed[key]
        network = self.network(size)
        spec = InputSpec(size, size, fit=resize)  # type: ignore[arg-type]

        def row(index: int) -> Any:
            data = dataset.load(index)
            image = read_image(data, target=spec.size) if isinstance(data, bytes) else data
            pixels = resize_image(image, spec)
            variants = (np.ascontiguousarray(transform_image(pixels, v)) for v in TTA[tta])
            return np.mean([network.run(variant) for variant in variants], axis=0)

        start = time.monotonic()
        with single_threaded_opencv():
            rows = list(map_ordered(row, range(len(dataset)), count_cores() + 1))
        log(f"{name}, {size} {resize}, TTA {tta}: {time.monotonic() - start:.0f} s")
        self.computed[key] = np.stack(rows)
        return self.computed[key]


def choose_columns(
    layout: FeatureLayout, stages: Sequence[int], statistics: Sequence[str]
) -> tuple[Any, FeatureLayout]:
    """Return the columns of some stages' statistics and the last mean, and their layout.

    Parameters
    ----------
    layout : FeatureLayout
        Layout of all columns.
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
    """Return the mean test accuracy over the splits of ``accuracy_job.py``."""
    classes, targets = np.unique(labels, return_inverse=True)
    accuracies = []
    for train, test in make_splits(labels, folds):
        inner = max(2, min(FOLDS, int(np.bincount(targets[train]).min())))
        head = fit_head(
            features[train],
            targets[train],
            len(classes),
            layout,
            folds=fold_indices(targets[train], None, inner, 0),
        )
        predicted = head.layers.logits(features[test]).argmax(1)
        accuracies.append(float((predicted == targets[test]).mean()))
    return float(np.mean(accuracies))


def main() -> None:
    """Run the comparisons on each dataset and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("data", nargs="+", help="folders of class folders, or elpv")
    parser.add_argument(
        "--only", default=",".join(COMPARISONS), help="comma-separated comparisons  [default: all]"
    )
    parser.add_argument("--limit", type=int, help="about this many images of each: a trial")
    options = parser.parse_args()
    comparisons = options.only.split(",")
    if unknown := [name for name in comparisons if name not in COMPARISONS]:
        parser.error(f"--only must be some of {','.join(COMPARISONS)}; got {','.join(unknown)}.")
    table: dict[tuple[str, Config], list[float]] = {}
    names = [Path(data).name for data in options.data]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cache = FeatureCache(Path(folder))
        for name, data in zip(names, options.data, strict=True):
            dataset = load(data)
            dataset = dataset[some_rows(dataset.label, options.limit)]
            accuracies: dict[Config, float] = {}
            for comparison in comparisons:
                for config in COMPARISONS[comparison]:
                    if config not in accuracies:
                        accuracies[config] = _score(cache, name, dataset, config, data != "elpv")
                    table.setdefault((comparison, config), []).append(accuracies[config])
            cache.computed.clear()
    _print(table, names)


def _score(cache: FeatureCache, name: str, dataset: Any, config: Config, folds: bool) -> float:
    features = cache.features(name, dataset, config)
    layout = cache.network(config.size).layout
    stages, statistics = STAGES[config.stages], STATISTICS[config.statistics]
    columns, chosen = choose_columns(layout, stages, statistics)
    score = accuracy(np.ascontiguousarray(features[:, columns]), dataset.label, chosen, folds)
    log(f"{name}, {config}: {100 * score:.2f}%")
    return score


def _print(table: dict[tuple[str, Config], list[float]], names: Sequence[str]) -> None:
    print("| comparison | value | " + " | ".join(names) + " | mean |")
    print("|---|---|" + "--:|" * (len(names) + 1))
    for (comparison, config), values in table.items():
        mark = " (default)" if config == DEFAULT else ""
        cells = [f"{100 * value:.2f}%" for value in (*values, float(np.mean(values)))]
        print(f"| {comparison} | {getattr(config, comparison)}{mark} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
