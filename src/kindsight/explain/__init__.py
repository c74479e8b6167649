"""Explanations of predictions: the feature maps of each layer for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.explain.feature_maps import FeatureMaps as FeatureMaps
    from kindsight.explain.feature_maps import explain_layers as explain_layers

_HOMES = {"FeatureMaps": "feature_maps", "explain_layers": "feature_maps"}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
