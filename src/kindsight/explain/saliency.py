"""Saliency maps of a classifier for one image: which regions a class's logit depends on.

Grad-CAM takes the gradient of the logit; occlusion covers regions and measures how much the logit
falls. Both run the network with LiteRT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import UsageError
from kindsight.models.pooled_maps import MapNetwork, PooledMap
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import count_cores, single_threaded_opencv

__all__ = [
    "METHODS", "GradCAM", "Occlusion", "SaliencyMethod", "class_weights", "make_method",
]  # fmt: skip

Map = NDArray[np.float32]

# Side of a covered window and distance between windows, as fractions of the image's side.
WINDOW = 2 / 5
STRIDE = 2 / 15
# Standard deviation of the blur that covers a window, as a fraction of the image's side: nothing
# of the content remains, and no edge is added that the network could respond to.
BLUR = 1 / 12


class SaliencyMethod(Protocol):
    """A method that returns the saliency map of an image."""

    @property
    def title(self) -> str:
        """Name of the method as shown."""

    def map(self, pixels: NDArray[np.uint8], weights: NDArray[np.float64]) -> Map:
        """Return the saliency map, float32 (h, w) of any size, 0 and above, in the input's frame.

        - `pixels`: uint8 array (height, width, 3); the network's input.
        - `weights`: array (classes,); the explained value is the logits' sum weighted by these.
        """


def class_weights(
    classes: Sequence[str], index: int, versus: int | None = None
) -> NDArray[np.float64]:
    """Return the weights (classes,) of the logits whose sum is explained.

    It is the class's logit less the mean of all, since only differences of logits have a meaning
    (a network for two classes may have a constant logit); with `versus`, less that class's logit.
    """
    weights = np.zeros(len(classes))
    if versus is None:
        weights -= 1 / len(classes)
    else:
        weights[versus] = -1.0
    weights[index] += 1.0
    return weights


class GradCAM:
    """Grad-CAM on all feature maps that the network's head pools.

    Each channel of a map is weighted by the gradient of the logit, averaged over the map; the
    sum over channels, without its negative values, is the saliency map. A head may pool the
    maps of several stages: then the gradient is that of the head, and the maps of all stages
    are added up before negative values are removed. For a head that pools the last maps alone,
    as most networks have it, this is the published method. A head that flattens the maps has a
    weight for each position: its gradient is not averaged but multiplied with the map
    (HiResCAM). Maps of flipped images (test-time augmentation) are flipped back, maps of crops
    are left out.

    Parameters
    ----------
    bundle : Bundle
    network : MapNetwork, optional
        The bundle's network, if it is loaded already.

    Raises
    ------
    KindsightError
        If the network has no feature maps.

    References
    ----------
    R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra, "Grad-CAM: visual
    explanations from deep networks via gradient-based localization", ICCV 2017.

    R. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of
    convolutional neural networks", arXiv:2011.08891, 2020.
    """

    title = "Grad-CAM"

    def __init__(self, bundle: Bundle, *, network: MapNetwork | None = None) -> None:
        self.network = network or MapNetwork(bundle.tflite, count_cores())

    def map(self, pixels: NDArray[np.uint8], weights: NDArray[np.float64]) -> Map:
        """Return the saliency map of an image; see :class:`SaliencyMethod`."""
        logits, maps = self.network.run(pixels)
        gradients = self.network.gradients(logits, maps, weights)
        size = max((each.height, each.width) for each in self.network.maps)
        total: Map = np.zeros(size, np.float32)
        for pooled, values, gradient in zip(self.network.maps, maps, gradients, strict=True):
            if pooled.is_cropped:
                continue
            # Enlarging a map repeats its values: their sum stays the same.
            share = pooled.height * pooled.width / (size[0] * size[1])
            total += share * _enlarged(_weighted(pooled, values, gradient), size)
        return np.maximum(total, 0)


def _weighted(pooled: PooledMap, values: NDArray[Any], gradient: NDArray[Any]) -> Map:
    """Return the sum of a map's channels weighted by their gradients, flipped back."""
    if pooled.is_flattened:
        found = (values * gradient).sum(axis=-1)
    else:
        found = values @ gradient.mean(axis=(0, 1)).astype(np.float32)
    axes = tuple(axis - 1 for axis in pooled.flips)
    return np.ascontiguousarray(np.flip(found, axes) if axes else found, np.float32)


def _enlarged(values: Map, size: tuple[int, int]) -> Map:
    if values.shape == size:
        return values
    return np.asarray(
        cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.float32
    )


class Occlusion:
    """Occlusion: how much the logit falls where windows of the image are covered.

    A window of two fifths of the image's side moves in steps of a third of its own. It is covered
    with the blurred image. A pixel's saliency is the mean fall over the windows that cover it. It
    needs no gradient, and runs the network once for each of 81 windows.

    Parameters
    ----------
    bundle : Bundle
    workers : int, optional
        Parallel runs of the network; the number of cores by default.
    window, stride : float
        Side of a window, and distance between windows, as fractions of the image's side.

    References
    ----------
    M. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.
    """

    title = "Occlusion"

    def __init__(
        self,
        bundle: Bundle,
        workers: int | None = None,
        *,
        window: float = WINDOW,
        stride: float = STRIDE,
    ) -> None:
        self._pool = InterpreterPool(bundle.tflite, workers)
        self._boxes = window_boxes(bundle.spec.size, window, stride)
        # The map has steps of the stride, which no edge in the image accounts for.
        width, height = bundle.spec.width, bundle.spec.height
        self._step = max(1, round(stride * width)), max(1, round(stride * height))

    def map(self, pixels: NDArray[np.uint8], weights: NDArray[np.float64]) -> Map:
        """Return the saliency map of an image; see :class:`SaliencyMethod`."""
        cover = cv2.GaussianBlur(pixels, (0, 0), max(1.0, BLUR * max(pixels.shape[:2])))
        vector = weights.astype(np.float32)

        def value(box: tuple[slice, slice] | None) -> float:
            image = pixels
            if box is not None:
                image = pixels.copy()
                image[box] = cover[box]
            return float(self._pool.run(image) @ vector)

        with single_threaded_opencv(), ThreadPoolExecutor(self._pool.workers) as threads:
            whole, *covered = threads.map(value, [None, *self._boxes])
        fall, count = np.zeros(pixels.shape[:2]), np.zeros(pixels.shape[:2])
        for box, remaining in zip(self._boxes, covered, strict=True):
            fall[box] += whole - remaining
            count[box] += 1
        mean = np.maximum(fall / np.maximum(count, 1), 0).astype(np.float32)
        return np.asarray(cv2.blur(mean, self._step), np.float32)


def window_boxes(size: tuple[int, int], window: float, stride: float) -> list[tuple[slice, slice]]:
    """Return windows that cover an image of a (height, width) evenly, cut off at its edges."""
    sides = []
    for length in size:
        starts = np.arange(stride / 2 - window / 2, 1 - window / 2, stride)
        ends = [(round(max(0, s) * length), round(min(1, s + window) * length)) for s in starts]
        sides.append([slice(*each) for each in dict.fromkeys(ends) if each[1] > each[0]])
    rows, columns = sides
    return [(row, column) for row in rows for column in columns]


METHODS: Mapping[str, Any] = {"grad-cam": GradCAM, "occlusion": Occlusion}
"""The methods by their names in options."""


def make_method(name: str, bundle: Bundle) -> SaliencyMethod:
    """Return a method for a bundle; UsageError for an unknown name."""
    if name not in METHODS:
        raise UsageError(f"`method` must be {' or '.join(METHODS)}; got {name!r}.")
    method: SaliencyMethod = METHODS[name](bundle)
    return method
