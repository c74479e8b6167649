"""Explanations of predictions: the feature maps of each layer for one image, and their page."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, Bundle, check_model_file, load_bundle
from kindsight.errors import SettingsError
from kindsight.images import read_image, resize_image
from kindsight.models.networks.feature_maps import (
    MAX_LAYERS,
    MAX_MAPS,
    LayerMaps,
    brightness,
    collect_maps_in_worker,
)
from kindsight.models.worker.process import KerasProcess
from kindsight.predictor import Prediction, Predictor
from kindsight.report.gallery import thumbnail_uri
from kindsight.report.templating import clean, environment

__all__ = ["FeatureMaps", "explain_layers", "render_feature_maps", "sheet_png"]

SHOWN_CLASSES = 5

MAX_SIDE = 72
"""Longer side of a feature map on the page, in pixels; larger maps are scaled down."""

# Dark blue over green to light yellow with evenly increasing luminance, so that the colours are
# ordered in greyscale, too.
_ANCHORS = ((16, 13, 52), (47, 43, 120), (31, 98, 141), (29, 148, 131), (120, 194, 86),
            (249, 236, 142))  # fmt: skip


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """Feature maps of the layers of a classifier for one image.

    Attributes
    ----------
    bundle : Bundle
        The classifier.
    image : uint8 array (height, width, 3)
        The network's input, RGB.
    prediction : Prediction
    layers : tuple of LayerMaps
        In the order of the forward pass.
    not_shown : tuple of str
        Names of further layers that have feature maps.
    is_submodel : bool
        Whether the layers belong to one network of an ensemble, or to a network whose predictions
        are averaged by TTA.
    """

    bundle: Bundle
    image: NDArray[np.uint8]
    prediction: Prediction
    layers: tuple[LayerMaps, ...]
    not_shown: tuple[str, ...]
    is_submodel: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the output of ``kindsight explain --json``."""
        return {
            "image": self.prediction.path,
            "label": self.prediction.label,
            "probabilities": dict(self.prediction.top(len(self.bundle.classes))),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "height": layer.size[0],
                    "width": layer.size[1],
                    "maps": layer.channels,
                    "constant": layer.silent,
                    "low": layer.low if math.isfinite(layer.low) else None,
                    "high": layer.high if math.isfinite(layer.high) else None,
                    "shown": layer.shown.tolist(),
                }
                for layer in self.layers
            ],
            "not_shown": list(self.not_shown),
            "is_submodel": self.is_submodel,
        }

    def to_html(self) -> str:
        """Return the feature maps as a self-contained HTML page without scripts."""
        return render_feature_maps(
            path=self.prediction.path,
            image=self.image,
            run=self.bundle.folder.name,
            top_classes=self.prediction.top(SHOWN_CLASSES),
            layers=self.layers,
            not_shown=self.not_shown,
            is_submodel=self.is_submodel,
        )


def explain_layers(
    bundle: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    max_layers: int = MAX_LAYERS,
    max_maps: int = MAX_MAPS,
) -> FeatureMaps:
    """Compute the feature maps of a classifier's layers for one image.

    Parameters
    ----------
    bundle : path
        A run folder, or another bundle with its ``model.keras``.
    image : path
        An image file.
    max_layers : int, default=16
        Maximum number of layers; of more, evenly spaced ones are returned.
    max_maps : int, default=64
        Maximum number of feature maps of a layer, selected in the same way.

    Raises
    ------
    BundleError
        If the bundle is missing or damaged, or has no ``model.keras``.
    ImageError
        If the image cannot be read.
    SettingsError
        For a maximum below 1.
    KindsightError
        If Keras cannot run the network, or no layer has feature maps.
    """
    for name, value in (("max_layers", max_layers), ("max_maps", max_maps)):
        if value < 1:
            raise SettingsError(f"`{name}` must be at least 1; got {value}.")
    opened = load_bundle(bundle)
    check_model_file(
        opened,
        opened.keras,
        f"Feature maps need {KERAS_FILE}, but in {opened.folder} it is missing or too large. Use "
        "the folder of a training run.",
    )
    path = os.fspath(image)
    pixels = resize_image(read_image(path, value_range=opened.spec.value_range), opened.spec)
    # Keras starts in its process while LiteRT predicts.
    with KerasProcess().start() as keras:
        (prediction,) = Predictor(opened, workers=1).predict([path])
        if prediction.error is not None:
            raise prediction.error
        found = collect_maps_in_worker(
            keras, opened.keras, pixels, max_layers=max_layers, max_maps=max_maps
        )
    layers, not_shown = tuple(found.layers), tuple(found.left_out)
    return FeatureMaps(opened, pixels, prediction, layers, not_shown, found.within)


class Tile(NamedTuple):
    """A feature map on a sheet: its number and its CSS background position."""

    number: int
    x: str
    y: str


def render_feature_maps(
    *,
    path: str,
    image: NDArray[np.uint8],
    run: str,
    top_classes: Sequence[tuple[str, float]],
    layers: Sequence[LayerMaps],
    not_shown: Sequence[str] = (),
    is_submodel: bool = False,
) -> str:
    """Return one HTML page without scripts or external resources; the texts may be anything.

    `run` is the name of the classifier; the others are as in :class:`FeatureMaps`.
    """
    page = (
        environment()
        .get_template("layers.html.j2")
        .render(
            path=path,
            image=thumbnail_uri(image, 320),
            size=image.shape[:2],
            run=run,
            top_classes=top_classes,
            layers=[_layer(layer) for layer in layers],
            not_shown=not_shown,
            is_submodel=is_submodel,
        )
    )
    return clean(page)


def sheet_png(maps: NDArray[np.uint8], columns: int) -> bytes:
    """Return a PNG with feature maps side by side, `columns` in a row.

    - `maps`: uint8 array (n, height, width); 0-255 from dark to bright; scaled to at most
      `MAX_SIDE` pixels.
    """
    from PIL import Image

    small = [_small(each) for each in maps]
    height, width = small[0].shape
    rows = math.ceil(len(small) / columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index, each in enumerate(small):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = each
    image = Image.fromarray(sheet).convert("P")
    image.putpalette(_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _layer(layer: LayerMaps) -> dict[str, Any]:
    columns = max(1, math.ceil(math.sqrt(len(layer.shown))))
    rows = max(1, math.ceil(len(layer.shown) / columns))
    png = base64.b64encode(sheet_png(brightness(layer.maps), columns)).decode("ascii")
    return {
        "maps": layer,
        "columns": columns,
        "rows": rows,
        "image": f"data:image/png;base64,{png}",
        "tiles": [
            Tile(
                int(number), _position(index % columns, columns), _position(index // columns, rows)
            )
            for index, number in enumerate(layer.shown)
        ],
    }


def _small(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = values.shape
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return values
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.uint8)


def _palette() -> NDArray[np.uint8]:
    """Return 256 colours, interpolated linearly between the anchors: uint8 (256, 3)."""
    steps = np.linspace(0, len(_ANCHORS) - 1, 256)
    channels = [np.interp(steps, range(len(_ANCHORS)), one) for one in zip(*_ANCHORS, strict=True)]
    palette: NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return palette


def _position(index: int, count: int) -> str:
    """Return the CSS background position of a tile: 0% is the first, 100% the last."""
    return f"{100 * index / (count - 1):.4g}%" if count > 1 else "0%"
