"""Overlays: a saliency map on the image that it explains, large, or small for a report."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import KindsightError
from kindsight.explain.saliency import GradCAM, Occlusion, SaliencyMethod, class_weights
from kindsight.images import InputSpec, resize_image
from kindsight.models.pooled_maps import MapNetwork
from kindsight.report.data import Overlay

__all__ = [
    "MAX_OVERLAYS", "ExplainedImage", "PlacedMap", "colour_scale", "draw_heat_map",
    "draw_overlay", "encode",
    "place_map", "report_overlays", "shrink",
]  # fmt: skip

# Black over purple, red and orange to light yellow, with evenly increasing luminance.
_ANCHORS = ((12, 7, 40), (87, 16, 110), (158, 40, 100), (220, 81, 58), (249, 150, 30),
            (252, 237, 145))  # fmt: skip
# Opacity of the highest value.
OPACITY = 0.75
# Brightness of the regions that the network does not see.
UNSEEN = 0.35


class PlacedMap(NamedTuple):
    """A saliency map in the frame of its image.

    `values`, float32 (height, width), are 0-1, the highest 1 unless all are 0; `seen`, bool of the
    same shape, is False where the resizing for the network crops the image.
    """

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]


def place_map(values: NDArray[np.float32], spec: InputSpec, size: tuple[int, int]) -> PlacedMap:
    """Return a saliency map of a network's input in the frame of the image before its resizing.

    - `values`: float32 array (h, w); 0 and above, over the whole input.
    - `spec`: how the image was resized to the input.
    - `size`: (height, width) of the image, as it is displayed.
    """
    height, width = size
    seen = np.zeros(size, np.bool_)
    placed = np.zeros(size, np.float32)
    top, left, inner = 0, 0, (height, width)
    if spec.fit == "crop":
        inner = (
            min(height, max(1, round(width * spec.height / spec.width))),
            min(width, max(1, round(height * spec.width / spec.height))),
        )
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    elif spec.fit == "pad":
        values = _without_padding(values, spec, size)
    box = slice(top, top + inner[0]), slice(left, left + inner[1])
    placed[box] = cv2.resize(values, (inner[1], inner[0]), interpolation=cv2.INTER_LINEAR)
    seen[box] = True
    highest = float(placed.max())
    return PlacedMap(placed / highest if highest > 0 else placed, seen)


def _without_padding(
    values: NDArray[np.float32], spec: InputSpec, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the part of a map that lies on the image, not on its padding."""
    scale = min(spec.height / size[0], spec.width / size[1])
    inner = [min(1.0, max(1, round(n * scale)) / m) for n, m in zip(size, spec.size, strict=True)]
    # At the input's size, where the padding's edges are whole pixels.
    whole = cv2.resize(values, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
    height, width = (round(part * side) for part, side in zip(inner, spec.size, strict=True))
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    return np.ascontiguousarray(whole[top : top + height, left : left + width], np.float32)


def draw_overlay(image: NDArray[np.uint8], placed: PlacedMap) -> NDArray[np.uint8]:
    """Return an image, uint8 (height, width, 3), with a saliency map of its size on it.

    The image is in shades of grey, so that colours are the map's alone; regions that the network
    does not see are dark.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    colours = _colours()[np.rint(255 * placed.values).astype(np.int64)]
    opacity = OPACITY * np.sqrt(placed.values)[..., None]
    mixed = grey * (1 - opacity) + colours * opacity
    mixed = np.where(placed.seen[..., None], mixed, UNSEEN * grey)
    result: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return result


def draw_heat_map(placed: PlacedMap) -> NDArray[np.uint8]:
    """Return a saliency map alone, uint8 RGBA (height, width, 4), to be laid over its image.

    Its opacity is that of :func:`draw_overlay`: 0 where the value is 0.
    """
    colours = _colours()[np.rint(255 * placed.values).astype(np.int64)]
    alpha = 255 * OPACITY * np.sqrt(placed.values)[..., None]
    result: NDArray[np.uint8] = np.rint(np.concatenate([colours, alpha], axis=-1)).astype(np.uint8)
    return result


def colour_scale() -> NDArray[np.uint8]:
    """Return the colours from low to high on a middle grey, uint8 (1, 256, 3)."""
    grey = np.full((1, 256, 3), 128, np.uint8)
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    return draw_overlay(grey, PlacedMap(ramp, np.ones((1, 256), np.bool_)))


def shrink(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Return an image whose longer side has at most this number of pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def encode(image: NDArray[np.uint8], kind: str = "png", quality: int = 85) -> bytes:
    """Return an image, uint8 (height, width, 3), as a ``png`` or ``jpeg`` file."""
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": quality} if kind == "jpeg" else {"optimize": True}
    Image.fromarray(image).save(buffer, format=kind.upper(), **options)
    return buffer.getvalue()


def _colours() -> NDArray[np.float32]:
    """Return 256 colours, interpolated linearly between the anchors: float32 (256, 3)."""
    steps = np.linspace(0, len(_ANCHORS) - 1, 256)
    channels = [np.interp(steps, range(len(_ANCHORS)), one) for one in zip(*_ANCHORS, strict=True)]
    return np.stack(channels, axis=1).astype(np.float32)


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
