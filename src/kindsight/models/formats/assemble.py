"""Join a backbone's built files and a fitted head into model files, without TensorFlow.

The backbone's files are made once on a machine (see :mod:`.build`); a training then differs in
its head alone. Writing the head's layers behind the backbone's takes a fraction of a second,
where starting TensorFlow, loading, saving and converting take ten.
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
from kindsight.models.formats.keras import DAMAGE, read_keras_template
from kindsight.models.formats.tflite import TfliteGraph, damage_as_weights_error, read_tflite
from kindsight.models.heads.head import FEATURES, LOGITS, Head, HeadLayer

__all__ = ["METADATA_NAME", "PIXELS", "add_tflite_metadata", "write_keras", "write_tflite"]

PIXELS = "pixels"
METADATA_NAME = "kindsight"
MAX_METADATA_BYTES = 2**20


def write_tflite(
    backbone_tflite: str | os.PathLike[str],
    head: Head,
    out: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the LiteRT file of a classifier.

    Parameters
    ----------
    backbone_tflite : path
        A built backbone: float32 (1, height, width, 3) to float32 (1, d).
    head : Head
        Of d features.
    out : path
        The file to write: ``"pixels"``, float32 (1, height, width, 3) with values 0-255, to
        ``"logits"``, float32 (1, k), with a signature ``"serving_default"`` of these names. As
        in the backbone's file, the batch can be resized.
    metadata : mapping, optional
        Put into the file as JSON under the name ``"kindsight"``.

    Raises
    ------
    WeightsError
        For a backbone's file that is absent or damaged, or has another number of features.
    SettingsError
        For metadata that JSON cannot hold, or that take more than 1 MB.
    """
    encoded = None if metadata is None else _encode(metadata)
    graph = read_tflite(backbone_tflite)
    shape = graph.shape(graph.output)
    if shape != (1, head.features):
        raise WeightsError(
            f"{backbone_tflite}: A backbone for this head must give (1, {head.features}) "
            f"features. Received: {shape}."
        )
    with damage_as_weights_error(backbone_tflite):
        tensors = {FEATURES: graph.output}
        for step in head.steps():
            _add_step(graph, step, tensors)
        graph.name_ends(PIXELS, tensors[LOGITS], LOGITS)
        if encoded is not None:
            graph.set_metadata(METADATA_NAME, encoded)
        content = graph.to_bytes()
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def add_tflite_metadata(
    network: str | os.PathLike[str], out: str | os.PathLike[str], metadata: Mapping[str, Any]
) -> None:
    """Write a network's LiteRT file again, with its ends named and with metadata.

    Parameters
    ----------
    network : path
        float32 (1, height, width, 3) to float32 (1, k).
    out : path
        The file to write, as :func:`write_tflite` writes it.
    metadata : mapping
        As there.

    Raises
    ------
    WeightsError
        For a file that is absent or damaged.
    SettingsError
        For metadata that JSON cannot hold, or that take more than 1 MB.
    """
    encoded = _encode(metadata)
    graph = read_tflite(network)
    with damage_as_weights_error(network):
        graph.name_ends(PIXELS, graph.output, LOGITS)
        graph.set_metadata(METADATA_NAME, encoded)
        content = graph.to_bytes()
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def write_keras(
    template_keras: str | os.PathLike[str], head: Head, out: str | os.PathLike[str]
) -> None:
    """Write the Keras file of a classifier.

    Parameters
    ----------
    template_keras : path
        A built backbone, from pixels to a layer ``"features"``.
    head : Head
    out : path
        The file to write, ending in ``.keras``. ``keras.models.load_model(out)`` gives a model
        from float32 (batch, height, width, 3) with values 0-255 to float32 logits (batch, k).

    Raises
    ------
    WeightsError
        For a template that is absent, damaged, of another form, or has another number of
        features.
    SettingsError
        For a name that Keras would not load.
    """
    if Path(out).suffix != ".keras":
        raise SettingsError(f"A Keras file's name must end in .keras. Received: {out}.")
    template = read_keras_template(template_keras)
    try:
        template.add(head)
    except DAMAGE as error:
        raise WeightsError(
            f"{template_keras}: A head must fit on the model. Received: {error}."
        ) from None
    with replacing(out) as temporary:
        template.write(temporary)


def _add_step(graph: TfliteGraph, step: HeadLayer, tensors: dict[str, int]) -> None:
    """Add one layer of a head to a graph, and its output to `tensors`."""
    inputs = [tensors[name] for name in step.inputs]
    if step.kind == "multiply":
        output = graph.add_operator("MUL", inputs, step.name, step.width, kind="Mul")
    elif step.kind == "concatenate":
        output = graph.add_operator(
            "CONCATENATION", inputs, step.name, step.width, kind="Concatenation", axis=1
        )
    else:
        # LiteRT keeps kernels as (outputs, inputs).
        kernel = graph.add_constant(f"{step.name}/kernel", np.transpose(np.asarray(step.kernel)))
        bias = graph.add_constant(f"{step.name}/bias", np.asarray(step.bias))
        output = graph.add_operator(
            "FULLY_CONNECTED",
            [*inputs, kernel, bias],
            step.name if step.activation == "linear" else f"{step.name}/exponent",
            step.width,
            kind="FullyConnected",
        )
        if step.activation == "exponential":
            output = graph.add_operator("EXP", [output], step.name, step.width, kind="Exp")
    tensors[step.name] = output


def _encode(metadata: Mapping[str, Any]) -> bytes:
    try:
        content = json.dumps(metadata, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"Metadata must be what JSON can hold. Received: {error}.") from None
    if len(content) > MAX_METADATA_BYTES:
        raise SettingsError(
            f"Metadata must take at most {MAX_METADATA_BYTES} bytes. Received: {len(content)}."
        )
    return content
