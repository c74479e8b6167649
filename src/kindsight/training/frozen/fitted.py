"""The fitted model of a frozen backbone: its head, features and settings."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, TFLITE_FILE
from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.groups import fold_indices, group_indices
from kindsight.evaluation import to_probabilities
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.backbones.ensemble import build_ensemble
from kindsight.models.backbones.table import split_model_name
from kindsight.models.formats.assemble import write_keras, write_tflite
from kindsight.models.graph import layer_path
from kindsight.models.ood import OODScore, output_layers
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress, balanced_weights, class_targets
from kindsight.training.engine.history import History
from kindsight.training.frozen.column_store import ColumnStore
from kindsight.training.frozen.features import Features, compute_all_features
from kindsight.training.frozen.select_head import FOLDS, FittedHead, fit_ensemble_head, fit_head
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.frozen.stored_images import cropped_fraction, read_images, read_pixels
from kindsight.training.held_out import OUT_OF_FOLD, HeldOutPredictions
from kindsight.training.ood import KNOWN_KEPT, FittedScore, fit_score
from kindsight.training.parity import (
    NUMPY_IMAGES,
    NetworkOutputs,
    check_keras_weights,
    check_tflite_weights,
    compare_outputs,
    compared_rows,
    is_verified,
    record_verified,
    run_tflite,
)
from kindsight.training.protocols import (
    BundleFiles,
    FineTuningResult,
    HeadCandidate,
    Parity,
    ReportSections,
    StoredImage,
    rejection_notes,
)

__all__ = ["FittedFrozenHead", "fit_frozen"]

RUN_BY_KERAS = "model.keras was loaded and run by Keras"
VERIFIED_BEFORE = (
    "Keras ran this backbone with this kind of head before; the head was compared with NumPy, and "
    "the weights were read back from both files"
)

CROP_SAMPLE = 50_000
"""Maximum number of images from which the cropped fraction is measured; of more, every second,
third, ... is used."""


@dataclass(frozen=True)
class FittedFrozenHead:
    """A fitted head with its features and settings.

    Parameters
    ----------
    training : FrozenTrainer
        The settings.
    classes : tuple of str
        Class names, in the order of the logits.
    files : BackboneFiles
        The backbone.
    features : Features
        The features of all images.
    rows : array
        int64: rows of the training images.
    folds : array
        int64: the fold in which each training image was held out.
    head : FittedHead
        The head and how it was selected.
    seconds : float
        Duration of selecting and fitting the head.
    fine_tuning : FineTuningResult, optional
        Fine-tuning that was tried and not accepted.
    """

    training: FrozenTrainer
    classes: tuple[str, ...]
    files: BackboneFiles
    features: Features
    rows: NDArray[np.int64]
    folds: NDArray[np.int64]
    head: FittedHead
    seconds: float
    fine_tuning: FineTuningResult | None = None

    @property
    def dataset(self) -> ImageDataset:
        """The readable images."""
        return self.features.dataset

    @property
    def temperature(self) -> float:
        """The number by which logits are divided before the softmax."""
        return self.head.temperature

    @property
    def history(self) -> History | None:
        """None: a head is fitted, not trained in epochs."""
        return None

    @property
    def can_be_fine_tuned(self) -> bool:
        """Whether fine-tuning was not tried."""
        return self.fine_tuning is None

    @property
    def notes(self) -> tuple[str, ...]:
        """Why fine-tuning was not accepted, where it was tried."""
        return rejection_notes(self.fine_tuning)

    def probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the class probabilities of some images, float32 (n, classes)."""
        logits = self.features.vectors.take(rows).map(self.head.layers.logits)
        return to_probabilities(logits, self.temperature)

    def held_out(self) -> HeldOutPredictions:
        """Return the out-of-fold predictions of the training images that selected the head."""
        rows = self.rows[self.head.selection]
        dataset = self.dataset[rows]
        found = HeldOutPredictions(
            rows,
            self.head.out_of_fold,
            class_targets(dataset, self.classes),
            self.temperature,
            self.folds[self.head.selection],
            OUT_OF_FOLD,
        )
        return found.distinct([*dataset.digest])

    @cached_property
    def fitted_score(self) -> FittedScore:
        """The out-of-distribution score, fitted to the images that selected the head."""
        held_out, blocks = self.held_out(), self.files.layout.blocks
        same = len(held_out) == len(self.head.selection) and not self.head.chosen.network
        return fit_score(
            self.features.vectors[held_out.rows],
            held_out,
            seed=self.training.seed,
            layers=[slice(block.start, block.stop) for block in blocks],
            scale=self.head.scale if same else None,
        )

    def ood_scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the out-of-distribution scores of some images, out-of-fold for training images."""
        score, blocks = self.fitted_score, self.features.vectors.take(rows).blocks()
        return np.concatenate([score.scores(rows[place], values) for place, values in blocks])

    def logits_of(self, dataset: ImageDataset) -> NDArray[np.float32]:
        """Return the logits of other images; ImageError for the first one that cannot be read."""
        features = compute_all_features(self.training, dataset, self.files)
        if features.problems:
            raise features.problems[0]
        return features.vectors.map(self.head.layers.logits)

    def stored_images(self, digests: Sequence[str]) -> list[StoredImage | None]:
        """Return resized images, from the cache or read again; None for missing ones."""
        width, spec = self.files.layout.width, self.training.spec()
        return read_images(self.features.table, width, self.features.dataset, spec, digests)

    def read_pixels(self, digests: Sequence[str]) -> NDArray[np.uint8]:
        """Return resized images, uint8 (n, height, width, 3), from the cache or read again."""
        width, spec = self.files.layout.width, self.training.spec()
        return read_pixels(self.features.table, width, self.features.dataset, spec, digests)

    def cropped_fraction(self) -> float:
        """Return the mean fraction of the images' area outside the crop, 0-1, from a sample."""
        every = self.features.dataset.digest
        digests = [str(digest) for digest in every[:: 1 + len(every) // CROP_SAMPLE]]
        table, width = self.features.table, self.files.layout.width
        return cropped_fraction(table, width, digests, self.training.spec())

    def write(
        self,
        folder: Path,
        metadata: Mapping[str, Any],
        rows: NDArray[np.int64],
        keras: KerasProcess,
        *,
        verify: str,
        known_kept: float | None = KNOWN_KEPT,
    ) -> BundleFiles:
        """Write both network files and verify that they agree; see :mod:`.parity`."""
        layers = self.head.layers
        score = None if known_kept is None else self.fitted_score.score
        write_keras(self.files.keras, layers, folder / KERAS_FILE, score)
        parity = self._write_tflite(folder, metadata, rows, keras, verify, score)
        facts = {
            "features": [layer_path(name) for name in self.files.layout.names],
            "head": asdict(self.head.chosen),
            "feature_cache": self._feature_cache(),
        }
        parts = {} if known_kept is None else {"unknown": self.fitted_score.to_dict(known_kept)}
        return BundleFiles(
            folder / TFLITE_FILE, folder / KERAS_FILE, parity, facts, uncertainty=parts
        )

    def _write_tflite(
        self,
        folder: Path,
        metadata: Mapping[str, Any],
        rows: NDArray[np.int64],
        keras: KerasProcess,
        verify: str,
        score: OODScore | None,
    ) -> Parity:
        """Write the LiteRT file and compare it with the Keras file written before."""
        tflite, keras_file, head = folder / TFLITE_FILE, folder / KERAS_FILE, self.head.layers
        digests = self.dataset.digest
        chosen = compared_rows(digests, rows, verify)
        needs_keras = verify == "full" or not is_verified(self.files, head, score)
        if not needs_keras:
            chosen = chosen[:NUMPY_IMAGES]
        pixels = self.read_pixels([str(digests[row]) for row in chosen])
        added = output_layers(head, score)
        with ThreadPoolExecutor(3) as worker:
            # Keras spends most of the time on loading the file, on one core.
            by_keras = None
            if needs_keras:
                by_keras = worker.submit(keras.run, keras_file, pixels)
            features = worker.submit(run_tflite, self.files.tflite, pixels[:NUMPY_IMAGES])
            same = worker.submit(check_keras_weights, self.files.keras, added, keras_file)
            write_tflite(self.files.tflite, head, tflite, metadata, score)
            check_tflite_weights(added, tflite)
            written = run_tflite(tflite, pixels)
            same.result()
            vectors = features.result().logits
            few = written.first(NUMPY_IMAGES)
            numpy = NetworkOutputs(head.logits(vectors), None if score is None else score(vectors))
            parity = compare_outputs(few, numpy, self.temperature, VERIFIED_BEFORE)
            if by_keras is not None:
                _, logits, scores = by_keras.result()
                theirs = NetworkOutputs(logits, scores)
                parity = compare_outputs(written, theirs, self.temperature, RUN_BY_KERAS)
                record_verified(self.files, head, score)
        return parity

    def _feature_cache(self) -> list[dict[str, Any]]:
        """Return the name and width of each backbone's feature cache, for ``bundle.json``."""
        tables = self.features.tables or (self.features.table,)
        members = self.files.members or (self.files,)
        return [
            {"table": table.stem, "width": files.layout.width}
            for table, files in zip(tables, members, strict=True)
        ]

    def refit(self, rows: NDArray[np.int64]) -> FittedFrozenHead:
        """Return the model with its head selected and fitted again on other images."""
        fitted = fit_frozen(self.training, self.features, self.files, self.classes, rows)
        return replace(fitted, fine_tuning=self.fine_tuning)

    def describe(self) -> dict[str, str]:
        """Return the rows of the summary that describe the input size and the head."""
        selected = ", selected by cross-validation" if len(self.head.candidates) > 1 else ""
        head = self.head.chosen.summarize() + selected
        return {**self.input_row("input"), "head": head}

    def report_sections(self) -> ReportSections:
        """Return the report section on how the head was selected."""
        layout, chosen = self.files.layout, self.head.chosen
        statistics = describe_statistics(layout.names)
        return ReportSections(
            {
                "Backbone": f"{self.training.describe_backbone()}, frozen",
                **self.input_row("Input"),
                "Features": f"{layout.width:,} per image: {statistics}",
                "Head": chosen.describe(),
            },
            "" if self.temperature == 1 else OUT_OF_FOLD,
            tuple(
                HeadCandidate(item.describe(), item.accuracy, item.log_loss, item == chosen)
                for item in self.head.candidates
            ),
            features_file=self.features.table.name,
        )

    def input_row(self, name: str) -> dict[str, str]:
        """Return the row that describes how the input size was chosen, if it was."""
        size = self.training.describe_input()
        return {name: size} if size else {}

    def clear_away(self) -> None:
        """Do nothing: a fit leaves no files behind."""


def describe_statistics(names: Sequence[str]) -> str:
    """Describe feature blocks such as ``stage3_mean, stage3_max, ..., top_mean``."""
    stages = list(dict.fromkeys(name.rpartition("_")[0] for name in names if name != "top_mean"))
    if not stages:
        return "global average of the last layer"
    ends = ", ".join(layer_path(stage) for stage in stages)
    if all(re.fullmatch(r"stage\d", stage) for stage in stages):
        ends = f"stages {stages[0][-1]} to {stages[-1][-1]}"
    return f"mean, maximum and standard deviation of {ends}, and the last layer's average"


def fit_frozen(
    trainer: FrozenTrainer,
    features: Features,
    files: BackboneFiles,
    classes: Sequence[str],
    rows: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> FittedFrozenHead:
    """Return a head fitted to some of the images.

    For an ensemble, the result may use one backbone only, if cross-validation finds it no worse.

    Parameters
    ----------
    trainer : FrozenTrainer
        The settings.
    features : Features
        The features, computed by the backbones of `files`.
    files : BackboneFiles
        The backbone, or the ensemble.
    classes : sequence of str
        Class names, in the order of the logits.
    rows : array, optional
        int64: rows of the training images; all if omitted.
    progress : callable, optional
        Called with (``"head"``, done, total) while a head is fitted to many images.

    Raises
    ------
    DatasetError
        If a class has no training image.
    """
    start = time.monotonic()
    rows = np.arange(len(features.dataset)) if rows is None else rows
    dataset = features.dataset[rows]
    targets, groups = class_targets(dataset, classes), group_indices(dataset)
    rarest, different = int(np.bincount(targets).min()), int(groups.max()) + 1
    folds = max(2, min(FOLDS, rarest, different))
    digests = [str(digest) for digest in dataset.digest]
    fold = fold_indices(targets, groups, folds, trainer.seed, digests)
    weights = balanced_weights(targets, trainer.class_weight)
    fit = fit_ensemble_head
    if len(files.members) < 2:
        report = None if progress is None else partial(progress, "head")
        fit = partial(fit_head, progress=report)
    store = ColumnStore(Cache(trainer.cache).folder("features"))
    head = fit(
        features.vectors.take(rows),
        targets,
        len(classes),
        files.layout,
        folds=fold,
        kind=trainer.head,
        weights=None if weights is None else weights[targets].astype(np.float32),
        seed=trainer.seed,
        store=store,
    )
    if network := head.chosen.network:
        trainer, files, features = _only_backbone(trainer, network, files, features)
    seconds = time.monotonic() - start
    return FittedFrozenHead(trainer, tuple(classes), files, features, rows, fold, head, seconds)


def _only_backbone(
    trainer: FrozenTrainer, network: str, files: BackboneFiles, features: Features
) -> tuple[FrozenTrainer, BackboneFiles, Features]:
    """Remove the other backbones from settings, files and features."""
    columns = files.layout.networks()
    index = list(columns).index(network)
    variants = trainer.variants_by_backbone[index]
    # The image size remains the one that all backbones got.
    alone = replace(trainer, model=split_model_name(trainer.model)[index], size=trainer.spec().size)
    if index:  # these are the first backbone's settings
        alone = replace(alone, first_size=None, first_tta_crops=None)
    folder = Cache(trainer.cache).folder()
    joined = build_ensemble({network: files.members[index]}, folder, [variants])
    vectors, table = features.vectors.of_columns(columns[network]), features.tables[index]
    return alone, joined, replace(features, vectors=vectors, table=table, tables=(table,))
