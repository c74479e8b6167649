"""Gradients of depthwise kernels by columns equal TensorFlow's, for any image and kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.models.steps.backbones import depthwise, fast_depthwise_gradients


def gradients(convolve, images, kernel, upstream):
    import tensorflow as tf

    images, kernel = tf.constant(images), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        total = tf.reduce_sum(convolve(images, kernel) * upstream)
    return [np.asarray(part) for part in tape.gradient(total, [images, kernel])]


def by_hand(images, upstream, rows, columns):
    """Sum what each tap of the kernel saw, times what was wanted of it."""
    (_, height, width, channels), down, right = images.shape, (rows - 1) // 2, columns // 2
    edges = ((0, 0), (down, rows - 1 - down), (right, right), (0, 0))
    padded, found = np.pad(images.astype(np.float64), edges), np.empty((rows, columns, channels))
    for row in range(rows):
        for column in range(columns):
            seen = padded[:, row : row + height, column : column + width]
            found[row, column] = (seen * upstream).sum((0, 1, 2))
    return found[..., None]


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*(st.integers(1, most) for most in (3, 6, 9, 5))),
    st.sampled_from([(5, 5), (3, 5), (7, 7), (1, 7), (4, 5), (3, 3), (5, 9)]),
    st.integers(0, 2**32 - 1),
)
def test_gradients_by_hand(shape, kernel, seed):
    import tensorflow as tf

    random = np.random.default_rng(seed)
    images = random.normal(size=shape).astype(np.float32)
    taps = random.normal(size=(*kernel, shape[-1], 1)).astype(np.float32)
    upstream = random.normal(size=shape).astype(np.float32)
    below, found = gradients(depthwise, images, taps, upstream)
    np.testing.assert_allclose(found, by_hand(images, upstream, *kernel), atol=1e-4)

    def plain(images, kernel):
        return tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME")

    expected = gradients(plain, images, taps, upstream)
    np.testing.assert_allclose(below, expected[0], atol=1e-5)
    np.testing.assert_allclose(found, expected[1], atol=1e-4)


@pytest.mark.parametrize(
    ("more", "quick"),
    [
        ({}, True),
        ({"use_bias": False, "activation": "relu"}, True),
        ({"kernel_size": 3}, False),
        ({"strides": 2}, False),
        ({"dilation_rate": 2}, False),
        ({"padding": "valid"}, False),
        ({"depth_multiplier": 2}, False),
    ],
)
def test_layers_compute_the_same_with_fast_gradients(more, quick):
    import keras
    import tensorflow as tf

    settings = {"kernel_size": 5, "padding": "same", "bias_initializer": "ones", **more}
    pixels = keras.Input((8, 9, 3))
    layer = keras.layers.DepthwiseConv2D(**settings)
    model = keras.Model(pixels, layer(pixels))
    images = np.random.default_rng(0).normal(size=(2, 8, 9, 3)).astype(np.float32)

    def learn():
        with tf.GradientTape() as tape:
            answer = model(images)
            total = tf.reduce_sum(answer * answer)
        return [np.asarray(answer), *map(np.asarray, tape.gradient(total, layer.trainable_weights))]

    before = learn()
    with fast_depthwise_gradients(model):
        assert ("call" in vars(layer)) is quick
        found = learn()
    assert "call" not in vars(layer)
    for one, other in zip(found, before, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
