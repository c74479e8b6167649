"""A backbone that learns, as the training step sees it: what is frozen below is only run."""

from __future__ import annotations

from typing import Any

from kindsight.models.depthwise import quick_depthwise
from kindsight.models.forward import KerasForward
from kindsight.models.freezing import freeze, frozen_border, hold_normalisation
from kindsight.models.graph import output_of
from kindsight.models.precision import multiplying
from kindsight.models.top import is_of_head
from kindsight.models.transfer import BuiltTransfer, TransferNetwork, build_transfer

__all__ = ["TransferForward"]


class TransferForward(KerasForward):
    """A backbone with a head, of which some layers learn in each phase.

    In a phase it is in two parts: below a border nothing learns, and runs as in use (no dropout,
    batch normalisation as it was learned); above it the gradient goes. Pictures are given as
    pixels (uint8), and run through both, or as what the lower part gives (float16), where that
    was computed before.

    Parameters
    ----------
    network : TransferNetwork
    classes, seed : int
        As :func:`.transfer.build_transfer` takes them.
    precision : str
        In which numbers convolutions over all channels are multiplied above the border in a step.
    """

    def __init__(
        self, network: TransferNetwork, classes: int, seed: int, precision: str = "float32"
    ) -> None:
        self._built: BuiltTransfer = build_transfer(network, classes, seed)
        self._network, self._precision = network, precision
        self._lower: Any = None
        self._upper = self._built.model
        # With everything trainable that is in any phase: these are learned, others change beside.
        learning = set().union(*self._built.learning)
        for layer in self._built.base.layers:
            layer.trainable = layer.name in learning
        if not network.train_norm:
            hold_normalisation(self._built.base)
        super().__init__(self._built.model, lambda name: network.head.l2 * is_of_head(name))
        known = {layer.name for layer in self._built.base.layers}
        self.others = [
            (path, value)
            for path, value in self.others
            if path.split("/")[0] in learning or path.split("/")[0] not in known
        ]

    def begin(self, what: str | int) -> list[bool]:
        """Freeze what is frozen in a phase; say which of the parameters learn."""
        import keras

        base, model = self._built.base, self._built.model
        freeze(base, what, train_normalisation=self._network.train_norm)
        border = frozen_border(base, {item.name for item in base.layers if item.trainable_weights})
        self._lower, self._upper = None, model
        if border is not None:
            maps = output_of(base, border.name)
            self._lower = keras.Model(base.input, maps)
            self._upper = keras.Model(maps, model.output)
        learning = {variable.path for variable in model.trainable_variables}
        return [item.name in learning for item in self.parameters]

    def _below(self, pictures: Any) -> Any:
        """Run pixels through what is frozen; what it gives is taken as it is."""
        import tensorflow as tf

        x = tf.cast(pictures, tf.float32)
        if self._lower is None or pictures.dtype != tf.uint8:
            return x
        return self._lower(x, training=False)

    def _above(self, below: Any, *, learning: bool) -> Any:
        if not learning:
            return self._upper(below, training=False)
        with multiplying(self._upper, self._precision), quick_depthwise(self._upper):
            return self._upper(below, training=True)
