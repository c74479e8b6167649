"""A faster gradient of the kernels of depthwise convolutions.

oneDNN computes the gradient of a depthwise kernel fast for up to three columns; a 5x5 kernel takes
ten times as long. So the gradient is computed for the three middle columns together, and for each
outer column as that of a one-column kernel on shifted images. The result differs by rounding only.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

__all__ = ["depthwise", "fast_depthwise_gradients"]

# Columns on each side of the middle one for which oneDNN is fast.
FAST_COLUMNS = 1


@contextlib.contextmanager
def fast_depthwise_gradients(model: Any) -> Iterator[None]:
    """Trace a Keras model's depthwise convolutions with this gradient while the block runs.

    Those with strides, dilation or at most three columns are not changed.
    """
    layers = [layer for layer in model.layers if _is_faster(layer)]
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
