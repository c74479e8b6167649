"""The upper part of a divided network, as the training step sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.depthwise import quick_depthwise
from kindsight.models.divided import DividedNetwork, layers_after
from kindsight.models.forward import KerasForward
from kindsight.models.heads import LOGITS
from kindsight.models.precision import multiplying

__all__ = ["DividedForward"]

# The head is fitted already, to thousands of numbers at once: at the pace of the layers below, the
# first steps would undo it.
HEAD_PACE = 0.1


class DividedForward(KerasForward):
    """A divided network: its upper part learns, without dropout, from what passes the cut.

    Parameters
    ----------
    network : DividedNetwork
    given : callable
        From a batch as the loop has it to the arrays that `network.upper` takes.
    precision : str
        In which numbers convolutions over all channels are multiplied in a step, ``"float32"`` or
        ``"bfloat16"`` (see :mod:`.precision`); weights, what is judged and what is written are
        float32 in any case.
    """

    # Without normalisation over batches, a part of a batch gives what it gives in the whole.
    sharded = True

    def __init__(
        self,
        network: DividedNetwork,
        given: Callable[[Any], Sequence[NDArray[Any]]],
        precision: str = "float32",
    ) -> None:
        super().__init__(network.upper)
        self._upper, self._given, self._precision = network.upper, given, precision
        self.parameters = [
            replace(
                item,
                kernel=len(item.pieces[0].shape) > 1,
                pace=HEAD_PACE if item.name.startswith(LOGITS) else 1.0,
            )
            for item in self.parameters
        ]
        # Its batch normalisations are folded, or stay as they are.
        self.others = []
        self.model = network.full

    def arrays(self, pictures: Any) -> Any:
        """Return what passes the cut, as float32."""
        return [np.asarray(array, np.float32) for array in self._given(pictures)]

    def begin(self, what: str | int) -> list[bool]:
        """Freeze a stage and what lies below it, or nothing; say which parameters learn."""
        if what == "none":
            return [True] * len(self.parameters)
        learning = layers_after(self._upper, str(what))
        return [item.name.split("/")[0] in learning for item in self.parameters]

    def _below(self, pictures: Any) -> Any:
        return pictures

    def _above(self, below: Any, *, learning: bool) -> Any:
        if not learning:
            return self._upper(below, training=False)
        with multiplying(self._upper, self._precision), quick_depthwise(self._upper):
            return self._upper(below, training=False)
