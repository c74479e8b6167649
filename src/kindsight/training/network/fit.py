"""Train a network on a dataset in the Keras worker process, which gets its inputs as files."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.labels import class_indices
from kindsight.dataset.reading.image_cache import CachedImages, cache_images
from kindsight.errors import ImageError
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import count_cores
from kindsight.training.common import Progress, balanced_weights, class_targets
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE, key_of
from kindsight.training.engine.history import EpochRow, History
from kindsight.training.engine.learning_rate_finder import RateSweep
from kindsight.training.engine.plan import Phase, Plan
from kindsight.training.near_duplicates import measure_similarity, small_greys
from kindsight.training.network.fitted import CALIBRATED_BY_FOLDS, FittedNetwork
from kindsight.training.network.settings import MODERN, EpochTrainer, NetworkTrainer, input_size
from kindsight.training.protocols import FoldChoices

if TYPE_CHECKING:
    from kindsight.training.activation_cache import CachedActivations

__all__ = [
    "EpochRecorder", "JobInputs", "NetworkImages", "Source", "for_dataset", "network_layers",
    "prepare_network", "training_key",
]  # fmt: skip

TFLITE_FILE = "network.tflite"
KERAS_FILE = "network.keras"
# Increased whenever the same settings and images would give other weights.
FORMAT = 4
# A kill -9 loses at most this many seconds of training, or a twentieth of it.
CHECKPOINT_SECONDS = 10.0
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """The file of images, or of cached activations, that a phase is trained on.

    Parameters
    ----------
    shape : tuple of int
        Of one image or activation.
    layer : str
        The cut layer whose activations are in the file; empty for images.
    rows : array
        int64 (images, 1 + copies): the row in the file of each image of the dataset, then of its
        augmented copies, of which each epoch uses another one; -1 where there is none.
    activations : CachedActivations, optional
        The open cache table of the file; to be closed.
    """

    file: Path
    shape: tuple[int, ...]
    layer: str
    rows: Rows
    activations: CachedActivations | None = None


@dataclass(frozen=True)
class JobInputs:
    """The network and the training data of a job.

    `network` are its settings, `identity` the same without paths, which identifies it on any
    machine; `layers` is the table of its layers; `sources` has one for each phase; `notes` are
    sentences for the user.
    """

    network: dict[str, Any]
    identity: dict[str, Any]
    layers: tuple[LayerRow, ...]
    sources: list[Source]
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Close the activation caches."""
        tables = {id(source.activations): source.activations for source in self.sources}
        for activations in tables.values():
            if activations is not None:
                activations.close()

    def write(
        self, folder: Path, rows: Rows, targets: Rows, val_rows: Rows, val_targets: Rows
    ) -> Path:
        """Write ``data.npz``: rows and classes of the training and validation images."""
        path, arrays = folder / "data.npz", {}
        for number, source in enumerate(self.sources):
            several = source.rows.shape[1] > 1
            arrays[f"rows_{number}"] = source.rows[rows] if several else source.rows[rows, 0]
            arrays[f"val_rows_{number}"] = source.rows[val_rows, 0]
        np.savez(path, targets=targets, val_targets=val_targets, **arrays)  # type: ignore[arg-type]
        return path

    def to_job(self) -> dict[str, Any]:
        """Return the JSON fields of a job: network and sources."""
        sources = [
            {"file": str(s.file.resolve()), "shape": list(s.shape), "layer": s.layer}
            for s in self.sources
        ]
        return {"network": self.network, "sources": sources}


def prepare_network(
    training: EpochTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> NetworkImages:
    """Find or compute the resized images of a dataset."""
    training = for_dataset(training, dataset)

    def step(done: int, total: int) -> None:
        if progress is not None:
            progress("images", done, total)

    spec = training.spec()
    stored = cache_images(
        dataset, spec, Cache(training.cache), workers=training.workers, progress=step
    )
    return NetworkImages(training, stored, stored.dataset)


def for_dataset(training: Any, dataset: ImageDataset) -> Any:
    """Return the trainer, with the input size of the images if its preset derives it from them."""
    decided = isinstance(training, NetworkTrainer) and training.preset == MODERN
    if not decided or training.size is not None:
        return training
    training.spec()  # faults before images are read
    return replace(training, size=input_size(dataset))


def network_layers(
    training: NetworkTrainer,
    classes: int,
    keras: KerasProcess | None = None,
    progress: Progress | None = None,
) -> tuple[LayerRow, ...]:
    """Return the network's table of layers."""
    return training.network().layers(classes)


@dataclass(frozen=True)
class NetworkImages:
    """The resized images that a network is trained on.

    `stored` is to be closed after the training; `dataset` has the readable images, in its order.
    """

    training: EpochTrainer
    stored: CachedImages
    dataset: ImageDataset

    def inputs(
        self,
        classes: Sequence[str],
        phases: Sequence[Phase],
        rows: Rows,
        validation: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> JobInputs:
        """Return the network and its training data.

        `phases` are the training's, or the first of them; `rows` and `validation` are int64 indices
        of the training and validation images.
        """
        training = self.training
        assert isinstance(training, NetworkTrainer)
        network = training.network()
        settings, layers = network.to_dict(), network.layers(len(classes))
        return JobInputs(settings, settings, layers, [self.pixels()] * len(phases))

    def pixels(self) -> Source:
        """Return the resized images as the source of a phase."""
        shape = (*self.training.spec().size, 3)
        return Source(self.stored.file, shape, "", self.stored.offsets[:, None])

    @property
    def problems(self) -> tuple[ImageError, ...]:
        """The skipped images."""
        return self.stored.problems

    @property
    def problem_labels(self) -> tuple[str | None, ...]:
        """The labels of the skipped images."""
        return self.stored.problem_labels

    @property
    def computed(self) -> int:
        """Number of distinct images decoded now."""
        return self.stored.computed

    @property
    def reused(self) -> int:
        """Number of images found in the cache."""
        return self.stored.reused

    def with_dataset(self, dataset: ImageDataset) -> NetworkImages:
        """Return the same images with other columns."""
        return replace(self, dataset=dataset)

    def for_fold(self, folds: int) -> NetworkImages:
        """Return the same images."""
        return self

    def small_grey(self, rows: Rows) -> NDArray[np.uint8]:
        """Return images in grey, for finding duplicates: uint8 (n, 64, 64)."""
        return small_greys(self.stored.pixels(rows))

    def measure_similarity(self, rows: Rows) -> NDArray[np.void]:
        """Return the measurements that the search for near-duplicates compares first."""
        return measure_similarity(self.small_grey(rows))

    def warm_up(self, keras: KerasProcess, rows: Rows, *, verify: str) -> None:
        """Start the worker process, which will train."""
        keras.start()

    def close(self) -> None:
        """Allow the cache to prune the images."""
        self.stored.close()

    def fit(
        self,
        classes: Sequence[str],
        rows: Rows,
        validation: Rows,
        *,
        keras: KerasProcess,
        folder: Path | None = None,
        progress: Progress | None = None,
        callback: TrainingCallback | None = None,
        chosen: FoldChoices | None = None,
        seconds: float | None = None,
    ) -> FittedNetwork:
        """Train.

        DatasetError if a class has no training image; DivergedError if the training diverges in the
        first epoch; KindsightError if the worker process fails.

        Parameters
        ----------
        classes : sequence of str
            In the order of the logits.
        rows, validation : array
            int64: indices of the training images, and of those, maybe none, that choose the best
            epoch and fit the temperature.
        keras : KerasProcess
            Of :meth:`.settings.EpochTrainer.process`.
        folder : pathlib.Path, optional
            For the checkpoint and the network's files; a temporary folder if omitted.
        chosen : FoldChoices, optional
            Epochs and temperature, where `validation` is to choose neither.
        seconds : float, optional
            Time after which the training ends, also within an epoch.
        """
        targets = class_targets(self.dataset[rows], classes)
        val_targets = class_indices(self.dataset[validation].label, classes)
        own = None
        if folder is None:
            own = tempfile.TemporaryDirectory(prefix="kindsight-")
            folder = Path(own.name)
        files = folder / KERAS_FILE, folder / TFLITE_FILE
        recorder = EpochRecorder(callback, progress)
        plan, training = self.training.plan(), self.training
        if chosen is not None:
            plan = replace(plan, ends=chosen.epochs, final_weights="last")
            training = replace(training, final_weights="last")
        given = classes, plan.phases, rows, validation, keras, progress
        with closing(self.inputs(*given)) as inputs:
            job = {
                **self._job(classes, targets, plan),
                **inputs.to_job(),
                "seconds": seconds,
                "checkpoint_seconds": CHECKPOINT_SECONDS,
                "checkpoint": None if own else str((folder / CHECKPOINT_FILE).resolve()),
                "keras": str(files[0].resolve()),
                "tflite": str(files[1].resolve()),
            }
            key = _key(job, inputs, self.dataset, rows, validation)
            with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
                file = inputs.write(Path(temporary), rows, targets, validation, val_targets)
                keras.run_job(recorder, job="train", **job, data=str(file), key=key)
        fitted = FittedNetwork(
            training, tuple(classes), self.dataset, self.stored, rows, *files,
            History(recorder.rows), own=own, layers=inputs.layers, notes=inputs.notes,
        )  # fmt: skip
        if chosen is not None:
            return replace(
                fitted, temperature=chosen.temperature, calibrated_by=CALIBRATED_BY_FOLDS
            )
        return fitted.calibrated(validation, val_targets)

    def try_out(
        self,
        classes: Sequence[str],
        rows: Rows,
        validation: Rows,
        keras: KerasProcess,
        on_message: Callable[[dict[str, Any]], None],
    ) -> None:
        """Train without keeping the network; arguments as of :meth:`fit`.

        `on_message` is called with the events of the epochs and steps.
        """
        targets = class_targets(self.dataset[rows], classes)
        val_targets = class_indices(self.dataset[validation].label, classes)
        plan = self.training.plan()
        given = classes, plan.phases, rows, validation, keras, None
        with closing(self.inputs(*given)) as inputs:
            job = {
                **self._job(classes, targets, plan),
                **inputs.to_job(),
                "seconds": None, "checkpoint_seconds": CHECKPOINT_SECONDS, "checkpoint": None,
                "keras": None, "tflite": None, "key": "",
            }  # fmt: skip
            with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
                file = inputs.write(Path(temporary), rows, targets, validation, val_targets)
                keras.run_job(on_message, job="train", **job, data=str(file))

    def find_rate(
        self,
        classes: Sequence[str],
        rows: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> RateSweep:
        """Run the learning-rate finder; arguments as of :meth:`fit`."""
        targets = class_targets(self.dataset[rows], classes)
        none = np.zeros(0, np.int64)

        def on_message(message: dict[str, Any]) -> None:
            if progress is not None and message["event"] == "tried":
                progress("rates", message["done"], message["total"])

        plan = self.training.plan()
        plan = replace(plan, phases=plan.phases[:1])
        given = classes, plan.phases, rows, none, keras, progress
        with closing(self.inputs(*given)) as inputs:
            job = {**self._job(classes, targets, plan), **inputs.to_job()}
            with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
                file = inputs.write(Path(temporary), rows, targets, none, none)
                found = keras.run_job(on_message, job="find-rate", **job, data=str(file))
        losses = (np.inf if loss is None else loss for loss in found["losses"])
        return RateSweep(tuple(found["learning_rates"]), tuple(losses), found["suggestion"])

    def _job(self, classes: Sequence[str], targets: Rows, plan: Plan) -> dict[str, Any]:
        """Return the fields that all training jobs share."""
        weights = balanced_weights(targets, self.training.class_weight)
        return {
            "plan": plan.to_dict(),
            "classes": len(classes),
            "class_weight": None if weights is None else [float(weight) for weight in weights],
            "seed": self.training.seed,
            "compute_dtype": self.training.resolved_compute_dtype(),
            "cores": count_cores(),
            "workers": self.training.workers or count_cores(),
            "layer_decay": self.training.layer_decay,
            "ema_decay": self.training.ema_decay,
        }


class EpochRecorder:
    """Passes messages of the worker process on to a callback, and collects the epochs."""

    def __init__(self, callback: TrainingCallback | None, progress: Progress | None) -> None:
        self.rows: list[EpochRow] = []
        self._callback, self._progress = callback, progress

    def __call__(self, message: dict[str, Any]) -> None:
        """Handle one message."""
        event = message.pop("event")
        if event == "epoch":
            self.rows.append(EpochRow(**message))
            if self._callback is not None:
                self._callback.on_epoch(self.rows[-1])
        elif event in ("saving", "rates"):
            if self._progress is not None:
                stage = "files" if event == "saving" else event
                self._progress(stage, message.get("done", 0), message.get("total", 0))
        elif self._callback is not None and event == "step":
            self._callback.on_step(**message)
        elif self._callback is not None and event == "start":
            self._callback.on_start(**message)


def _key(
    job: Mapping[str, Any], inputs: JobInputs, dataset: ImageDataset, rows: Rows, validation: Rows
) -> str:
    """Return the key of a training's checkpoints, independent of machine and folders."""
    names = ("plan", "classes", "class_weight", "seed", "compute_dtype", "layer_decay", "ema_decay")
    facts = {
        **{name: job[name] for name in names},
        "network": inputs.identity,
        "sources": [source.layer for source in inputs.sources],
        "format": FORMAT,
    }
    return training_key(facts, dataset, (rows, validation))


def training_key(facts: dict[str, Any], dataset: ImageDataset, splits: Sequence[Rows]) -> str:
    """Return the key of a training's checkpoints by its settings, images and versions."""
    return key_of(
        {
            **facts,
            "versions": [importlib.metadata.version(name) for name in ("kindsight", "keras")],
            "images": [
                [(dataset.digest[row], dataset.label[row]) for row in split.tolist()]
                for split in splits
            ],
        }
    )
