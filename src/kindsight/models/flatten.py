"""Copy a user's own network, with the networks nested in it, into one graph of layers.

Transfer learning models often contain a pretrained network as a single layer. In one graph, its
layers have stages, cut points and names like all others. Augmentation layers are left out, since
they do nothing in prediction, and every layer computes in float32. A layer of a nested network has
the path ``outer/inner``, see :func:`.graph.layer_path`.
"""

from __future__ import annotations

from typing import Any

from kindsight.models.formats.load_keras import is_augmentation
from kindsight.models.graph import as_functional, last_maps, name_of_path, output_of, run_graph

__all__ = ["flat_backbone"]

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
