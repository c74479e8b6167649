"""Forward passes of backbones in training: transfer networks and fine-tuned networks.

The gradient of the kernels of depthwise convolutions is a faster one. oneDNN computes it fast for
up to three columns; a 5x5 kernel takes ten times as long. So it is computed for the three middle
columns together, and for each outer column as that of a one-column kernel on shifted images. The
result differs by rounding only.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.graph import output_of
from kindsight.models.heads import LOGITS
from kindsight.models.networks.fine_tuned import (
    FineTunedNetwork,
    freeze,
    freeze_batch_norm,
    last_frozen_layer,
    layers_after,
)
from kindsight.models.networks.keras_heads import is_head_layer
from kindsight.models.networks.transfer import BuiltTransfer, TransferNetwork, build_transfer
from kindsight.models.steps.compute_dtype import computing_in
from kindsight.models.steps.forward import KerasForward
from kindsight.models.worker.device import on_gpu

__all__ = ["FineTunedForward", "TransferForward", "depthwise", "fast_depthwise_gradients"]

# The head is fitted already; at the full learning rate the first steps would undo that.
HEAD_LEARNING_RATE = 0.1  # share of the learning rate
# Columns on each side of the middle one for which oneDNN is fast.
FAST_COLUMNS = 1


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


@contextlib.contextmanager
def fast_depthwise_gradients(model: Any) -> Iterator[None]:
    """Trace a Keras model's depthwise convolutions with this gradient while the block runs.

    Those with strides, dilation or at most three columns are not changed, nor any on a GPU.
    """
    layers = [] if on_gpu() else [layer for layer in model.layers if _is_faster(layer)]
    for layer in layers:
        layer.call = functools.partial(_call, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _is_faster(layer: Any) -> bool:
    return (
        type(layer).__name__ == "DepthwiseConv2D"
        and (layer.padding, layer.data_format) == ("same", "channels_last")
        and tuple(layer.strides) == tuple(layer.dilation_rate) == (1, 1)
        and layer.depth_multiplier == 1
        and layer.kernel_size[1] % 2 == 1
        and layer.kernel_size[1] > 2 * FAST_COLUMNS + 1
        and layer.input.shape[2] is not None
    )


def _call(layer: Any, inputs: Any) -> Any:
    import tensorflow as tf

    outputs = depthwise(inputs, tf.convert_to_tensor(layer.kernel))
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(layer.bias))
    return outputs if layer.activation is None else layer.activation(outputs)


def depthwise(images: Any, kernel: Any) -> Any:
    """Convolve each channel with its own kernel, padded with zeros; the shape is that of `images`.

    `images` are float32 (n, height, width, channels), with a static width; `kernel` is float32
    (rows, columns, channels, 1), with an odd number of columns.
    """
    import tensorflow as tf

    step, same = [1, 1, 1, 1], "SAME"

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(images: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            below = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream,
                strides=step, padding=same,
            )  # fmt: skip
            return below, _kernel_gradient(images, upstream, *kernel.shape[:2])

        return tf.nn.depthwise_conv2d(images, kernel, step, same), gradient

    return convolve(images, kernel)


def _kernel_gradient(images: Any, upstream: Any, rows: int, columns: int) -> Any:
    """Return the gradient of a kernel, the outer columns one by one."""
    import tensorflow as tf

    width, channels = images.shape[2], images.shape[3]

    def of_columns(images: Any, upstream: Any, columns: int) -> Any:
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=images, filter_sizes=[rows, columns, channels, 1], out_backprop=upstream,
            strides=[1, 1, 1, 1], padding="SAME",
        )  # fmt: skip

    def outer_column(offset: int) -> Any:
        if abs(offset) >= width:  # only multiplied with padding
            return tf.zeros((rows, 1, channels, 1), images.dtype)
        left, right = slice(0, width - abs(offset)), slice(abs(offset), width)
        inputs, outputs = (right, left) if offset > 0 else (left, right)
        return of_columns(images[:, :, inputs], upstream[:, :, outputs], 1)

    reach = columns // 2
    before = [outer_column(offset) for offset in range(-reach, -FAST_COLUMNS)]
    after = [outer_column(offset) for offset in range(FAST_COLUMNS + 1, reach + 1)]
    return tf.concat([*before, of_columns(images, upstream, 2 * FAST_COLUMNS + 1), *after], 1)
