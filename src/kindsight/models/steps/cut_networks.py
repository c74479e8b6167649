"""A backbone that learns, as the training step sees it: what is frozen below is only run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.graph import output_of
from kindsight.models.heads.head import LOGITS
from kindsight.models.heads.trainable import is_head_layer
from kindsight.models.networks.fine_tuned import FineTunedNetwork, layers_after
from kindsight.models.networks.freezing import freeze, freeze_batch_norm, frozen_border
from kindsight.models.networks.transfer import BuiltTransfer, TransferNetwork, build_transfer
from kindsight.models.steps.compute_dtype import multiplying
from kindsight.models.steps.forward import KerasForward

__all__ = [
    "FineTunedForward",
    "TransferForward",
    "depthwise",
    "quick_depthwise",
]

# SECTION: A faster gradient for the kernels of depthwise convolutions, three columns of them at
# once.
#
# oneDNN, which multiplies for TensorFlow, has quick code for the gradient of a depthwise kernel
# of up
# to three columns, however many rows; a kernel of five by five takes it ten times as long. So the
# gradient of the three columns in the middle is asked for at once, and that of each column beside
# them as of a kernel of one column, over an image moved by as much. The numbers are the same but
# for
# the rounding.

# Columns on each side of the middle one that oneDNN is quick with.
QUICK = 1


@contextlib.contextmanager
def quick_depthwise(model: Any) -> Iterator[None]:
    """Trace a Keras model's depthwise convolutions with that gradient, while the block runs.

    Those of strides, of gaps between the taps, or of three columns at most stay as they are.
    """
    layers = [layer for layer in model.layers if _gains(layer)]
    for layer in layers:
        layer.call = functools.partial(_call, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _gains(layer: Any) -> bool:
    return (
        type(layer).__name__ == "DepthwiseConv2D"
        and (layer.padding, layer.data_format) == ("same", "channels_last")
        and tuple(layer.strides) == tuple(layer.dilation_rate) == (1, 1)
        and layer.depth_multiplier == 1
        and layer.kernel_size[1] % 2 == 1
        and layer.kernel_size[1] > 2 * QUICK + 1
        and layer.input.shape[2] is not None
    )


def _call(layer: Any, inputs: Any) -> Any:
    """Do what the layer does."""
    import tensorflow as tf

    outputs = depthwise(inputs, tf.convert_to_tensor(layer.kernel))
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(layer.bias))
    return outputs if layer.activation is None else layer.activation(outputs)


def depthwise(images: Any, kernel: Any) -> Any:
    """Convolve each channel with a kernel of its own, zeros around the edges.

    Parameters
    ----------
    images : tf.Tensor
        float32 (n, height, width, channels); the width is known when this is traced.
    kernel : tf.Tensor
        float32 (rows, columns, channels, 1), an odd number of columns.

    Returns
    -------
    tf.Tensor
        Of the images' shape.
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
    """Return the gradient of a kernel, column by column but for those in the middle."""
    import tensorflow as tf

    width, channels = images.shape[2], images.shape[3]

    def of_columns(images: Any, upstream: Any, columns: int) -> Any:
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=images, filter_sizes=[rows, columns, channels, 1], out_backprop=upstream,
            strides=[1, 1, 1, 1], padding="SAME",
        )  # fmt: skip

    def beside(offset: int) -> Any:
        if abs(offset) >= width:  # it only ever saw the zeros
            return tf.zeros((rows, 1, channels, 1), images.dtype)
        left, right = slice(0, width - abs(offset)), slice(abs(offset), width)
        seen, heard = (right, left) if offset > 0 else (left, right)
        return of_columns(images[:, :, seen], upstream[:, :, heard], 1)

    reach = columns // 2
    before = [beside(offset) for offset in range(-reach, -QUICK)]
    after = [beside(offset) for offset in range(QUICK + 1, reach + 1)]
    return tf.concat([*before, of_columns(images, upstream, 2 * QUICK + 1), *after], 1)


class TransferForward(KerasForward):
    """A backbone with a head, of which some layers learn in each phase.

    In a phase it is in two parts: below a border nothing learns, and runs as in use (no dropout,
    batch normalisation as it was learned); above it the gradient goes. Images are given as
    pixels (uint8), and run through both, or as what the lower part gives (float16), where that
    was computed before.

    Parameters
    ----------
    network : TransferNetwork
    classes, seed : int
        As :func:`.transfer.build_transfer` takes them.
    compute_dtype : str
        In which numbers convolutions over all channels are multiplied above the border in a step.
    """

    def __init__(
        self, network: TransferNetwork, classes: int, seed: int, compute_dtype: str = "float32"
    ) -> None:
        self._built: BuiltTransfer = build_transfer(network, classes, seed)
        self._network, self._compute_dtype = network, compute_dtype
        self._lower: Any = None
        self._upper = self._built.model
        # With everything trainable that is in any phase: these are learned, others change beside.
        learning = set().union(*self._built.learning)
        for layer in self._built.base.layers:
            layer.trainable = layer.name in learning
        if not network.train_batch_norm:
            freeze_batch_norm(self._built.base)
        super().__init__(self._built.model, lambda name: network.head.l2 * is_head_layer(name))
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
        freeze(base, what, train_normalisation=self._network.train_batch_norm)
        border = frozen_border(base, {item.name for item in base.layers if item.trainable_weights})
        self._lower, self._upper = None, model
        if border is not None:
            maps = output_of(base, border.name)
            self._lower = keras.Model(base.input, maps)
            self._upper = keras.Model(maps, model.output)
        learning = {variable.path for variable in model.trainable_variables}
        return [item.name in learning for item in self.parameters]

    def _below(self, images: Any) -> Any:
        """Run pixels through what is frozen; what it gives is taken as it is."""
        import tensorflow as tf

        x = tf.cast(images, tf.float32)
        if self._lower is None or images.dtype != tf.uint8:
            return x
        return self._lower(x, training=False)

    def _above(self, below: Any, *, learning: bool) -> Any:
        if not learning:
            return self._upper(below, training=False)
        with multiplying(self._upper, self._compute_dtype), quick_depthwise(self._upper):
            return self._upper(below, training=True)


# SECTION: The upper part of a divided network, as the training step sees it.

# The head is fitted already, to thousands of numbers at once: at the pace of the layers below, the
# first steps would undo it.
HEAD_PACE = 0.1


class FineTunedForward(KerasForward):
    """A divided network: its upper part learns, without dropout, from what passes the cut.

    Parameters
    ----------
    network : FineTunedNetwork
    given : callable
        From a batch as the loop has it to the arrays that `network.upper` takes.
    compute_dtype : str
        In which numbers convolutions over all channels are multiplied in a step, ``"float32"`` or
        ``"bfloat16"`` (see :mod:`.compute_dtype`); weights, what is judged and what is written are
        float32 in any case.
    """

    # Without normalisation over batches, a part of a batch gives what it gives in the whole.
    sharded = True

    def __init__(
        self,
        network: FineTunedNetwork,
        given: Callable[[Any], Sequence[NDArray[Any]]],
        compute_dtype: str = "float32",
    ) -> None:
        super().__init__(network.upper)
        self._upper, self._given, self._compute_dtype = network.upper, given, compute_dtype
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

    def arrays(self, images: Any) -> Any:
        """Return what passes the cut, as float32."""
        return [np.asarray(array, np.float32) for array in self._given(images)]

    def begin(self, what: str | int) -> list[bool]:
        """Freeze a stage and what lies below it, or nothing; say which parameters learn."""
        if what == "none":
            return [True] * len(self.parameters)
        learning = layers_after(self._upper, str(what))
        return [item.name.split("/")[0] in learning for item in self.parameters]

    def _below(self, images: Any) -> Any:
        return images

    def _above(self, below: Any, *, learning: bool) -> Any:
        if not learning:
            return self._upper(below, training=False)
        with multiplying(self._upper, self._compute_dtype), quick_depthwise(self._upper):
            return self._upper(below, training=False)
