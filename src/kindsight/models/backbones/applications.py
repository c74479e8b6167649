"""The networks of ``keras.applications``: a table, and how they are built.

Stages are the last layers of blocks, without skip connections around them, whose maps have an
eighth of the image's height and width or less. A test compares the table with what Keras builds.

``preprocess_input`` of Keras becomes a layer of the network here, so that all take pixels of
0-255. MobileNetV3, EfficientNetV2 and ConvNeXt contain such a layer already.
"""

from __future__ import annotations

from typing import Any

from kindsight.models.backbones.backbone import SIZE_RANGE, Backbone, PublishedFile, Stage

__all__ = ["APPLICATIONS", "build_application"]

_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
_SCALINGS = {
    "signed": "pixels / 127.5 - 1",
    "torch": "(pixels / 255 - mean) / std, of ImageNet",
    "caffe": "BGR, pixels - mean of ImageNet",
    "keras": "as in Keras, by the network's first layers",
}
_AUTHORS = "the authors' weights, converted by Keras"
_TENSORFLOW = ("Apache-2.0", _AUTHORS)
_AUTOML = ("Apache-2.0", "github.com/google/automl, converted by Keras")
_RESNET_STAGES = "conv2_block3_out=256 conv3_block4_out=512 conv4_block6_out=1024"


def _application(  # noqa: PLR0913 - the columns of the table
    name: str,
    builder: str,
    size: int,
    parameters: int,
    top_width: int,
    scaling: str,
    weights: tuple[str, str],
    file: str,
    digest: str,
    *,
    stages: str,
    cuts: str = "",
    min_size: int = SIZE_RANGE[0],
) -> Backbone:
    """Return a row of the table; `stages` are "layer=channels ...", the default of `cuts`."""
    channels = dict(stage.split("=") for stage in stages.split())
    file = file.replace("*", "_weights_tf_dim_ordering_tf_kernels_notop.h5")
    return Backbone(
        name=name,
        size=(size, size),
        parameters=parameters,
        licence=weights[0],
        weights_source=weights[1],
        scaling=_SCALINGS[scaling],
        stages=tuple(Stage(layer, int(width)) for layer, width in channels.items()),
        top_width=top_width,
        min_size=min_size,
        cuts=tuple(cuts.split() or channels),
        builder=builder,
        published=PublishedFile(_URL + file, digest),
    )


_LIST = (
    _application(
        "inception-v3", "InceptionV3", 299, 21_802_784, 2048, "signed", _TENSORFLOW,
        "inception_v3/inception_v3*", "bcbd6486424b2319ff4ef7d526e38f63",
        stages="mixed2=288 mixed5=768 mixed7=768", min_size=75,
        cuts="mixed0 mixed1 mixed2 mixed3 mixed4 mixed5 mixed6 mixed7 mixed8 mixed9 mixed10",
    ),
    _application(
        "mobilenet-v2", "MobileNetV2", 224, 2_257_984, 1280, "signed", _TENSORFLOW,
        "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", "",
        stages="block_5_add=32 block_9_add=64 block_12_add=96 block_15_add=160",
        cuts="block_2_add block_5_add block_9_add block_12_add block_15_add",
    ),
    _application(
        "mobilenet-v3-small", "MobileNetV3Small", 224, 939_120, 576, "keras", _TENSORFLOW,
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836",
        stages="expanded_conv_2_add=24 expanded_conv_5_add=40 expanded_conv_7_add=48 "
        "expanded_conv_10_add=96",
    ),
    _application(
        "mobilenet-v3-large", "MobileNetV3Large", 224, 2_996_352, 960, "keras", _TENSORFLOW,
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389",
        stages="expanded_conv_5_add=40 expanded_conv_9_add=80 expanded_conv_11_add=112 "
        "expanded_conv_14_add=160",
        cuts="expanded_conv_2_add expanded_conv_5_add expanded_conv_9_add expanded_conv_11_add "
        "expanded_conv_14_add",
    ),
    _application(
        "efficientnet-v2-b0", "EfficientNetV2B0", 224, 5_919_312, 1280, "keras", _AUTOML,
        "efficientnet_v2/efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff",
        stages="block3b_add=48 block4c_add=96 block5e_add=112 block6h_add=192",
    ),
    _application(
        "efficientnet-v2-b1", "EfficientNetV2B1", 240, 6_931_124, 1280, "keras", _AUTOML,
        "efficientnet_v2/efficientnetv2-b1_notop.h5", "0e80663031ca32d657f9caa404b6ec37",
        stages="block3c_add=48 block4d_add=96 block5f_add=112 block6i_add=192",
    ),
    _application(
        "efficientnet-v2-b2", "EfficientNetV2B2", 260, 8_769_374, 1408, "keras", _AUTOML,
        "efficientnet_v2/efficientnetv2-b2_notop.h5", "1dfe2e7a5d45b6632553a8961ea609eb",
        stages="block3c_add=56 block4d_add=104 block5f_add=120 block6j_add=208",
    ),
    _application(
        "efficientnet-v2-b3", "EfficientNetV2B3", 300, 12_930_622, 1536, "keras", _AUTOML,
        "efficientnet_v2/efficientnetv2-b3_notop.h5", "f6abf7b5849ac99a89b50dd3fd532856",
        stages="block3c_add=56 block4e_add=112 block5g_add=136 block6l_add=232",
    ),
    _application(
        "efficientnet-v2-s", "EfficientNetV2S", 384, 20_331_360, 1280, "keras", _AUTOML,
        "efficientnet_v2/efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070",
        stages="block3d_add=64 block4f_add=128 block5i_add=160 block6o_add=256",
    ),
    _application(
        "resnet50", "ResNet50", 224, 23_587_712, 2048, "caffe",
        ("MIT", "K. He's weights, converted by Keras"),
        "resnet/resnet50*", "4d473c1dd8becc155b73f8504c6f6626", stages=_RESNET_STAGES,
    ),
    _application(
        "resnet50-v2", "ResNet50V2", 224, 23_564_800, 2048, "signed",
        ("BSD-3-Clause", "Facebook's weights, converted by Keras"),
        "resnet/resnet50v2*", "fac2f116257151a9d068a22e544a4917", stages=_RESNET_STAGES,
    ),
    _application(
        "densenet121", "DenseNet121", 224, 7_037_504, 1024, "torch", ("BSD-3-Clause", _AUTHORS),
        "densenet/densenet121*", "30ee3e1110167f948a6b9946edeeb738",
        stages="pool2_conv=128 pool3_conv=256 pool4_conv=512",
    ),
    _application(
        "xception", "Xception", 299, 20_861_480, 2048, "signed",
        ("MIT", "trained by the author of Keras"),
        "xception/xception*", "b0042744bf5b25fce3cb969f33bebb97",
        stages="add_1=256 add_6=728 add_10=728", min_size=71, cuts="add add_1 add_6 add_10 add_11",
    ),
    _application(
        "vgg16", "VGG16", 224, 14_714_688, 512, "caffe",
        ("CC-BY-4.0", "VGG at Oxford, converted by Keras"),
        "vgg16/vgg16*", "6d6bbae143d832006294945121d1f1fc",
        stages="block3_pool=256 block4_pool=512",
        cuts="block2_pool block3_pool block4_pool block5_pool",
    ),
    _application(
        "convnext-tiny", "ConvNeXtTiny", 224, 27_820_128, 768, "keras", ("MIT", _AUTHORS),
        "convnext/convnext_tiny_notop.h5",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        stages="add_5=192 add_10=384 add_14=384", cuts="add_2 add_5 add_10 add_14",
    ),
)  # fmt: skip

APPLICATIONS = {backbone.name: backbone for backbone in _LIST}

# Mean and standard deviation of ImageNet's pixels: RGB on the scale 0-1, and BGR on 0-255, as in
# keras.applications.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


def build_application(backbone: Backbone, size: tuple[int, int]) -> Any:
    """Build a network of ``keras.applications`` without its classifier, with random weights.

    The model maps float32 (batch, height, width, 3) with values 0-255 to its last feature maps.
    """
    import keras

    # Keras numbers the layers that it names, from the start of a session on.
    keras.utils.clear_session()
    pixels = keras.Input((*size, 3), name="pixels")
    build = getattr(keras.applications, backbone.builder)
    network = build(
        include_top=False,
        weights=None,
        input_tensor=_scale(pixels, backbone.scaling),
        input_shape=(*size, 3),
    )
    return keras.Model(pixels, network.output, name=backbone.name.replace("-", "_"))


def _scale(pixels: Any, scaling: str) -> Any:
    """Scale pixels as the network's ``preprocess_input`` does."""
    import keras

    layers = keras.layers
    if scaling == _SCALINGS["signed"]:
        return layers.Rescaling(1 / 127.5, -1.0, name="scaling")(pixels)
    if scaling == _SCALINGS["torch"]:
        mean = [255 * value for value in _MEAN]
        variance = [(255 * value) ** 2 for value in _STD]
        return layers.Normalization(mean=mean, variance=variance, name="scaling")(pixels)
    if scaling == _SCALINGS["caffe"]:
        bgr = keras.ops.flip(pixels, axis=-1)
        return layers.Normalization(mean=_CAFFE_MEAN, variance=(1.0,) * 3, name="scaling")(bgr)
    return pixels
