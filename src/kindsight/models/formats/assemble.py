"""Write a classifier's model files from a backbone's files and a fitted head, without TensorFlow.

Appending a head to files that are built once per machine (:mod:`.backbones.build`) takes a fraction
of a second; starting TensorFlow, loading, saving and converting would take ten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.errors import SettingsError, WeightsError
from kindsight.files import replacing
from kindsight.models.formats.keras import DAMAGE, add_score, read_keras_template
from kindsight.models.formats.tflite import (
    TfliteGraph,
    compact,
    damage_as_weights_error,
    read_tflite,
)
from kindsight.models.heads import FEATURES, LOGITS, Head, HeadLayer
from kindsight.models.ood import OOD_SCORE, OODScore, output_layers

__all__ = [
    "METADATA_NAME", "PIXELS", "finish_keras", "finish_tflite", "write_keras", "write_tflite",
]  # fmt: skip

PIXELS = "pixels"
METADATA_NAME = "kindsight"
MAX_METADATA_BYTES = 2**20


def write_tflite(
    backbone_tflite: str | os.PathLike[str],
    head: Head,
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
    score: OODScore | None = None,
) -> None:
    """Write the LiteRT file of a classifier from a built backbone.

    The file maps ``"pixels"``, float32 (1, height, width, 3) with values 0-255, to ``"logits"``,
    float32 (1, k), and, with a score, to ``"ood_score"``, float32 (1, 1), with a signature
    ``"serving_default"`` of these names. It stores `metadata` as
    JSON under the name ``"kindsight"``. WeightsError for a backbone file that is missing or
    damaged, or has another number of features; SettingsError for metadata that is not JSON, or
    larger than 1 MB.
    """
    encoded = None if metadata is None else _encode(metadata)
    graph = read_tflite(backbone_tflite)
    shape = graph.shape(graph.output)
    if shape != (1, head.features):
        raise WeightsError(
            f"The head needs {head.features} features, but {backbone_tflite} gives {shape}."
        )
    with damage_as_weights_error(backbone_tflite):
        tensors = {FEATURES: graph.output}
        for layer in output_layers(head, score):
            _add_layer(graph, layer, tensors)
        names = (LOGITS,) if score is None else (LOGITS, OOD_SCORE)
        graph.name_ends(PIXELS, {name: tensors[name] for name in names})
        if encoded is not None:
            graph.set_metadata(METADATA_NAME, encoded)
        content = graph.to_bytes()
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def finish_tflite(
    network: str | os.PathLike[str],
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    score: OODScore | None = None,
) -> None:
    """Copy a network's LiteRT file, and name its ends and add metadata as :func:`write_tflite`.

    `score` is computed from the network's second output, which is left out. WeightsError where
    that is missing or has another width.
    """
    encoded = _encode(metadata)
    graph = read_tflite(network)
    with damage_as_weights_error(network):
        ends = {LOGITS: graph.output}
        if score is not None:
            features = graph.second_output
            if features is None or graph.shape(features) != (1, score.features):
                raise ValueError(f"it has no second output of {score.features} values")
            tensors = {FEATURES: features, LOGITS: graph.output}
            for layer in score.layers(graph.shape(graph.output)[1]):
                _add_layer(graph, layer, tensors)
            ends[OOD_SCORE] = tensors[OOD_SCORE]
        graph.name_ends(PIXELS, ends)
        graph.set_metadata(METADATA_NAME, encoded)
        content = compact(bytes(graph.to_bytes()))
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def write_keras(
    template_keras: str | os.PathLike[str],
    head: Head,
    out: str | os.PathLike[str],
    score: OODScore | None = None,
) -> None:
    """Write the Keras file of a classifier from a backbone's file, the template.

    ``keras.models.load_model(out)`` returns a model from float32 (batch, height, width, 3) with
    values 0-255 to float32 logits (batch, k), and with a score to the list of these and the scores,
    (batch, 1). WeightsError for a template that is missing, damaged,
    or has another number of features; SettingsError for a name that does not end in ``.keras``.
    """
    if Path(out).suffix != ".keras":
        raise SettingsError(f"A Keras file's name must end in .keras; got {out}.")
    template = read_keras_template(template_keras)
    try:
        template.add(head, score)
    except DAMAGE as error:
        raise WeightsError(f"Cannot add the head to {template_keras}: {error}.") from None
    with replacing(out) as temporary:
        template.write(temporary)


def finish_keras(
    network: str | os.PathLike[str],
    out: str | os.PathLike[str],
    classes: int,
    score: OODScore | None = None,
) -> None:
    """Copy a network's Keras file, with `score` in place of its second output, if it has one.

    WeightsError for a file that is damaged, or without features for the score.
    """
    try:
        content = add_score(Path(network), classes, score)
    except DAMAGE as error:
        raise WeightsError(f"Cannot add a score to {network}: {error}.") from None
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def _add_layer(graph: TfliteGraph, layer: HeadLayer, tensors: dict[str, int]) -> None:
    inputs = [tensors[name] for name in layer.inputs]
    if layer.kind == "multiply":
        output = graph.add_operator("MUL", inputs, layer.name, layer.width, kind="Mul")
    elif layer.kind == "column":  # the maximum is taken over the values themselves
        output = inputs[0]
    elif layer.kind == "maximum":
        axis = graph.add_constant(f"{layer.name}/axis", np.array([1]))
        output = graph.add_operator(
            "REDUCE_MAX", [inputs[0], axis], layer.name, layer.width, kind="Reducer", keepDims=True
        )
    elif layer.kind == "concatenate":
        output = graph.add_operator(
            "CONCATENATION", inputs, layer.name, layer.width, kind="Concatenation", axis=1
        )
    else:
        # LiteRT stores kernels as (outputs, inputs).
        kernel = graph.add_constant(f"{layer.name}/kernel", np.transpose(np.asarray(layer.kernel)))
        bias = graph.add_constant(f"{layer.name}/bias", np.asarray(layer.bias))
        output = graph.add_operator(
            "FULLY_CONNECTED",
            [*inputs, kernel, bias],
            layer.name if layer.activation == "linear" else f"{layer.name}/exponent",
            layer.width,
            kind="FullyConnected",
        )
        if layer.activation == "exponential":
            output = graph.add_operator("EXP", [output], layer.name, layer.width, kind="Exp")
    tensors[layer.name] = output


def _encode(metadata: Mapping[str, Any]) -> bytes:
    try:
        content = json.dumps(metadata, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"Metadata must be JSON: {error}.") from None
    if len(content) > MAX_METADATA_BYTES:
        raise SettingsError(
            f"Metadata may have at most {MAX_METADATA_BYTES} bytes; got {len(content)}."
        )
    return content
