"""Explanations of predictions: saliency maps, nearest training images, feature maps, image maps.

The names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.explain.explanation import Explanation as Explanation
    from kindsight.explain.explanation import explain_images as explain_images
    from kindsight.explain.feature_maps import FeatureMaps as FeatureMaps
    from kindsight.explain.feature_maps import explain_layers as explain_layers
    from kindsight.explain.pages import render_explanations as render_explanations
    from kindsight.explain.similarity import map_images as map_images

_MODULES = {
    "Explanation": "explanation",
    "FeatureMaps": "feature_maps",
    "explain_images": "explanation",
    "explain_layers": "feature_maps",
    "map_images": "similarity",
    "render_explanations": "pages",
}

__all__ = sorted(_MODULES)  # noqa: PLE0605

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
