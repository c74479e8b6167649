"""A trained network: logits, calibrated probabilities, files and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, TFLITE_FILE
from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.dataset.splits.groups import content_key
from kindsight.evaluation import Calibration, calibrate, to_probabilities
from kindsight.images import read_loaded, resize_image
from kindsight.models.formats.assemble import finish_keras, finish_tflite
from kindsight.models.networks.small_cnn import NETWORKS, LayerRow
from kindsight.models.runtime import InterpreterPool
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import map_ordered, single_threaded_opencv
from kindsight.training.common import fraction_outside, training_sample
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.engine.history import History
from kindsight.training.engine.plan import describe_layer_decay_and_ema
from kindsight.training.held_out import VALIDATION, HeldOutPredictions
from kindsight.training.network.settings import EpochTrainer
from kindsight.training.ood import KNOWN_KEPT, FittedScore, fit_score_on
from kindsight.training.parity import NetworkOutputs, compare_outputs, compared_rows, run_tflite
from kindsight.training.protocols import BundleFiles, FineTuningResult, ReportSections, StoredImage

__all__ = ["CALIBRATED_BY", "CALIBRATED_BY_FOLDS", "FittedNetwork", "calibrate_validation"]

RUN_BY_KERAS = "model.keras was loaded and run by Keras"
CALIBRATED_BY = "validation predictions, cross-fitted in five folds"
"""On what a network's temperature is fitted, in words."""

CALIBRATED_BY_FOLDS = "held-out predictions of the folds, geometric mean over the folds"
"""The same for a model that is trained on all images of a cross-validation."""

FOLDS = 5  # of the validation images, for cross-fitted temperatures

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FittedNetwork:
    """A trained network, its data and its history.

    Parameters
    ----------
    classes : tuple of str
        In the order of the logits.
    dataset : ImageDataset
        All readable images.
    stored : CachedImages
        The resized images.
    rows : array
        int64: indices of the training images.
    keras, tflite : pathlib.Path
        The network: pixels 0-255 to logits.
    temperature : float
        Divides the logits.
    validation : array
        int64: indices of the validation images.
    folds : mapping of int to float
        Cross-fitted temperatures of the validation images, by their indices; empty where scaling
        does not lower the log loss.
    own : tempfile.TemporaryDirectory, optional
        Folder of the files, deleted with this object.
    layers : tuple of LayerRow
        Table of the network's layers.
    notes : tuple of str
        Sentences for the user.
    fine_tuning : FineTuningResult, optional
        If the network began as a fitted head on a frozen backbone.
    calibrated_by : str
        On what the temperature was fitted, if not on validation images.
    """

    training: EpochTrainer
    classes: tuple[str, ...]
    dataset: ImageDataset
    stored: CachedImages
    rows: Rows
    keras: Path
    tflite: Path
    history: History
    temperature: float = 1.0
    validation: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    folds: Mapping[int, float] = field(default_factory=dict)
    own: Any = None
    layers: tuple[LayerRow, ...] = ()
    notes: tuple[str, ...] = ()
    fine_tuning: FineTuningResult | None = None
    calibrated_by: str = ""
    _logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    _features: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def calibrated(self, rows: Rows, targets: Rows) -> FittedNetwork:
        """Return the network with a temperature fitted on validation images, if that helps.

        New images get the temperature of all validation images; each fifth of the validation
        images gets that of the other four, so that none is evaluated with a temperature that
        was fitted on it.
        """
        digests = [self.dataset.digest[row] for row in rows]
        found = calibrate_validation(self.logits(rows), targets, digests, self.training.seed)
        temperatures = zip(rows.tolist(), found.cross_fitted.tolist(), strict=True)
        return replace(
            self,
            temperature=found.temperature,
            validation=rows,
            folds=dict(temperatures) if found.scales else {},
        )

    def held_out(self) -> HeldOutPredictions | None:
        """Return the predictions of the validation images; None without any."""
        rows = self.validation
        if len(rows) == 0:
            return None
        dataset = self.dataset[rows]
        found = HeldOutPredictions(
            rows, self.logits(rows), class_indices(dataset.label, self.classes), self.temperature,
            np.zeros(len(rows), np.int64), VALIDATION,
        )  # fmt: skip
        return found.distinct([*dataset.digest])

    def logits(self, rows: Rows) -> NDArray[np.float32]:
        """Return logits of images by index, float32 (n, classes)."""
        self._run([row for row in rows.tolist() if row not in self._logits])
        found = [self._logits[row] for row in rows.tolist()]
        return np.array(found, np.float32).reshape(len(rows), len(self.classes))

    def _run(self, rows: Sequence[int]) -> None:
        """Run images through the network; store their logits and features."""
        if not rows:
            return
        pool = InterpreterPool(self.tflite, self.training.workers)

        def run(row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            return pool.run_both([self.stored.pixels(np.array([row]))[0]])[0]

        for row, (logits, features) in zip(rows, map_ordered(run, rows, pool.workers), strict=True):
            self._logits.setdefault(row, logits)
            self._features[row] = features

    def set_logits(self, rows: Rows, logits: NDArray[np.float32]) -> None:
        """Store known logits of images, float32 (n, classes)."""
        self._logits.update(zip(rows.tolist(), logits, strict=True))

    def probabilities(self, rows: Rows) -> NDArray[np.float32]:
        """Return class probabilities of images by index, float32 (n, classes).

        Those of validation images use cross-fitted temperatures.
        """
        logits = self.logits(rows)
        temperatures = np.array(
            [self.folds.get(row, self.temperature) for row in rows.tolist()], np.float64
        )
        out = np.empty_like(logits)
        for temperature in np.unique(temperatures):
            same = temperatures == temperature
            out[same] = to_probabilities(logits[same], float(temperature))
        return out

    def logits_of(self, dataset: ImageDataset) -> NDArray[np.float32]:
        """Return the logits of other images; ImageError for the first that cannot be read."""
        pool, spec = InterpreterPool(self.tflite, self.training.workers), self.training.spec()

        def run(row: int) -> NDArray[np.float32]:
            data = dataset.load(row)
            image = read_loaded(data, spec)
            return pool.run(resize_image(image, spec))

        with single_threaded_opencv():
            found = list(map_ordered(run, range(len(dataset)), pool.workers))
        return np.array(found, np.float32).reshape(len(dataset), len(self.classes))

    def ood_scores(self, rows: Rows) -> NDArray[np.float32] | None:
        """Return the out-of-distribution scores of some images; None where the network has none."""
        if self.fitted_score is None:
            return None
        return self.fitted_score.score(self.score_features(rows))

    @cached_property
    def fitted_score(self) -> FittedScore | None:
        """The out-of-distribution score, fitted to a sample of the training images.

        None without validation images, on which its threshold is set, or where the network's last
        layer is not dense.
        """
        held_out = self.held_out()
        if held_out is None or not InterpreterPool(self.tflite, 1).second_width:
            return None
        by_backbone = self.training.model not in NETWORKS
        sample = training_sample(self.rows, self.training.seed, by_backbone=by_backbone)
        targets = class_indices(self.dataset[sample].label, self.classes)
        features, known = self.score_features(sample), self.score_features(held_out.rows)
        return fit_score_on(features, targets, known, held_out, seed=self.training.seed)

    def score_features(self, rows: Rows) -> NDArray[np.float32]:
        """Return the inputs of the last dense layer, float32 (n, d)."""
        self._run([row for row in rows.tolist() if row not in self._features])
        return np.stack([self._features[row] for row in rows.tolist()])

    def words(self) -> str:
        """Describe the network in a line: layers and parameters."""
        return self.training.words(self.layers, len(self.classes))

    @property
    def head(self) -> None:
        """None: there is no separately fitted head."""
        return None

    @property
    def can_be_fine_tuned(self) -> bool:
        """False: its layers are trained already."""
        return False

    def write(
        self,
        folder: Path,
        metadata: Mapping[str, Any],
        rows: Rows,
        keras: KerasProcess,
        *,
        verify: str,
        known_kept: float | None = KNOWN_KEPT,
    ) -> BundleFiles:
        """Write both network files, and compare them by running both."""
        tflite, keras_file = folder / TFLITE_FILE, folder / KERAS_FILE
        fitted = None if known_kept is None else self.fitted_score
        score = None if fitted is None else fitted.score
        finish_tflite(self.tflite, tflite, metadata, score)
        finish_keras(self.keras, keras_file, len(self.classes), score)
        chosen = compared_rows(self.dataset.digest, rows, verify)
        pixels = self.stored.pixels(chosen)
        with ThreadPoolExecutor(1) as worker:
            by_keras = worker.submit(keras.run, keras_file, pixels)
            written = run_tflite(tflite, pixels)
            _, logits, scores = by_keras.result()
        parity = compare_outputs(
            written, NetworkOutputs(logits, scores), self.temperature, RUN_BY_KERAS
        )
        parts = {} if fitted is None else {"unknown": fitted.to_dict(known_kept or KNOWN_KEPT)}
        return BundleFiles(tflite, keras_file, parity, self._facts(), uncertainty=parts)

    def _facts(self) -> dict[str, Any]:
        layers = [{k: v for k, v in row._asdict().items() if v != ""} for row in self.layers]
        return {"network": layers, **self._epochs()}

    def _epochs(self) -> dict[str, Any]:
        return {"epochs": {"trained": len(self.history), "best": self.history.best_epoch}}

    def refit(self, rows: Rows) -> FittedNetwork:
        """Return the network itself: training it on other images would be a new training."""
        return self

    def describe(self) -> dict[str, str]:
        """Return the rows of the summary that describe the network."""
        n = len(self.history)
        weights = f"best epoch {self.history.best_epoch}"
        if self._final_weights() == "last":
            weights = "weights of the last"
        epochs = f"{n} {'epoch' if n == 1 else 'epochs'}, {weights}"
        return {"network": self.words(), "training": epochs}

    def _final_weights(self) -> str:
        return self.training.final_weights

    def report_sections(self) -> ReportSections:
        """Return the details of the training for the report."""
        plan = self.training.plan()
        epoch = "the last epoch"
        if plan.final_weights == "best":
            epoch = f"the best epoch, {self.history.best_epoch}"
        several = len(plan.phases) > 1
        how = f"in {len(plan.phases)} phases" if several else plan.phases[0].describe()
        details = {
            "Network": self.training.describe(),
            "Layers": self.words(),
            "Training": f"{len(self.history)} of at most {plan.epochs} epochs, {how}; "
            f"weights of {epoch}",
        }
        for number, phase in enumerate(plan.phases, 1):
            if several:
                details[f"Phase {number}"] = (
                    f"{phase.name}: at most {phase.epochs} epochs, {phase.describe()}; "
                    f"augmentation: {phase.augment}"
                )
            else:
                details["Augmentation"] = str(phase.augment)
        if more := describe_layer_decay_and_ema(self.training.layer_decay, self.training.ema_decay):
            details["Weights"] = more
        source = self.calibrated_by or (CALIBRATED_BY if self.folds else "")
        return ReportSections(details, source, layers=self.layers)

    def clear_away(self) -> None:
        """Delete the checkpoint and the network files, which the bundle has copies of."""
        for path in (self.keras, self.tflite, self.keras.with_name(CHECKPOINT_FILE)):
            path.unlink(missing_ok=True)

    def stored_images(self, digests: Sequence[str]) -> list[StoredImage | None]:
        """Return resized images from the cache, by digest."""
        rows = {str(digest): row for row, digest in enumerate(self.dataset.digest)}
        sizes = self.stored.size_of(digests)
        return [
            StoredImage(self.stored.pixels(np.array([rows[digest]]))[0], *size)
            for digest, size in zip(digests, sizes, strict=True)
        ]

    def cropped_fraction(self) -> float:
        """Return the mean share of the images' area outside the crop, 0 to 1."""
        if self.training.resize != "crop":
            return 0.0
        return fraction_outside(self.stored.sizes(), self.training.spec().size)


def calibrate_validation(
    logits: NDArray[np.float32], targets: Rows, digests: Sequence[str | None], seed: int
) -> Calibration:
    """Return the temperature of validation images, judged on the other four of five folds."""
    folds = np.array([_fold(seed, digest) for digest in digests], np.int64)
    return calibrate(logits, targets, folds)


def _fold(seed: int, digest: str | None) -> int:
    return int.from_bytes(content_key(seed, "temperature", str(digest))[:8], "little") % FOLDS
