"""Explanations of predictions: saliency maps on the images, and the nearest training images."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle, load_bundle
from kindsight.dataset import ImageDataset
from kindsight.digest import content_digest
from kindsight.errors import KindsightError, UsageError
from kindsight.explain.overlay import PlacedMap, draw_overlay, place_map, shrink
from kindsight.explain.saliency import (
    METHODS,
    GradCAM,
    SaliencyMethod,
    class_weights,
    make_method,
)
from kindsight.explain.similarity import Neighbour, TrainingImages, feature_vector
from kindsight.images import read_bytes, read_image, resize_image
from kindsight.models.pooled_maps import MapNetwork
from kindsight.predictor import Prediction, Predictor
from kindsight.report.format import listing

__all__ = ["MAX_SIDE", "NEAREST", "Explanation", "explain_images"]

MAX_SIDE = 1024
"""Longer side of an overlay, in pixels; smaller images keep their size."""

NEAREST = 5
"""Number of nearest training images by default."""

Progress = Callable[[str, int, int], None]

# The bytes of a file, or an array in memory.
_Loaded = bytes | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a classifier predicts a class for an image.

    Parameters
    ----------
    prediction : Prediction
        With its path; its `error` says why an image has no explanation.
    target : str
        The class whose logit is explained.
    versus : str or None
        The class that `target` is compared with; None for all.
    size : tuple of int
        (height, width) of the image in pixels, in its own orientation.
    image : uint8 array (height, width, 3)
        The image, RGB, shrunk to at most :data:`MAX_SIDE` pixels.
    maps : mapping of str to PlacedMap
        Saliency map, of the size of `image`, by method (``"grad-cam"``, ``"occlusion"``).
    nearest : tuple of Neighbour
        The nearest training images, nearest first.
    notes : tuple of str
        Why a method or the training images are missing.
    """

    prediction: Prediction
    target: str = ""
    versus: str | None = None
    size: tuple[int, int] = (0, 0)
    image: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    maps: Mapping[str, PlacedMap] = field(default_factory=dict)
    nearest: tuple[Neighbour, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The image's path, as given."""
        return self.prediction.path

    def overlay(self, method: str) -> NDArray[np.uint8]:
        """Return the image with the saliency map of a method on it, uint8 (height, width, 3)."""
        return draw_overlay(self.image, self.maps[method])

    def to_dict(self) -> dict[str, Any]:
        """Return an entry of the output of ``kindsight explain --json``."""
        prediction = self.prediction
        if prediction.error is not None:
            error = {"code": prediction.error.code, "message": prediction.error.reason}
            return {"image": self.path, "error": error}
        return {
            "image": self.path,
            "label": prediction.label,
            "probabilities": dict(prediction.top(len(prediction.classes))),
            "class": self.target,
            "versus": self.versus,
            "height": self.size[0],
            "width": self.size[1],
            "nearest": [
                {
                    "path": each.path,
                    "label": each.label,
                    "similarity": round(each.similarity, 4),
                    "file": each.file,
                }
                for each in self.nearest
            ],
            "notes": list(self.notes),
            "error": None,
        }


def explain_images(
    bundle: Bundle | str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]] | ImageDataset,
    *,
    methods: Sequence[str] = tuple(METHODS),
    target: str | None = None,
    versus: str | None = None,
    training_images: TrainingImages | None = None,
    nearest: int = NEAREST,
    progress: Progress | None = None,
) -> Iterator[Explanation]:
    """Yield an explanation of the prediction for each image.

    Parameters
    ----------
    bundle : Bundle or path
        A run folder or another bundle. Its Keras file and TensorFlow are not needed.
    images : iterable of path, or ImageDataset
        Image files, or the images of a dataset, whose labels are ignored.
    methods : sequence of str
        ``"grad-cam"``, ``"occlusion"``. Of both, Grad-CAM is left out with a note where the network
        has no feature maps.
    target : str, optional
        The class to explain; the most probable one of each image by default.
    versus : str, optional
        Explain why `target` rather than this class; by default, rather than all others.
    training_images : TrainingImages, optional
        Among which the nearest are found; see :func:`kindsight.runs.feature_vectors.run_vectors`.
    nearest : int
        Number of nearest training images.
    progress : callable, optional
        Called with ("explain", done, total); total is 0 if unknown.

    Yields
    ------
    Explanation
        In the order of `images`; with an error in its prediction for an unreadable image.

    Raises
    ------
    UsageError
        For an unknown class or method.
    BundleError
        If the bundle is missing or damaged.
    KindsightError
        If Grad-CAM alone is wanted and the network has no feature maps.
    """
    opened = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    for option, name in (("class", target), ("versus", versus)):
        _check_class(opened, option, name)
    if versus is not None and versus == target:
        raise UsageError(f"`versus` must be another class than `class`; got {versus!r} for both.")
    network, made, notes = _make_methods(opened, methods)
    predictor = Predictor(opened, workers=1)
    given = images if isinstance(images, ImageDataset) else [os.fspath(path) for path in images]
    report = progress or (lambda *_: None)
    report("explain", 0, len(given))
    for done, (prediction, load) in enumerate(_predictions(predictor, given), 1):
        if prediction.error is not None:
            yield Explanation(prediction)
        else:
            chosen = target or prediction.best or opened.classes[0]
            pair = _pair(opened, prediction, chosen, versus)
            yield _explain(
                opened, prediction, load(), pair, made, network, training_images, nearest, notes
            )
        report("explain", done, len(given))


def _predictions(
    predictor: Predictor, images: ImageDataset | Sequence[str]
) -> Iterator[tuple[Prediction, Callable[[], _Loaded]]]:
    """Yield the prediction of each image, and a function that returns the loaded image."""
    if isinstance(images, ImageDataset):
        for row in range(len(images)):
            (prediction,) = predictor.predict_dataset(images[[row]])
            yield prediction, partial(images.load, row)
    else:
        for path in images:
            (prediction,) = predictor.predict([path])
            yield prediction, partial(read_bytes, path)


def _check_class(bundle: Bundle, option: str, name: str | None) -> None:
    if name is None or name in bundle.classes:
        return
    near = difflib.get_close_matches(name, bundle.classes, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"They are {listing(bundle.classes)}."
    raise UsageError(f"`{option}` must be a class of the classifier; got {name!r}. {hint}")


def _pair(
    bundle: Bundle, prediction: Prediction, target: str, versus: str | None
) -> tuple[str, str | None]:
    """Return the class to explain and its rival: where the rival is predicted, the next class."""
    if versus != target:
        return target, versus
    other = next(name for name, _ in prediction.top(2) if name != versus)
    return other, versus


def _make_methods(
    bundle: Bundle, names: Sequence[str]
) -> tuple[MapNetwork | None, dict[str, SaliencyMethod], tuple[str, ...]]:
    """Return the network with its maps, the methods by name, and why one is missing."""
    made: dict[str, SaliencyMethod] = {}
    notes: tuple[str, ...] = ()
    network = None
    try:
        network = MapNetwork(bundle.tflite)
    except KindsightError as error:
        if list(names) == ["grad-cam"]:
            raise
        notes = (str(error),)
    for name in dict.fromkeys(names):
        if name == "grad-cam":
            if network is not None:
                made[name] = GradCAM(bundle, network=network)
        else:
            made[name] = make_method(name, bundle)
    return network, made, notes


def _explain(
    bundle: Bundle,
    prediction: Prediction,
    data: _Loaded,
    pair: tuple[str, str | None],
    methods: Mapping[str, SaliencyMethod],
    network: MapNetwork | None,
    training_images: TrainingImages | None,
    nearest: int,
    notes: tuple[str, ...],
) -> Explanation:
    if isinstance(data, bytes):
        image = read_image(data, value_range=bundle.spec.value_range)
    else:
        image = data
    pixels = resize_image(image, bundle.spec)
    shown = shrink(image, MAX_SIDE)
    target, versus = pair
    index = bundle.classes.index
    weights = class_weights(
        bundle.classes, index(target), None if versus is None else index(versus)
    )
    maps = {}
    for name, method in methods.items():
        try:
            values = method.map(pixels, weights)
        except KindsightError as error:  # a head that Grad-CAM cannot follow
            if len(methods) == 1:
                raise
            notes = (*notes, str(error))
            continue
        maps[name] = place_map(values, bundle.spec, (shown.shape[0], shown.shape[1]))
    found: tuple[Neighbour, ...] = ()
    if training_images is not None and len(training_images.paths) and network is not None:
        _, values_of_maps = network.run(pixels)
        vector, digest = feature_vector(network.maps, values_of_maps), content_digest(data)
        found = training_images.nearest(vector, nearest, digest)
        if digest in training_images.digests:
            notes = (*notes, "The classifier was trained on this image.")
    size = (image.shape[0], image.shape[1])
    return Explanation(prediction, target, versus, size, shown, maps, found, notes)
