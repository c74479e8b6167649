"""Feature maps of every layer of a classifier for one image."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, MAX_MODEL_BYTES, Bundle, load_bundle
from kindsight.digest import file_digest
from kindsight.errors import BundleError, SettingsError
from kindsight.explain.page import FeatureMapsPage, render_feature_maps
from kindsight.images import read_image, resize_image
from kindsight.models.networks.feature_maps import (
    MAX_LAYERS,
    MAX_MAPS,
    LayerMaps,
    collect_maps_in_worker,
)
from kindsight.models.worker.process import KerasProcess
from kindsight.predictor import Prediction, Predictor

__all__ = ["FeatureMaps", "explain_layers"]

SHOWN_CLASSES = 5


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
        """Return the output of ``kindsight explain --layers --json``."""
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
            FeatureMapsPage(
                path=self.prediction.path,
                image=self.image,
                run=self.bundle.folder.name,
                top_classes=self.prediction.top(SHOWN_CLASSES),
                layers=self.layers,
                not_shown=self.not_shown,
                is_submodel=self.is_submodel,
            )
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
            raise SettingsError(f"{name} must be at least 1; got {value}.")
    opened = load_bundle(bundle)
    _check_keras_file(opened)
    path = os.fspath(image)
    pixels = resize_image(read_image(path), opened.spec)
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


def _check_keras_file(bundle: Bundle) -> None:
    """Compare the Keras file with the digest stored in the bundle."""
    path = bundle.keras
    if not path.is_file() or path.stat().st_size > MAX_MODEL_BYTES:
        raise BundleError(
            f"Feature maps need {KERAS_FILE}, but in {bundle.folder} it is missing or too large. "
            "Use the folder of a training run."
        )
    files = bundle.facts.get("files")
    expected = files.get(KERAS_FILE) if isinstance(files, Mapping) else None
    if expected is not None and expected != file_digest(path):
        raise BundleError(
            f"{path} was changed after the bundle was written. Restore the file or train again."
        )
