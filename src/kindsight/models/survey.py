"""What each place to cut a backbone would cost: how much of it lies above, and what passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kindsight.models.divided import cut_width, layers_after, low_width, stages_of
from kindsight.models.layout import FeatureLayout

__all__ = ["CutPlace", "survey_cuts"]


@dataclass(frozen=True)
class CutPlace:
    """A place to cut a backbone.

    Parameters
    ----------
    stage : str
        After which the cut is.
    low : int
        How many features of the stages up to the cut go past it.
    shape : tuple of int
        Of the map that passes: (height, width, channels).
    share : float
        Of the network's multiplications above the cut, 0-1.
    """

    stage: str
    low: int
    shape: tuple[int, ...]
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CutPlace:
        """Make a place of what :meth:`to_dict` gave."""
        return cls(**{**values, "shape": tuple(values["shape"])})


def survey_cuts(model: Any, layout: FeatureLayout) -> list[CutPlace]:
    """Look at every stage of a backbone, the earliest first.

    Parameters
    ----------
    model : keras.Model
        Pixels to features.
    layout : FeatureLayout
        Of the features.
    """
    work = {layer.name: _multiplications(layer) for layer in model.layers}
    total = max(1, sum(work.values()))
    found = []
    for stage in stages_of(layout):
        above = layers_after(model, stage)
        share = sum(work.get(name, 0) for name in above) / total
        found.append(CutPlace(stage, low_width(layout, stage), cut_width(model, stage), share))
    return found


def _multiplications(layer: Any) -> int:
    """Return how often a layer multiplies by a number of its kernel for one picture."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or layer.output.shape[1:] is None:
        return 0
    size = 1
    for side in kernel.shape:
        size *= int(side)
    for side in layer.output.shape[1:-1]:
        size *= int(side)
    return size
