"""From pictures to a trained network, through the process with Keras; and what it answers."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.catalog.store import StoredPictures, store_pictures
from kindsight.catalog.units import draw
from kindsight.errors import PictureError
from kindsight.evaluation import fit_temperature, to_probabilities
from kindsight.models.keras_process import KerasProcess
from kindsight.models.small_cnn import LayerRow
from kindsight.pictures import read_picture, resize_picture
from kindsight.runtime import InterpreterPool
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv
from kindsight.training.alike import small_greys
from kindsight.training.by_epochs import EpochTraining
from kindsight.training.checkpoints import CHECKPOINT_FILE, key_of
from kindsight.training.common import Progress, balanced_weights, class_targets, share_outside
from kindsight.training.history import EpochRow, History
from kindsight.training.kept import KeptPicture
from kindsight.training.listener import TrainingListener
from kindsight.training.network import NetworkTraining
from kindsight.training.rate_finder import RateSweep

__all__ = [
    "FittedNetwork",
    "Hearing",
    "Lessons",
    "NetworkPictures",
    "Source",
    "cross_temperatures",
    "prepare_network",
]

TFLITE_FILE = "network.tflite"
KERAS_FILE = "network.keras"
# Raised whenever the same settings and pictures would give other weights.
FORMAT = 2
# What a kill -9 can lose: at most this many seconds of training, or a twentieth of it.
CHECKPOINT_SECONDS = 10.0
# Parts of the validation pictures, each of which is calibrated by the others.
FOLDS = 5
# With fewer pictures than this in the others a temperature would say more of chance than of them.
CALIBRATED = 10

Rows = NDArray[np.int64]


def prepare_network(
    training: EpochTraining, catalog: Catalog, progress: Progress | None = None
) -> NetworkPictures:
    """Find or make the resized pictures of a catalog."""

    def step(done: int, total: int) -> None:
        if progress is not None:
            progress("pictures", done, total)

    spec = training.spec()
    stored = store_pictures(
        catalog, spec, Cache(training.cache), workers=training.workers, progress=step
    )
    return NetworkPictures(training, stored, stored.catalog)


@dataclass(frozen=True)
class Source:
    """Where the child finds what it learns from.

    Parameters
    ----------
    file : pathlib.Path
        Of pixels, or of what a network's lower part gives for them.
    shape : tuple of int
        Of one of them.
    layer : str
        After which the lower part ends; empty for pixels.
    places : array
        int64 (pictures,): where in the file each picture of the catalog is.
    """

    file: Path
    shape: tuple[int, ...]
    layer: str
    places: Rows


@dataclass(frozen=True)
class Lessons:
    """What is trained, and on what, as the child has to know it.

    Parameters
    ----------
    network : dict
        The network.
    identity : dict
        What tells it from all others, whatever folders it is in.
    layers : tuple of LayerRow
        Its table of layers.
    sources : list of Source
        Of each phase in turn.
    """

    network: dict[str, Any]
    identity: dict[str, Any]
    layers: tuple[LayerRow, ...]
    sources: list[Source]

    def write(self, folder: Path, rows: Rows, targets: Rows, val_rows: Rows, val: Rows) -> Path:
        """Write which pictures are learned from and judged by, and their classes, for the child."""
        path, arrays = folder / "lessons.npz", {}
        for number, source in enumerate(self.sources):
            arrays[f"places_{number}"] = source.places[rows]
            arrays[f"val_places_{number}"] = source.places[val_rows]
        np.savez(path, targets=targets, val_targets=val, **arrays)  # type: ignore[arg-type]
        return path

    def told(self) -> dict[str, Any]:
        """Return what a job is told of it."""
        sources = [
            {"file": str(s.file.resolve()), "shape": list(s.shape), "layer": s.layer}
            for s in self.sources
        ]
        return {"network": self.network, "sources": sources}


@dataclass(frozen=True)
class NetworkPictures:
    """The resized pictures that a network is trained on.

    Parameters
    ----------
    training : EpochTraining
        What was told.
    stored : StoredPictures
        To be closed when the training is over.
    catalog : Catalog
        The readable pictures, in the order of `stored`.
    """

    training: EpochTraining
    stored: StoredPictures
    catalog: Catalog

    def lessons(
        self,
        classes: Sequence[str],
        rows: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> Lessons:
        """Return what is trained, and on what.

        Parameters
        ----------
        classes : sequence of str
        rows : array
            int64: all pictures that are learned from or judged by.
        keras : KerasProcess
        progress : callable, optional
        """
        training = self.training
        assert isinstance(training, NetworkTraining)
        network = training.network()
        told, layers = network.to_dict(), network.layers(len(classes))
        return Lessons(told, told, layers, [self.pixels()] * len(training.plan().phases))

    def pixels(self) -> Source:
        """Return the pictures themselves as what is learned from."""
        shape = (*self.training.spec().size, 3)
        return Source(self.stored.file, shape, "", self.stored.places)

    @property
    def problems(self) -> tuple[PictureError, ...]:
        """Those that were set aside."""
        return self.stored.problems

    @property
    def problem_labels(self) -> tuple[str | None, ...]:
        """The labels of those that were set aside."""
        return self.stored.problem_labels

    @property
    def computed(self) -> int:
        """How many distinct pictures were decoded."""
        return self.stored.computed

    @property
    def reused(self) -> int:
        """How many did not have to be."""
        return self.stored.reused

    def with_catalog(self, catalog: Catalog) -> NetworkPictures:
        """Return the same with other columns."""
        return replace(self, catalog=catalog)

    def small_grey(self, rows: Rows) -> NDArray[np.uint8]:
        """Return pictures small and grey, for finding copies: uint8 (n, 64, 64)."""
        return small_greys(self.stored.pixels(rows))

    def close(self) -> None:
        """Let the cache prune the pictures, if it wants to."""
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
        listener: TrainingListener | None = None,
    ) -> FittedNetwork:
        """Train.

        Parameters
        ----------
        classes : sequence of str
            Class names, in the order that the logits are to have.
        rows : array
            int64: which pictures to learn from.
        validation : array
            int64: by which pictures the best epoch is chosen and the temperature fitted; may be
            empty.
        keras : KerasProcess
            Of :meth:`.by_epochs.EpochTraining.process`.
        folder : pathlib.Path, optional
            Where the training is kept, to go on after a stop, and the network written; a
            temporary folder if omitted.
        progress, listener : optional
            Told of the training.

        Raises
        ------
        CatalogError
            If a class has no picture to learn from.
        SettingsError
            If the training diverges from the start.
        KindsightError
            If the process with Keras fails.
        """
        targets = class_targets(self.catalog[rows], classes)
        val_targets = _numbers(self.catalog[validation], classes)
        own = None
        if folder is None:
            own = tempfile.TemporaryDirectory(prefix="kindsight-")
            folder = Path(own.name)
        files = folder / KERAS_FILE, folder / TFLITE_FILE
        hearing = Hearing(listener, progress)
        every = np.concatenate([rows, validation])
        lessons = self.lessons(classes, every, keras, progress)
        job = {
            **self._job(classes, targets),
            **lessons.told(),
            "checkpoint_seconds": CHECKPOINT_SECONDS,
            "checkpoint": None if own else str((folder / CHECKPOINT_FILE).resolve()),
            "keras": str(files[0].resolve()),
            "tflite": str(files[1].resolve()),
        }
        key = _key(job, lessons, self.catalog, rows, validation)
        with tempfile.TemporaryDirectory(prefix="kindsight-") as place:
            file = lessons.write(Path(place), rows, targets, validation, val_targets)
            keras.follow(hearing, job="train", **job, lessons=str(file), key=key)
        fitted = FittedNetwork(
            self.training, tuple(classes), self.catalog, self.stored, rows, *files,
            History(hearing.rows), own=own, layers=lessons.layers,
        )  # fmt: skip
        return fitted.calibrated(validation, val_targets)

    def find_rate(
        self,
        classes: Sequence[str],
        rows: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> RateSweep:
        """Try learning rates; see :mod:`.rate_finder`. Arguments as :meth:`fit` takes them."""
        targets = class_targets(self.catalog[rows], classes)
        none = np.zeros(0, np.int64)

        def hear(news: dict[str, Any]) -> None:
            if progress is not None and news["event"] == "tried":
                progress("rates", news["done"], news["total"])

        lessons = self.lessons(classes, rows, keras, progress)
        job = {**self._job(classes, targets), **lessons.told()}
        with tempfile.TemporaryDirectory(prefix="kindsight-") as place:
            file = lessons.write(Path(place), rows, targets, none, none)
            found = keras.follow(hear, job="find-rate", **job, lessons=str(file))
        losses = (np.inf if loss is None else loss for loss in found["losses"])
        return RateSweep(tuple(found["learning_rates"]), tuple(losses), found["suggestion"])

    def _job(self, classes: Sequence[str], targets: Rows) -> dict[str, Any]:
        """Return what the child has to know of every job."""
        weights = balanced_weights(targets, self.training.class_weight)
        return {
            "plan": self.training.plan().to_dict(),
            "classes": len(classes),
            "class_weight": None if weights is None else [float(weight) for weight in weights],
            "seed": self.training.seed,
            "precision": self.training.chosen_precision(),
            "cores": count_cores(),
            "workers": self.training.workers or count_cores(),
            "layer_decay": self.training.layer_decay,
            "average": self.training.average,
        }


class Hearing:
    """Hands the child's news on to a listener, and keeps the epochs."""

    def __init__(self, listener: TrainingListener | None, progress: Progress | None) -> None:
        self.rows: list[EpochRow] = []
        self._listener, self._progress = listener, progress

    def __call__(self, news: dict[str, Any]) -> None:
        """Hear one piece of news."""
        event = news.pop("event")
        if event == "epoch":
            self.rows.append(EpochRow(**news))
            if self._listener is not None:
                self._listener.on_epoch(self.rows[-1])
        elif event == "saving":
            if self._progress is not None:
                self._progress("files", 0, 0)
        elif self._listener is not None and event == "step":
            self._listener.on_step(**news)
        elif self._listener is not None and event == "start":
            self._listener.on_start(**news)


def _key(
    job: Mapping[str, Any], lessons: Lessons, catalog: Catalog, rows: Rows, validation: Rows
) -> str:
    """Return what tells one training from all others, whatever machine and folders it has."""
    names = ("plan", "classes", "class_weight", "seed", "precision", "layer_decay", "average")
    return key_of(
        {
            **{name: job[name] for name in names},
            "network": lessons.identity,
            "sources": [source.layer for source in lessons.sources],
            "format": FORMAT,
            "versions": [importlib.metadata.version(name) for name in ("kindsight", "keras")],
            "pictures": [
                [(catalog.digest[row], catalog.label[row]) for row in part.tolist()]
                for part in (rows, validation)
            ],
        }
    )


def _numbers(catalog: Catalog, classes: Sequence[str]) -> Rows:
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places[str(label)] for label in catalog.label], np.int64)


@dataclass(frozen=True)
class FittedNetwork:
    """A trained network with all that it came from.

    Parameters
    ----------
    training : EpochTraining
        What was told.
    classes : tuple of str
        In the order of the logits.
    catalog : Catalog
        All readable pictures.
    stored : StoredPictures
        They themselves.
    rows : array
        int64: those that it learned from.
    keras, tflite : pathlib.Path
        The network: pixels 0-255 to logits.
    history : History
        The epochs.
    temperature : float
        What the logits are divided by.
    folds : mapping of int to float
        Temperatures of validation pictures by their rows: each was fitted on others than it.
    own : tempfile.TemporaryDirectory, optional
        Where the files are, if they are to go with this object.
    layers : tuple of LayerRow
        The network's table of layers.
    """

    training: EpochTraining
    classes: tuple[str, ...]
    catalog: Catalog
    stored: StoredPictures
    rows: Rows
    keras: Path
    tflite: Path
    history: History
    temperature: float = 1.0
    folds: Mapping[int, float] = field(default_factory=dict)
    own: Any = None
    layers: tuple[LayerRow, ...] = ()
    _logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def calibrated(self, rows: Rows, targets: Rows) -> FittedNetwork:
        """Fit the temperature on validation pictures.

        A picture is not to be judged by a temperature that it was part of. So the validation
        pictures are parted in five, by their content, and each part gets the temperature of the
        other four, beside the one of all for new pictures.
        """
        if len(rows) < CALIBRATED:
            return self
        logits = self.logits(rows)
        digests = [self.catalog.digest[row] for row in rows]
        crosswise = cross_temperatures(logits, targets, digests, self.training.seed)
        folds = dict(zip(rows.tolist(), crosswise.tolist(), strict=True))
        return replace(self, temperature=fit_temperature(logits, targets), folds=folds)

    def logits(self, rows: Rows) -> NDArray[np.float32]:
        """Return the logits of some pictures, float32 (n, classes)."""
        missing = [row for row in rows.tolist() if row not in self._logits]
        pool = InterpreterPool(self.tflite, self.training.workers)

        def run(row: int) -> NDArray[np.float32]:
            return pool.run(self.stored.pixels(np.array([row]))[0])

        self._logits.update(zip(missing, map_ordered(run, missing, pool.workers), strict=True))
        found = [self._logits[row] for row in rows.tolist()]
        return np.array(found, np.float32).reshape(len(rows), len(self.classes))

    def answers(self, rows: Rows, logits: NDArray[np.float32]) -> None:
        """Take the logits of some pictures, float32 (n, classes), as known."""
        self._logits.update(zip(rows.tolist(), logits, strict=True))

    def probabilities(self, rows: Rows) -> NDArray[np.float32]:
        """Return the probabilities of some pictures' classes, float32 (n, classes).

        Those of validation pictures come from a temperature that others were the measure of.
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

    def logits_of(self, catalog: Catalog) -> NDArray[np.float32]:
        """Return the logits of other pictures; PictureError for the first that cannot be read."""
        pool, spec = InterpreterPool(self.tflite, self.training.workers), self.training.spec()

        def run(row: int) -> NDArray[np.float32]:
            data = catalog.load(row)
            picture = read_picture(data, target=spec.size) if isinstance(data, bytes) else data
            return pool.run(resize_picture(picture, spec))

        with single_threaded_opencv():
            found = list(map_ordered(run, range(len(catalog)), pool.workers))
        return np.array(found, np.float32).reshape(len(catalog), len(self.classes))

    def words(self) -> str:
        """Describe the network in a line: its layers, and how many numbers it learned."""
        return self.training.words(self.layers, len(self.classes))

    def clear_away(self) -> None:
        """Delete what is only of use to go on from: the bundle has the rest."""
        for path in (self.keras, self.tflite, self.keras.with_name(CHECKPOINT_FILE)):
            path.unlink(missing_ok=True)

    def kept(self, digests: Sequence[str]) -> list[KeptPicture | None]:
        """Return pictures as the cache has them."""
        places = {str(digest): row for row, digest in enumerate(self.catalog.digest)}
        sizes = self.stored.size_of(digests)
        return [
            KeptPicture(self.stored.pixels(np.array([places[digest]]))[0], *size)
            for digest, size in zip(digests, sizes, strict=True)
        ]

    def share_cut_off(self) -> float:
        """Return how much of the pictures' area the network did not see: 0 to 1."""
        if self.training.resize != "crop":
            return 0.0
        return share_outside(self.stored.sizes(), self.training.spec().size)


def cross_temperatures(
    logits: NDArray[np.float32], targets: Rows, digests: Sequence[str | None], seed: int
) -> NDArray[np.float64]:
    """Fit temperatures to pictures in five parts, each by the other four; float64 (n,)."""
    parts = np.array([_fold(seed, digest) for digest in digests])
    found = np.ones(len(parts))
    for part in range(FOLDS):
        others = parts != part
        if others.sum() >= CALIBRATED:
            found[~others] = fit_temperature(logits[others], targets[others])
    return found


def _fold(seed: int, digest: str | None) -> int:
    return int.from_bytes(draw(seed, "temperature", str(digest))[:8], "little") % FOLDS
