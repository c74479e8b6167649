"""How a network of ``keras.applications`` is built, with its scaling.

What a network wants of pixels (``preprocess_input`` in Keras) becomes a layer of it here, so that
all take pixels of 0-255. MobileNetV3, EfficientNetV2 and ConvNeXt have that inside already.
"""

from __future__ import annotations

from typing import Any

from kindsight.models.applications import SCALINGS
from kindsight.models.backbone import Backbone

__all__ = ["build_application"]

# Of ImageNet's pixels on the scale 0-1 as RGB, and on 0-255 as BGR: what keras.applications takes.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def build_application(backbone: Backbone, size: tuple[int, int]) -> Any:
    """Build a network of ``keras.applications`` without its top, of random weights.

    Parameters
    ----------
    backbone : Backbone
        One of :data:`.applications.APPLICATIONS`.
    size : tuple of int
        (height, width) of the pictures in pixels.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3) with values 0-255 to its last maps.
    """
    import keras

    # Layers that Keras names by counting are counted from the start, as in the table.
    keras.utils.clear_session()
    pixels = keras.Input((*size, 3), name="pixels")
    build = getattr(keras.applications, backbone.builder)
    network = build(
        include_top=False,
        weights=None,
        input_tensor=_scale(pixels, backbone.scaling),
        input_shape=(*size, 3),
    )
    name = backbone.name.replace("-", "_")
    return keras.Model(pixels, network.output, name=name)


def _scale(pixels: Any, scaling: str) -> Any:
    """Put before a network what its ``preprocess_input`` does."""
    import keras

    layers = keras.layers
    if scaling == SCALINGS["signed"]:
        return layers.Rescaling(1 / 127.5, -1.0, name="scaling")(pixels)
    if scaling == SCALINGS["torch"]:
        mean = [255 * value for value in _MEAN]
        variance = [(255 * value) ** 2 for value in _STD]
        return layers.Normalization(mean=mean, variance=variance, name="scaling")(pixels)
    if scaling == SCALINGS["caffe"]:
        bgr = keras.ops.flip(pixels, axis=-1)
        return layers.Normalization(mean=_CAFFE_MEAN, variance=(1.0,) * 3, name="scaling")(bgr)
    return pixels
