"""Small overlays for a report: the regions that some predictions rely on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import KindsightError
from kindsight.explain.overlay import draw_overlay, encode, place_map, shrink
from kindsight.explain.saliency import GradCAM, Occlusion, SaliencyMethod, class_weights
from kindsight.images import InputSpec, resize_image
from kindsight.models.pooled_maps import MapNetwork
from kindsight.report.values import Overlay

__all__ = ["MAX_OVERLAYS", "ExplainedImage", "report_overlays"]

MAX_OVERLAYS = 12
"""Most overlays of a report."""

OVERLAY_SIDE = 192
"""Longer side of an overlay in a report, in pixels."""

# Without feature maps to explain, each image takes 25 runs of the network.
MAX_OCCLUDED = 4
_COARSE_WINDOW, _COARSE_STRIDE = 2 / 5, 1 / 5


class ExplainedImage(NamedTuple):
    """An image whose prediction is to be explained.

    `pixels` is the network's input, uint8 (height, width, 3), and `size` the (height, width) of the
    image before its resizing; `prediction` is the class that is explained.
    """

    path: str
    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    label: str | None
    prediction: str
    confidence: float


def report_overlays(
    bundle: Bundle, images: Iterable[ExplainedImage], network: MapNetwork | None = None
) -> tuple[Overlay, ...]:
    """Return overlays of the first :data:`MAX_OVERLAYS` images.

    They are by Grad-CAM, which takes one run of the network for each image; by occlusion and of
    fewer images for a network without feature maps.

    Parameters
    ----------
    bundle : Bundle
        The classifier; ``bundle.json`` need not be written yet.
    images : iterable of ExplainedImage
        Most important first; no more are taken than are shown.
    network : MapNetwork, optional
        The bundle's network, if it is loaded already.
    """
    method: SaliencyMethod
    limit = MAX_OVERLAYS
    try:
        method = GradCAM(bundle, network=network)
    except KindsightError:
        method = Occlusion(bundle, window=_COARSE_WINDOW, stride=_COARSE_STRIDE)
        limit = MAX_OCCLUDED
    return tuple(_overlays(bundle, images, method, limit))


def _overlays(
    bundle: Bundle, images: Iterable[ExplainedImage], method: SaliencyMethod, limit: int
) -> Iterator[Overlay]:
    for _, image in zip(range(limit), images, strict=False):
        weights = class_weights(bundle.classes, bundle.classes.index(image.prediction))
        try:
            values = method.map(image.pixels, weights)
        except KindsightError:  # a head that cannot be differentiated
            return
        shown = shrink(_in_proportion(image, bundle.spec), OVERLAY_SIDE)
        # The stored image is the network's input: nothing is cropped here.
        whole = InputSpec(bundle.spec.height, bundle.spec.width)
        placed = place_map(values, whole, (shown.shape[0], shown.shape[1]))
        yield Overlay(
            image.path,
            encode(shown, "jpeg"),
            encode(draw_overlay(shown, placed), "jpeg"),
            image.label,
            image.prediction,
            image.confidence,
            method.title,
        )


def _in_proportion(image: ExplainedImage, spec: InputSpec) -> NDArray[np.uint8]:
    """Return the network's input, with a stretching undone."""
    if spec.fit != "stretch":
        return image.pixels
    scale = max(spec.size) / max(image.size)
    height, width = (max(1, round(side * scale)) for side in image.size)
    return resize_image(image.pixels, InputSpec(height, width))
