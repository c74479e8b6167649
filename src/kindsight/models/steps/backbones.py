"""Forward passes of backbones in training: transfer networks and fine-tuned networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.graph import output_of
from kindsight.models.heads.head import LOGITS
from kindsight.models.heads.trainable import is_head_layer
from kindsight.models.networks.fine_tuned import FineTunedNetwork, layers_after
from kindsight.models.networks.freezing import freeze, freeze_batch_norm, last_frozen_layer
from kindsight.models.networks.transfer import BuiltTransfer, TransferNetwork, build_transfer
from kindsight.models.steps.compute_dtype import computing_in
from kindsight.models.steps.depthwise import fast_depthwise_gradients
from kindsight.models.steps.forward import KerasForward

__all__ = ["FineTunedForward", "TransferForward"]

# The head is fitted already; at the full learning rate the first steps would undo that.
HEAD_LEARNING_RATE = 0.1  # share of the learning rate


class TransferForward(KerasForward):
    """A backbone with a head, with other frozen layers in each phase.

    In a phase the layers below a cut are frozen and run in inference mode; gradients are computed
    above it, where `compute_dtype` applies. Inputs are pixels (uint8), or cached activations of the
    frozen layers (float16).
    """

    def __init__(
        self, network: TransferNetwork, classes: int, seed: int, compute_dtype: str = "float32"
    ) -> None:
        self._built: BuiltTransfer = build_transfer(network, classes, seed)
        self._network, self._compute_dtype = network, compute_dtype
        self._frozen: Any = None
        self._top = self._built.model
        # Make trainable what is so in any phase: these are the parameters.
        trainable = set().union(*self._built.trainable)
        for layer in self._built.base.layers:
            layer.trainable = layer.name in trainable
        if not network.train_batch_norm:
            freeze_batch_norm(self._built.base)
        super().__init__(self._built.model, lambda name: network.head.l2 * is_head_layer(name))
        known = {layer.name for layer in self._built.base.layers}
        self.others = [
            (path, value)
            for path, value in self.others
            if path.split("/")[0] in trainable or path.split("/")[0] not in known
        ]

    def begin(self, frozen: str | int) -> list[bool]:
        """Freeze layers; return which of the parameters are trained."""
        import keras

        base, model = self._built.base, self._built.model
        freeze(base, frozen, train_batch_norm=self._network.train_batch_norm)
        cut = last_frozen_layer(base, {item.name for item in base.layers if item.trainable_weights})
        self._frozen, self._top = None, model
        if cut is not None:
            activations = output_of(base, cut.name)
            self._frozen = keras.Model(base.input, activations)
            self._top = keras.Model(activations, model.output)
        trainable = {variable.path for variable in model.trainable_variables}
        return [item.name in trainable for item in self.parameters]

    def _below(self, images: Any) -> Any:
        import tensorflow as tf

        x = tf.cast(images, tf.float32)
        if self._frozen is None or images.dtype != tf.uint8:
            return x
        return self._frozen(x, training=False)

    def _above(self, below: Any, *, training: bool) -> Any:
        if not training:
            return self._top(below, training=False)
        with computing_in(self._compute_dtype, self._top), fast_depthwise_gradients(self._top):
            return self._top(below, training=True)


class FineTunedForward(KerasForward):
    """A fine-tuned network: its top is trained, without dropout, on activations at the cut.

    `inputs_of` maps a batch of the training loop to the inputs of `network.top`; `compute_dtype` is
    of convolutions in training steps, while weights, evaluation and files are float32.
    """

    # Without batch normalisation, a shard of a batch has the same outputs as in the whole batch.
    sharded = True

    def __init__(
        self,
        network: FineTunedNetwork,
        inputs_of: Callable[[Any], Sequence[NDArray[Any]]],
        compute_dtype: str = "float32",
    ) -> None:
        super().__init__(network.top)
        self._top, self._inputs_of, self._compute_dtype = network.top, inputs_of, compute_dtype
        self.parameters = [
            replace(
                item,
                decayed=len(item.pieces[0].shape) > 1,
                rate=HEAD_LEARNING_RATE if item.name.startswith(LOGITS) else 1.0,
            )
            for item in self.parameters
        ]
        # Its batch normalisation is folded, or frozen.
        self.others = []
        self.model = network.full

    def arrays(self, images: Any) -> Any:
        """Return the inputs of the top, as float32."""
        return [np.asarray(array, np.float32) for array in self._inputs_of(images)]

    def begin(self, frozen: str | int) -> list[bool]:
        """Freeze the layers up to a stage, or none; return which parameters are trained."""
        if frozen == "none":
            return [True] * len(self.parameters)
        trainable = layers_after(self._top, str(frozen))
        return [item.name.split("/")[0] in trainable for item in self.parameters]

    def _below(self, images: Any) -> Any:
        return images

    def _above(self, below: Any, *, training: bool) -> Any:
        if not training:
            return self._top(below, training=False)
        with computing_in(self._compute_dtype, self._top), fast_depthwise_gradients(self._top):
            return self._top(below, training=False)
