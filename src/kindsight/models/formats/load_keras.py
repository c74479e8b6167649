"""Load a ``.keras`` file that is not trusted; copy nested networks into one graph of layers.

Its config names the classes and functions that Keras creates. Only those are accepted that occur
in networks for images and can neither run code from the file nor read other files; no function is
accepted by the path of its module. The model is created from the config that was checked, without
the optimizers, losses and metrics of its training.

Transfer learning models often contain a pretrained network as a single layer. In one graph, its
layers have stages, cut points and names like all others. Augmentation layers are left out, since
they do nothing in prediction, and every layer computes in float32. A layer of a nested network has
the path ``outer/inner``, see :func:`.graph.layer_path`.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.errors import WeightsError
from kindsight.models.formats.keras import CONFIG, DAMAGE, WEIGHTS, read_member
from kindsight.models.graph import (
    as_functional,
    last_maps,
    name_of_path,
    output_of,
    producer,
    run_graph,
)
from kindsight.models.ood import OOD_SCORE

__all__ = ["MAX_H5_BYTES", "check_h5", "flat_backbone", "load_keras_file", "read_keras_config"]

MAX_H5_BYTES = 4 * 10**9
"""Most bytes of an HDF5 file, and of a tensor in it."""

MAX_ITEMS = 100_000
MAX_DEPTH = 64
BFLOAT16 = np.dtype("V2")  # as h5py writes it

_MODELS = "Functional Model Sequential"
_LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
AdaptiveMaxPooling1D AdaptiveMaxPooling2D Add AdditiveAttention AlphaDropout Attention Average
AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop
Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM2D
Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense
Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
GlobalMaxPooling3D GroupNormalization GroupedQueryAttention GroupQueryAttention Identity InputLayer
LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum
Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN ReLU
RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell
Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells
Subtract TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
ZeroPadding2D ZeroPadding3D AutoContrast ContrastLimitedAdaptiveHistogramEqualization Equalization
Solarization LayerScale StochasticDepth CustomScaleLayer
"""
# Those that do nothing in prediction. RandomCrop is not among them: it also crops in prediction.
_AUGMENTATIONS = """
AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale
RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
RandomSharpness RandomShear RandomTranslation RandomZoom
"""
# Objects in the configs of layers, except policies of quantized layers: see _QUANTIZED.
_SETTINGS = """
DTypePolicy FloatDTypePolicy SeedGenerator
Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal
LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal
VarianceScaling Zeros
L1 L1L2 L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm
"""
_CLASSES = frozenset(f"{_MODELS} {_LAYERS} RandomCrop {_AUGMENTATIONS} {_SETTINGS}".split())
_AUGMENTATION_CLASSES = frozenset(_AUGMENTATIONS.split())
_CLASS_MODULES = re.compile(
    r"keras(\.(src\.)?(activations|applications|constraints|dtype_policies|engine|initializers|layers"
    r"|models|random|regularizers)(\.[a-z0-9_.]+)?)?"
)
# Operations of keras.ops; those that take a function (Map, WhileLoop, JVP) are missing.
_OPERATION_MODULES = re.compile(r"keras\.src\.ops\.(numpy|nn|image)")
_OPERATIONS = {
    "keras.src.ops.core": {
        "Cast", "ConvertToTensor", "SaturateCast", "Slice", "StopGradient", "Unstack",
    },
    "keras.src.ops.einops": {"Rearrange"},
    "keras.src.ops.linalg": {"Norm"},
    "keras.src.ops.math": {"Erf", "Logsumexp", "Rsqrt", "TopK"},
}  # fmt: skip
# Values that Keras writes as an object without a module.
_VALUES = {"__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}
_ACTIVATIONS = """
celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
"""
_QUANTIZED = re.compile(r"\w*(Quantized|Int4|Float8|GPTQ|AWQ)\w*DTypePolicy")


def is_augmentation(layer: str) -> bool:
    """Return whether a class of Keras's layers changes images at random, only in training."""
    return layer in _AUGMENTATION_CLASSES


def read_keras_config(path: Path) -> dict[str, Any]:
    """Return the checked config of a ``.keras`` file, without the settings of its training.

    WeightsError for a file that is missing, damaged, or has objects that are not accepted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(read_member(archive, CONFIG))
        if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
            raise ValueError("its config describes no model")
        config = _without_training(config)
    except OSError as error:
        raise WeightsError(
            f"The model file {path} cannot be read: {error.strerror or error}."
        ) from None
    except (*DAMAGE, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged or was not written by model.save('name.keras'): {error}."
        ) from None
    objects = list(_objects(config))
    if quantized := sorted({name for name, _ in objects if _QUANTIZED.fullmatch(name)}):
        raise WeightsError(
            f"{path} has quantized layers ({', '.join(quantized)[:200]}), which cannot be trained "
            "or converted. Save the model before it is quantized."
        )
    if refused := sorted({name for name, accepted in objects if not accepted}):
        raise WeightsError(
            f"{path} has layers or functions that are not Keras's own for images and could run "
            f"code or read other files: {', '.join(refused)[:200]}. Replace them by layers of "
            "Keras, such as Rescaling instead of Lambda, and save the model again."
        )
    assert isinstance(config, dict)
    return config


def load_keras_file(path: Path) -> Any:
    """Return the model of a ``.keras`` file, not compiled, with its logits alone. Needs Keras.

    WeightsError as for :func:`read_keras_config`, and for weights that are damaged, stored in other
    files, or of another model.
    """
    import h5py
    import keras

    config = read_keras_config(path)
    try:
        with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
            weights = Path(folder, "model.weights.h5")
            with zipfile.ZipFile(path) as archive:
                weights.write_bytes(read_member(archive, WEIGHTS))
            with h5py.File(weights, "r") as file:
                check_h5(file)
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            model.load_weights(weights)
    except Exception as error:  # whatever Keras and TensorFlow raise
        raise WeightsError(
            f"Keras {keras.__version__} cannot load {path}: it is damaged, or was saved by another "
            "version of Keras. Save it again with this version, or install the other one."
        ) from error
    return _without_score(model)


def _without_score(model: Any) -> Any:
    """Return a classifier of this project without its out-of-distribution score."""
    import keras

    outputs = getattr(model, "outputs", None) or []
    names = [producer(output).name for output in outputs]
    if names[1:] != [OOD_SCORE]:
        return model
    return keras.Model(model.inputs[0], outputs[0], name=model.name)


def check_h5(file: Any) -> None:
    """Check that an HDF5 file refers to no other file and holds numbers only; ValueError if not."""
    import h5py

    waiting, seen = [file], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > MAX_ITEMS:
                raise ValueError(f"it has more than {MAX_ITEMS} items")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"it has a link to another file: {name!r}")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)  # hard links may form a ring, which the count ends
            elif item.is_virtual or item.external:
                raise ValueError(f"its tensor {name!r} is stored in another file")
            elif item.shape != () and item.dtype.kind not in "fiu" and item.dtype != BFLOAT16:
                raise ValueError(f"its tensor {name!r} does not hold numbers")
            elif item.nbytes > MAX_H5_BYTES:
                raise ValueError(f"its tensor {name!r} has {item.nbytes} bytes")


def _without_training(value: Any, depth: int = 0) -> Any:
    """Return a config without the optimizers, losses and metrics of its models."""
    if depth > 2 * MAX_DEPTH:
        return value  # refused by _objects
    if isinstance(value, dict):
        is_object = "class_name" in value
        return {
            key: _without_training(item, depth + 1)
            for key, item in value.items()
            if not (is_object and key == "compile_config")
        }
    return (
        [_without_training(item, depth + 1) for item in value] if isinstance(value, list) else value
    )


def _objects(value: Any, depth: int = 0) -> Iterator[tuple[str, bool]]:
    """Yield the name of every object that Keras would create, and whether it is accepted."""
    if depth > MAX_DEPTH:
        yield "a model nested too deeply", False
    elif isinstance(value, Mapping):
        if "class_name" in value:
            yield str(value["class_name"]), _is_accepted(value)
        for item in value.values():
            yield from _objects(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item, depth + 1)


def _is_accepted(found: Mapping[str, Any]) -> bool:
    """Return whether Keras may create an object of a config."""
    name, module = found["class_name"], found.get("module")
    if not isinstance(name, str) or not isinstance(module, str):
        return isinstance(name, str) and name in _VALUES and module is None
    # A registered name of "Package>Class" is a user's own, whatever its module.
    if found.get("registered_name") not in (None, "", name):
        return False
    if name == "function":
        return module == "builtins" and found.get("config") in _ACTIVATIONS.split()
    if module in _OPERATIONS:
        return name in _OPERATIONS[module]
    if _OPERATION_MODULES.fullmatch(module):
        return re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) is not None
    return name in _CLASSES and _CLASS_MODULES.fullmatch(module) is not None


PIXELS = "pixels"
# Layers with these dtypes, or policies, compute in float32 instead.
_FLOATS = {"float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"}


def flat_backbone(model: Any, size: tuple[int, int], name: str) -> Any:
    """Return a network, called `name`, from pixels to the last feature maps of a user's network.

    It maps float32 (batch, height, width, 3) of the `size` in pixels to float32 (batch, h, w,
    channels). SettingsError for a network with several inputs or outputs; WeightsError for one
    without feature maps.
    """
    import keras

    pixels = keras.Input((*size, 3), name=PIXELS)
    copies: dict[int, tuple[Any, Any]] = {}
    outputs = _run(as_functional(model), pixels, (), copies)
    whole = keras.Model(pixels, outputs, name=name)
    flat = keras.Model(pixels, output_of(whole, last_maps(whole).name), name=name)
    used = {id(operation) for operation in flat.operations}
    for original, copy in copies.values():
        if id(copy) in used and getattr(copy, "weights", None):
            _copy_weights(original, copy)
    return flat


def _run(graph: Any, inputs: Any, path: tuple[str, ...], copies: dict[int, tuple[Any, Any]]) -> Any:
    """Return the outputs of a network whose name is the end of `path`; add to the copied layers."""

    def call(operation: Any, *args: Any, **named: Any) -> Any:
        if is_augmentation(type(operation).__name__):
            return args[0]
        here = (*path, str(operation.name))
        # Which layers are trained, and how, is a setting of the training.
        named.pop("training", None)
        if hasattr(operation, "layers") and hasattr(operation, "inputs"):
            return _run(getattr(operation, "_functional", None) or operation, args[0], here, copies)
        if id(operation) not in copies:
            copies[id(operation)] = operation, _copy(operation, name_of_path(here))
        return copies[id(operation)][1](*args, **named)

    return run_graph(graph, inputs, call)


def _copy(operation: Any, name: str) -> Any:
    """Return a new layer or operation with the same settings, in float32."""
    config = _in_float32(operation.get_config())
    if "name" in config:
        config["name"] = name
    return type(operation).from_config(config)


def _in_float32(value: Any) -> Any:
    """Return a config with dtypes of other precision replaced, also in configs within it."""
    if isinstance(value, dict):
        return {
            key: "float32"
            if key in ("dtype", "output_dtype") and _dtype_name(item) in _FLOATS
            else _in_float32(item)
            for key, item in value.items()
        }
    return [_in_float32(item) for item in value] if isinstance(value, list) else value


def _dtype_name(value: Any) -> str:
    """Return the name of a dtype, or of the policy of a serialised one."""
    inner = value.get("config") if isinstance(value, dict) else None
    return str(inner.get("name") if isinstance(inner, dict) else value)


def _copy_weights(original: Any, copy: Any) -> None:
    copy.set_weights(original.get_weights())
    # An adapted normalisation computes with constants made from its weights.
    if hasattr(copy, "finalize_state"):
        copy.finalize_state()
