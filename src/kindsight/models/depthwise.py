"""A faster gradient for the kernels of depthwise convolutions, three columns of them at once.

oneDNN, which multiplies for TensorFlow, has quick code for the gradient of a depthwise kernel of up
to three columns, however many rows; a kernel of five by five takes it ten times as long. So the
gradient of the three columns in the middle is asked for at once, and that of each column beside
them as of a kernel of one column, over a picture moved by as much. The numbers are the same but for
the rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

__all__ = ["depthwise", "quick_depthwise"]

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


def depthwise(pictures: Any, kernel: Any) -> Any:
    """Convolve each channel with a kernel of its own, zeros around the edges.

    Parameters
    ----------
    pictures : tf.Tensor
        float32 (n, height, width, channels); the width is known when this is traced.
    kernel : tf.Tensor
        float32 (rows, columns, channels, 1), an odd number of columns.

    Returns
    -------
    tf.Tensor
        Of the pictures' shape.
    """
    import tensorflow as tf

    step, same = [1, 1, 1, 1], "SAME"

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(pictures: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            below = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(pictures), filter=kernel, out_backprop=upstream,
                strides=step, padding=same,
            )  # fmt: skip
            return below, _kernel_gradient(pictures, upstream, *kernel.shape[:2])

        return tf.nn.depthwise_conv2d(pictures, kernel, step, same), gradient

    return convolve(pictures, kernel)


def _kernel_gradient(pictures: Any, upstream: Any, rows: int, columns: int) -> Any:
    """Return the gradient of a kernel, column by column but for those in the middle."""
    import tensorflow as tf

    width, channels = pictures.shape[2], pictures.shape[3]

    def of_columns(pictures: Any, upstream: Any, columns: int) -> Any:
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=pictures, filter_sizes=[rows, columns, channels, 1], out_backprop=upstream,
            strides=[1, 1, 1, 1], padding="SAME",
        )  # fmt: skip

    def beside(offset: int) -> Any:
        if abs(offset) >= width:  # it only ever saw the zeros
            return tf.zeros((rows, 1, channels, 1), pictures.dtype)
        left, right = slice(0, width - abs(offset)), slice(abs(offset), width)
        seen, heard = (right, left) if offset > 0 else (left, right)
        return of_columns(pictures[:, :, seen], upstream[:, :, heard], 1)

    reach = columns // 2
    before = [beside(offset) for offset in range(-reach, -QUICK)]
    after = [beside(offset) for offset in range(QUICK + 1, reach + 1)]
    return tf.concat([*before, of_columns(pictures, upstream, 2 * QUICK + 1), *after], 1)
