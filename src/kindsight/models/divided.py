"""A backbone divided at a cut for fine-tuning: a lower part that stays, an upper part that learns.

What lies below the cut is run by LiteRT, once a view of a picture, and what it gives is kept (see
:mod:`kindsight.training.views`). Above the cut each batch normalisation stays in inference mode,
and is folded into the convolution before it (:mod:`.folding`). The upper part that learns is a
copy: the backbone with its fitted head stays as it was beside it, and both may answer together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.models.folding import fold_normalisations
from kindsight.models.freezing import layers_up_to
from kindsight.models.heads import FEATURES, CurvedHead, HeadLayers, LinearHead, add_head
from kindsight.models.layout import FeatureLayout
from kindsight.models.together import TUNED

__all__ = [
    "DividedNetwork",
    "build_lower",
    "cut_width",
    "divide_network",
    "layers_after",
    "load_network",
    "low_width",
    "stages_of",
    "with_head",
]

STANDARD = "standardise"
# The layers of a curved head that stay: its projection, in which a small step would move every
# picture past its bumps, where these are, and the length of a point.
_FIXED = ("head_project", "head_norm", "head_kernel")

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class DividedNetwork:
    """A network for fine-tuning.

    Parameters
    ----------
    full : keras.Model
        Pixels to logits, for use.
    upper : keras.Model
        What is trained: what the lower part gives to logits. It is a layer of `full`, or all of
        it.
    frozen : keras.Model
        Pixels to logits as before: what lies below the cut is that of `full`.
    backbone : keras.Model
        Pixels to features, within `frozen`.
    """

    full: Any
    upper: Any
    frozen: Any
    backbone: Any


def load_network(file: str | os.PathLike[str]) -> Any:
    """Load a backbone's Keras file, as it was built."""
    import keras

    return keras.models.load_model(file, compile=False)


def stages_of(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the stages whose statistics are features, the earliest first; the top is none."""
    names = [name.rpartition("_")[0] for name in layout.names[:-1]]
    return tuple(dict.fromkeys(names))


def low_width(layout: FeatureLayout, stage: str) -> int:
    """Return how many features come from the lower part, if the cut is after `stage`."""
    return max(block.stop for block in layout.blocks if block.name.rpartition("_")[0] == stage)


def cut_width(model: Any, stage: str) -> tuple[int, ...]:
    """Return the shape of what passes the cut after a stage: (height, width, channels)."""
    return tuple(int(side) for side in _layer(model, stage).output.shape[1:])


def _layer(model: Any, stage: str) -> Any:
    names = {layer.name for layer in model.layers}
    return model.get_layer(f"{stage}_out" if f"{stage}_out" in names else stage)


def _parts(model: Any) -> list[Any]:
    """Return the tensors that are joined to the features, one for each block of the layout."""
    return list(model.get_layer(FEATURES)._inbound_nodes[0].input_tensors)


def _low_parts(model: Any, layout: FeatureLayout, stage: str) -> list[Any]:
    low = low_width(layout, stage)
    return _parts(model)[: sum(block.stop <= low for block in layout.blocks)]


def build_lower(model: Any, layout: FeatureLayout | None, stage: str) -> Any:
    """Build the lower part of a backbone.

    Parameters
    ----------
    model : keras.Model
        Pixels to features.
    layout : FeatureLayout or None
        Of the features; None where only the map is wanted.
    stage : str
        After which the cut is: one of :func:`stages_of`, or any layer.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3), values 0-255, to float32 (batch, low + map): the
        features of the stages up to the cut, then what passes the cut, row by row.
    """
    import keras

    joined = keras.layers.Flatten()(_layer(model, stage).output)
    if layout is not None:
        joined = keras.layers.Concatenate()([*_low_parts(model, layout, stage), joined])
    return keras.Model(model.input, joined, name=f"{model.name}_lower")


def divide_network(
    model: Any,
    layout: FeatureLayout,
    stage: str | None,
    head: HeadLayers,
    temperature: float,
    mean: NDArray[np.float32],
    spread: NDArray[np.float32],
) -> DividedNetwork:
    """Put a fitted head on a backbone, and take both apart at the cut.

    The network answers as the head on the frozen backbone does: its logits are the head's,
    divided by the temperature.

    Parameters
    ----------
    model : keras.Model
        Pixels to features.
    layout : FeatureLayout
        Of the features.
    stage : str or None
        After which the cut is; None for none: everything is trained, from pixels on.
    head : HeadLayers
        As the convex fit gave it.
    temperature : float
        Divides the logits.
    mean, spread : float32 array (features,)
        Of the training pictures' features: the head's first layer learns on standardised ones,
        which all change at the same pace.

    Raises
    ------
    SettingsError
        Where something passes by the cut.
    """
    import keras

    ends = model.input
    if stage is not None:
        ends = [_layer(model, stage).output, *_low_parts(model, layout, stage)]
    try:
        above = keras.Model(ends, model.output, name=f"{model.name}_above")
    except ValueError as error:
        raise SettingsError(
            f"All that a network knows of a picture must pass its cut. Received: {stage}, which "
            f"something of {model.name} passes by ({error})."
        ) from None
    upper = fold_normalisations(above)
    standard = keras.layers.Normalization(mean=mean, variance=np.square(spread), name=STANDARD)(
        upper.output
    )
    logits = add_head(standard, _standardised(head, temperature, mean, spread))
    upper = keras.Model(upper.inputs, logits, name=TUNED)
    for name in _FIXED:
        if any(layer.name == name for layer in upper.layers):
            upper.get_layer(name).trainable = False
    full = keras.Model(model.input, upper(ends), name=f"{model.name}_tuned") if stage else upper
    frozen = with_head(model, head, temperature)
    frozen.trainable = False
    return DividedNetwork(full, upper, frozen, model)


def with_head(model: Any, head: HeadLayers, temperature: float) -> Any:
    """Return a backbone with its fitted head, whose logits are divided by the temperature.

    Parameters
    ----------
    model : keras.Model
        Pixels to features; its layers are the result's.
    head : HeadLayers
    temperature : float
    """
    import keras

    features = keras.Input(model.output.shape[1:], name=FEATURES)
    logits = keras.layers.Rescaling(1 / temperature)(add_head(features, head))
    frozen_head = keras.Model(features, logits, name="frozen_head")
    return keras.Model(model.input, frozen_head(model.output), name=f"{model.name}_frozen")


def layers_after(model: Any, stage: str) -> set[str]:
    """Return the names of a network's layers above the end of a stage."""
    every = {operation.name for operation in model.operations}
    return every - layers_up_to(model, _layer(model, stage).name)


def _standardised(
    head: HeadLayers, temperature: float, mean: NDArray[np.float32], spread: NDArray[np.float32]
) -> HeadLayers:
    """Return the head of standardised features, its logits divided by the temperature."""
    middle, width = mean.astype(np.float64), spread.astype(np.float64)
    head = head.scaled(1 / temperature)
    if isinstance(head, LinearHead):
        return LinearHead(
            _narrow(head.kernel * width[:, None]), _narrow(head.bias + middle @ head.kernel)
        )
    assert isinstance(head, CurvedHead)
    return replace(
        head,
        project_kernel=_narrow(head.project_kernel * width[:, None]),
        project_bias=_narrow(head.project_bias + middle @ head.project_kernel),
    )


def _narrow(values: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.asarray(values, np.float32)
    return result
