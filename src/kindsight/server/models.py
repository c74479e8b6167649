"""The served classifiers: loaded, checked, and swapped when their bundle changes."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import JSON_FILE, TFLITE_FILE, Bundle, load_bundle
from kindsight.digest import content_digest
from kindsight.encoding import printable, valid_json, valid_text
from kindsight.errors import BundleError, KindsightError, SettingsError
from kindsight.explain.overlay import draw_heat_map, encode, place_map
from kindsight.explain.saliency import GradCAM, class_weights
from kindsight.export.target import OOD_SCORE, describe
from kindsight.images import read_image, resize_image
from kindsight.models.pooled_maps import MapNetwork
from kindsight.predictor import Prediction, Predictor
from kindsight.uncertainty.prediction import Decisions

__all__ = ["LoadedModel", "Models", "ServedModel", "load_model"]

logger = logging.getLogger("kindsight.server")

LEVELS = 64
"""Confidence levels of prediction sets whose thresholds are kept in memory."""

HEAT_MAP_SIDE = 320
"""Longer side of a heat map, in pixels."""

_GREY = 128


class LoadedModel:
    """A bundle in memory, with networks for several threads.

    The files are read once; later changes on disk have no effect.

    Parameters
    ----------
    path : path
        A run folder or another bundle; a link is followed once.
    name : str
        The name in URLs.
    workers : int
        Threads that may predict at once.

    Attributes
    ----------
    version : str
        Digest of ``bundle.json`` and the network.
    description : dict
        The content of an export's ``model.json``.
    unexplained : str
        Why there are no heat maps; empty if there are.
    """

    def __init__(self, path: Path, name: str, workers: int) -> None:
        self.name = name
        self.bundle = load_bundle(path.resolve())
        network = _network_of(self.bundle)
        self.predictor = Predictor(self.bundle, workers=workers, network=network)
        self.predictor.load_networks()
        facts = content_digest(repr(sorted(self.bundle.to_dict().items())))
        self.version = content_digest(facts + content_digest(network), 6)
        self.description: dict[str, Any] = valid_json(describe(self.bundle))
        self._decisions = lru_cache(LEVELS)(partial(Decisions.load, self.bundle))
        self._maps: queue.SimpleQueue[GradCAM | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._maps.put(None)
        self._make_explainer = partial(_explainer, self.bundle, network)
        self.unexplained = self._check()

    @property
    def scores(self) -> bool:
        """Whether images have an out-of-distribution score."""
        return OOD_SCORE in self.description["outputs"]

    @property
    def has_sets(self) -> bool:
        """Whether there are prediction sets."""
        return "sets" in self.bundle.uncertainty

    def decisions(self, sets: float | None) -> Decisions:
        """Return the rules with prediction sets of a level; SettingsError if there are none."""
        return self.predictor.decisions if sets is None else self._decisions(sets=sets)

    def predict(self, name: str, data: bytes, decisions: Decisions, pixels: int) -> Prediction:
        """Return the prediction for the content of an image file, on the calling thread."""
        (found,) = self.predictor.predict_here(
            [(name, data)], decisions=decisions, max_pixels=pixels
        )
        return found

    def read(self, data: bytes, pixels: int) -> NDArray[np.uint8]:
        """Return a whole image, uint8 (height, width, 3), RGB."""
        return read_image(data, value_range=self.bundle.spec.value_range, max_pixels=pixels)

    def heat_map(self, image: NDArray[np.uint8], target: str) -> bytes:
        """Return the heat map of a class for an image, a transparent PNG file.

        It covers the whole image; its longer side has at most :data:`HEAT_MAP_SIDE` pixels.
        KindsightError for a network without heat maps.
        """
        if self.unexplained:
            raise KindsightError(self.unexplained)
        spec = self.bundle.spec
        scale = min(1.0, HEAT_MAP_SIDE / max(image.shape))
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        values = self._saliency(resize_image(image, spec), self.bundle.classes.index(target))
        return encode(draw_heat_map(place_map(values, spec, (height, width))))

    def public(self, text: str) -> str:
        """Return a message without the path of the folder on this machine."""
        return text.replace(str(self.bundle.folder), self.name)

    def _saliency(self, pixels: NDArray[np.uint8], index: int) -> NDArray[np.float32]:
        """Return the saliency map of a class, by a network that no other thread is using."""
        explainer = self._maps.get()
        try:
            if explainer is None:
                explainer = self._make_explainer()
            return explainer.map(pixels, class_weights(self.bundle.classes, index))
        finally:
            self._maps.put(explainer)

    def _check(self) -> str:
        """Run the network on a grey image; return why it has no heat maps.

        BundleError if its logits are not finite.
        """
        grey = np.full((*self.bundle.spec.size, 3), _GREY, np.uint8)
        (found,) = self.predictor.predict_here([("check", _as_png(grey))])
        if found.error is not None:
            raise BundleError(f"{self.bundle.tflite} does not work: {found.error.reason}")
        try:
            self._saliency(grey, 0)
        except KindsightError:
            return (
                f"{self.name} has no feature maps that Grad-CAM can explain. 'kindsight explain "
                "--method occlusion' can, on the command line."
            )
        return ""


def _as_png(image: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _explainer(bundle: Bundle, network: bytes) -> GradCAM:
    return GradCAM(bundle, network=MapNetwork(bundle.tflite, content=network))


def _network_of(bundle: Bundle) -> bytes:
    """Return the content of the network's file; BundleError unless it has the recorded digest."""
    try:
        content = bundle.tflite.read_bytes()
    except OSError as error:
        raise BundleError(f"Could not read {bundle.tflite}: {error.strerror}.") from error
    files = bundle.facts.get("files")
    expected = files.get(TFLITE_FILE) if isinstance(files, dict) else None
    if expected is not None and expected != content_digest(content):
        raise BundleError(f"{bundle.tflite} changed while it was being read. Try again.")
    return content


def load_model(path: Path, name: str, workers: int) -> LoadedModel:
    """Load a bundle; BundleError for anything that is wrong with it."""
    try:
        return LoadedModel(path, name, workers)
    except BundleError:
        raise
    except (KindsightError, OSError, MemoryError) as error:
        raise BundleError(f"{path} cannot be served: {error}") from error


@dataclass
class ServedModel:
    """A name, the folder behind it, and the bundle that is served now.

    Parameters
    ----------
    name : str
    path : pathlib.Path
    current : LoadedModel
    stamp : tuple
        State of the files that `current` was loaded from.
    fault : str
        Why a newer bundle is not served; empty if there is none.
    seen : tuple
        State of the files at the last check, to load only files that no longer change.
    """

    name: str
    path: Path
    current: LoadedModel
    stamp: tuple[Any, ...]
    fault: str = ""
    seen: tuple[Any, ...] = field(default=())

    @property
    def public_fault(self) -> str:
        """The fault without the path of the folder on this machine."""
        text = self.current.public(self.fault)
        for folder in (self.path.resolve(), self.path):
            text = text.replace(str(folder), self.name)
        return text


class Models:
    """All served models by name.

    Parameters
    ----------
    runs : sequence of path
        Run folders or other bundles; a model's name is its folder's.
    workers : int
        Threads that may predict at once.

    Raises
    ------
    SettingsError
        If there are none, or two folders have the same name.
    BundleError
        For a bundle that cannot be served.
    """

    def __init__(self, runs: Sequence[Path], workers: int) -> None:
        if not runs:
            raise SettingsError("`runs` must have at least one run folder; got none.")
        self.workers = workers
        self._served: dict[str, ServedModel] = {}
        for name, path in _named(runs).items():
            stamp = _stamp(path)
            self._served[name] = ServedModel(
                name, path, load_model(path, name, workers), stamp, seen=stamp
            )

    @property
    def all(self) -> tuple[ServedModel, ...]:
        """The models, in the order in which they were given; the first is the default."""
        return tuple(self._served.values())

    def get(self, name: str | None = None) -> LoadedModel:
        """Return the bundle that is served under a name; KeyError for an unknown one."""
        if name is None:
            return self.all[0].current
        return self._served[name].current

    async def watch(self, seconds: float) -> None:
        """Check for changed bundles at intervals, and swap them."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Load and swap each bundle that has changed, but not since the last check."""
        for served in self._served.values():
            stamp = _stamp(served.path)
            settled, served.seen = stamp == served.seen, stamp
            if stamp != served.stamp and settled:
                self._reload(served, stamp)

    def _reload(self, served: ServedModel, stamp: tuple[Any, ...]) -> None:
        served.stamp = stamp
        try:
            new = load_model(served.path, served.name, self.workers)
        except KindsightError as error:
            served.fault = str(error)
        except Exception as error:  # whatever the error, the old bundle is still served
            logger.exception("%s could not be loaded", printable(str(served.path)))
            served.fault = f"{served.path} could not be loaded: {type(error).__name__}."
        else:
            old, served.current, served.fault = served.current.version, new, ""
            if old != new.version:
                logger.info("%s: version %s now (was %s)", served.name, new.version, old)
            return
        logger.error(
            "%s: the new bundle cannot be served; version %s still is: %s",
            served.name, served.current.version, printable(served.fault),
        )  # fmt: skip


def _named(runs: Sequence[Path]) -> dict[str, Path]:
    """Return folders by name; SettingsError for two of the same name."""
    named: dict[str, Path] = {}
    for path in runs:
        # Also for "." and "..".
        name = valid_text(path.name if path.name.strip(".") else path.resolve().name) or "model"
        if name in named:
            raise SettingsError(
                "`runs` must have different folder names, which are the models' names; got "
                f"{named[name]} and {path}. Give one of them another name: ln -s {path} NAME"
            )
        named[name] = path
    return named


def _stamp(path: Path) -> tuple[Any, ...]:
    """Return a value that changes with the bundle, its folder or a link to it."""
    found: list[Any] = []
    for file in (path / JSON_FILE, path / TFLITE_FILE):
        try:
            status = file.stat()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
