"""What a classifier makes of one image, layer by layer."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, MAX_MODEL_BYTES, Bundle, load_bundle
from kindsight.digest import file_digest
from kindsight.errors import BundleError, SettingsError
from kindsight.explain.page import LayersData, LayerView, render_layers
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

__all__ = ["Layers", "explain_layers"]

SHOWN_ANSWERS = 5


@dataclass(frozen=True, eq=False)
class Layers:
    """The feature maps of one image.

    Attributes
    ----------
    bundle : Bundle
        The classifier.
    image : uint8 array (height, width, 3)
        As the network sees it.
    prediction : Prediction
        Its answer.
    layers : tuple of LayerMaps
        In the order in which the image goes through them.
    left_out : tuple of str
        Names of the layers that have maps and were not chosen.
    within : bool
        Whether they are of a network within the one that answers: several answer together, or one
        over several views of the image.
    """

    bundle: Bundle
    image: NDArray[np.uint8]
    prediction: Prediction
    layers: tuple[LayerMaps, ...]
    left_out: tuple[str, ...]
    within: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what ``kindsight explain --layers --json`` prints."""
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
                    "silent": layer.silent,
                    "low": layer.low if math.isfinite(layer.low) else None,
                    "high": layer.high if math.isfinite(layer.high) else None,
                    "shown": layer.shown.tolist(),
                }
                for layer in self.layers
            ],
            "left_out": list(self.left_out),
            "within_another": self.within,
        }

    def to_html(self) -> str:
        """Return the page: self-contained, without scripts."""
        return render_layers(
            LayersData(
                path=self.prediction.path,
                image=self.image,
                run=self.bundle.folder.name,
                answers=self.prediction.top(SHOWN_ANSWERS),
                layers=[
                    LayerView(
                        layer.name,
                        layer.kind,
                        layer.size,
                        layer.channels,
                        layer.shown.tolist(),
                        brightness(layer.maps),
                        layer.low,
                        layer.high,
                        layer.silent,
                    )
                    for layer in self.layers
                ],
                left_out=self.left_out,
                within=self.within,
            )
        )


def explain_layers(
    bundle: str | os.PathLike[str],
    image: str | os.PathLike[str],
    *,
    max_layers: int = MAX_LAYERS,
    max_maps: int = MAX_MAPS,
) -> Layers:
    """Run an image through a classifier and keep the feature maps of its layers.

    Parameters
    ----------
    bundle : path
        A run's folder, or another bundle with its ``model.keras``.
    image : path
        An image's file.
    max_layers, max_maps : int
        More layers, and more maps of a layer, are chosen from evenly.

    Returns
    -------
    Layers

    Raises
    ------
    BundleError
        For a bundle that is absent or damaged, or has no ``model.keras``.
    ImageError
        For an image that cannot be read.
    SettingsError
        For a number of layers or maps below 1.
    KindsightError
        Where Keras cannot run the network, or it has no layers with maps.
    """
    for name, value in (("max_layers", max_layers), ("max_maps", max_maps)):
        if value < 1:
            raise SettingsError(f"{name} must be 1 or more. Received: {value}.")
    opened = load_bundle(bundle)
    _check_keras(opened)
    path = os.fspath(image)
    pixels = resize_image(read_image(path), opened.spec)
    # Keras starts while LiteRT answers.
    with KerasProcess().start() as keras:
        (prediction,) = Predictor(opened, workers=1).predict([path])
        if prediction.error is not None:
            raise prediction.error
        found = collect_maps_in_worker(
            keras, opened.keras, pixels, max_layers=max_layers, max_maps=max_maps
        )
    layers, left_out = tuple(found.layers), tuple(found.left_out)
    return Layers(opened, pixels, prediction, layers, left_out, found.within)


def _check_keras(bundle: Bundle) -> None:
    """Hold the Keras file to the digest that was noted when it was written."""
    path = bundle.keras
    if not path.is_file() or path.stat().st_size > MAX_MODEL_BYTES:
        raise BundleError(
            f"To look into its layers a bundle must hold {KERAS_FILE}. Received: "
            f"{Path(bundle.folder)}, where it is missing or too large."
        )
    files = bundle.facts.get("files")
    noted = files.get(KERAS_FILE) if isinstance(files, Mapping) else None
    if noted is not None and noted != file_digest(path):
        raise BundleError(
            f"{path} must be the file that the bundle was written with; its content has changed. "
            "Restore it, or train again."
        )
