"""Networks whose logits are a mean of others': of two networks', or of one's over flipped views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kindsight.models.views import AXES

__all__ = ["TOGETHER", "TUNED", "answering_together", "over_views"]

TOGETHER, TUNED = "together", "tuned"
"""By these names the layer that adds up two networks' logits is known, and one that was tuned."""


def answering_together(full: Any, frozen: Any, share: float) -> Any:
    """Return a network whose logits are a weighted mean of two networks'.

    Parameters
    ----------
    full, frozen : keras.Model
        Pixels to logits. Where they have the input in common, what they share is run once.
    share : float
        Of the first, 0-1.
    """
    import keras

    other = frozen.output if frozen.input is full.input else frozen(full.input)
    parts = [
        keras.layers.Rescaling(weight)(logits)
        for weight, logits in ((share, full.output), (1 - share, other))
    ]
    return keras.Model(full.input, keras.layers.Add(name=TOGETHER)(parts), name=full.name)


def over_views(full: Any, views: Sequence[int]) -> Any:
    """Return a network whose logits are the mean of a network's over flipped views of a picture.

    Parameters
    ----------
    full : keras.Model
        Pixels to logits; a layer of the result.
    views : sequence of int
        Numbers of :data:`.views.FLIPS`.
    """
    import keras

    pixels = keras.Input(full.input_shape[1:], name=full.input.name)

    def look(view: int) -> Any:
        picture = pixels
        for axis in AXES[view]:  # one at a time is all that older versions of Keras do
            picture = keras.ops.flip(picture, axis)
        return full(picture)

    logits = keras.layers.Average(name="views")([look(view) for view in views])
    return keras.Model(pixels, logits, name=f"{full.name}_views")
