"""The jobs of the process that converts with Keras and TensorFlow."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kindsight.export.target import OOD_SCORE, PROBABILITIES, SERVE_BYTES
from kindsight.images import InputSpec
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.worker.serve import Connection, Job, serve

__all__ = ["IMAGE_BYTES", "main"]

IMAGE_BYTES = "image_bytes"
"""The input of image files: TensorFlow Serving decodes base64 where a name ends in ``_bytes``."""

OPSET = 17
"""The ONNX operator set: readable by runtimes from 2022 on."""


def main() -> None:
    """Run the jobs of converters with Keras until the parent ends."""
    jobs: dict[str, Job] = {"savedmodel": _saved_model, "onnx": _onnx, "coreml": _core_ml}
    serve(jobs)


def _saved_model(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Write a SavedModel with signatures for pixels and, where possible, for image files."""
    spec = InputSpec.from_dict(job["input"])
    return {"files": _write_saved_model(job["model"], job["out"], job["temperature"], spec)}


def _write_saved_model(model: str, out: str, temperature: float, spec: InputSpec | None) -> bool:
    """Write a SavedModel; return whether it takes image files. Only pixels without a `spec`."""
    import tensorflow as tf

    network, outputs = _load(model, temperature)
    shape = (None, *network.input_shape[1:])
    module = tf.Module()
    module.network = network
    module.serve_pixels = tf.function(
        outputs, input_signature=[tf.TensorSpec(shape, tf.float32, name=PIXELS)], autograph=False
    )
    signatures = {"serving_default": module.serve_pixels}
    if spec is not None:
        from kindsight.export.serving import decode, resize, serves

        if serves(spec):

            def from_files(contents: Any) -> dict[str, Any]:
                pixels = tf.map_fn(
                    lambda content: resize(decode(content, spec.size), spec), contents,
                    fn_output_signature=tf.TensorSpec((*spec.size, 3), tf.float32),
                )  # fmt: skip
                return outputs(pixels)

            module.serve_bytes = tf.function(
                from_files, input_signature=[tf.TensorSpec((None,), tf.string, name=IMAGE_BYTES)],
                autograph=False,
            )  # fmt: skip
            signatures[SERVE_BYTES] = module.serve_bytes
    tf.saved_model.save(module, out, signatures=signatures)
    return SERVE_BYTES in signatures


def _load(model: str, temperature: float) -> tuple[Any, Callable[[Any], dict[str, Any]]]:
    """Return a Keras model and a function from pixels to its outputs by name."""
    import keras
    import tensorflow as tf

    network = keras.models.load_model(model, compile=False)

    def outputs(pixels: Any) -> dict[str, Any]:
        found = network(pixels, training=False)
        logits, *scores = found if isinstance(found, (list, tuple)) else [found]
        named = {PROBABILITIES: tf.nn.softmax(logits / temperature)}
        return {**named, OOD_SCORE: scores[0]} if scores else named

    return network, outputs


def _onnx(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Write an ONNX file by way of a SavedModel.

    ``model.export(format="onnx")`` of Keras makes inputs of constants in the scaling layers.
    """
    import onnx
    from tf2onnx import convert

    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        saved, out = str(Path(folder, "saved")), str(Path(folder, "model.onnx"))
        _write_saved_model(job["model"], saved, job["temperature"], None)
        # The documented interface is the command.
        sys.argv = [
            "tf2onnx", "--saved-model", saved, "--tag", "serve", "--signature_def",
            "serving_default", "--opset", str(OPSET), "--output", out,
        ]  # fmt: skip
        convert.main()
        model = onnx.load(out)
    ends = sorted(model.graph.output, key=lambda end: end.name != PROBABILITIES)
    del model.graph.output[:]
    model.graph.output.extend(ends)
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, job["properties"])
    onnx.checker.check_model(model)
    Path(job["out"]).write_bytes(model.SerializeToString())
    return {"inputs": [end.name for end in model.graph.input]}


def _core_ml(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Write an ML package whose input is an RGB image of the network's size."""
    import coremltools as ct
    import tensorflow as tf

    network, outputs = _load(job["model"], job["temperature"])
    shape = (1, *network.input_shape[1:])
    function = tf.function(
        outputs, input_signature=[tf.TensorSpec(shape, tf.float32, name=PIXELS)], autograph=False
    ).get_concrete_function()
    model = ct.convert(
        [function], source="tensorflow", convert_to="mlprogram",
        inputs=[ct.ImageType(name=PIXELS, shape=shape, color_layout=ct.colorlayout.RGB)],
        minimum_deployment_target=ct.target.iOS16, compute_precision=ct.precision.FLOAT32,
    )  # fmt: skip
    spec = model.get_spec()
    # TensorFlow sorts the outputs by name, and the converter gives them names of its own.
    names = sorted(function.structured_outputs)
    for output, name in zip([each.name for each in spec.description.output], names, strict=True):
        ct.utils.rename_feature(spec, output, name)
    renamed = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    renamed.user_defined_metadata.update(job["properties"])
    renamed.save(job["out"])
    return {
        "outputs": {
            each.name: list(each.type.multiArrayType.shape) for each in spec.description.output
        }
    }
