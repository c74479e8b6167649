"""The jobs of the process with Keras and TensorFlow, and a SavedModel's signatures."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from kindsight.export.target import OOD_SCORE, PROBABILITIES, SERVE_BYTES
from kindsight.images import InputSpec
from kindsight.images.resize import PAD_VALUE
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.worker.serve import Connection, Job, serve

__all__ = [
    "IMAGE_BYTES",
    "decode",
    "main",
    "resize",
]

EXIF_BYTES = 1 << 16
"""Number of bytes at the start of a JPEG file in which EXIF data are searched."""

MAX_ENTRIES = 64
"""Maximum number of EXIF entries that are read."""

ORIENTATION = 0x0112


def serves(spec: InputSpec) -> bool:
    """Return whether these operations support `spec`; cubic and nearest are not implemented."""
    return spec.interpolation in ("auto", "area", "linear")


def decode(content: Any, target: tuple[int, int]) -> Any:
    """Return the image of a JPEG, PNG, GIF or BMP file: uint8 (height, width, 3), upright.

    As kindsight does, large JPEG files are decoded at a half, a quarter or an eighth of their size,
    if that is not below `target`, and transparent pixels are blended with white.
    """

    def jpeg() -> Any:
        shape, orientation = tf.io.extract_jpeg_shape(content), _orientation(content)
        stored = tf.where(orientation >= 5, tf.constant(target[::-1]), tf.constant(target))
        ratio = tf.reduce_min(shape[:2] // stored)

        def at(factor: int) -> Any:
            pixels = tf.io.decode_jpeg(
                content, channels=3, ratio=factor, dct_method="INTEGER_ACCURATE"
            )
            used = (shape[:2] + factor // 2) // factor
            return pixels[: used[0], : used[1]]

        cases = [(ratio >= factor, lambda f=factor: at(f)) for factor in (8, 4, 2)]
        pixels = tf.case(cases, default=lambda: at(1))
        return _upright(pixels, orientation)

    def other() -> Any:
        pixels = tf.io.decode_image(content, channels=4, expand_animations=False)
        alpha = tf.cast(pixels[..., 3:], tf.int32)
        colours = tf.cast(pixels[..., :3], tf.int32)
        blended = (colours * alpha + 255 * (255 - alpha) + 127) // 255
        return tf.cast(blended, tf.uint8)

    image = tf.cond(tf.io.is_jpeg(content), jpeg, other)
    return tf.ensure_shape(image, (None, None, 3))


def _orientation(content: Any) -> Any:
    """Return the EXIF orientation of a JPEG file, 1 to 8; 1 without one."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, EXIF_BYTES), tf.uint8), tf.int32)
    # Zeros after the end, so that every offset of a damaged file can be read.
    head = tf.concat([head, tf.zeros([16 + 12 * MAX_ENTRIES], tf.int32)], 0)
    size = tf.size(head)
    starts = tf.ones([size - 5], tf.bool)
    for offset, byte in enumerate(b"Exif\0\0"):
        starts &= head[offset : size - 5 + offset] == byte
    found = tf.reshape(tf.where(starts), [-1])
    exists = tf.size(found) > 0
    base = tf.where(exists, tf.cast(tf.reduce_min(found), tf.int32) + 6, 0)
    big = tf.gather(head, base) == ord("M")

    def number(position: Any, width: int) -> Any:
        safe = tf.clip_by_value(position, 0, size - width)
        parts = [tf.gather(head, safe + k) for k in range(width)]
        forward = sum(part * 256 ** (width - 1 - k) for k, part in enumerate(parts))
        backward = sum(part * 256**k for k, part in enumerate(parts))
        return tf.where(big, forward, backward)

    table = base + number(base + 4, 4)
    entries = table + 2 + 12 * tf.range(MAX_ENTRIES)
    valid = (tf.range(MAX_ENTRIES) < number(table, 2)) & (number(entries, 2) == ORIENTATION)
    value = tf.reduce_max(tf.where(valid, number(entries + 8, 2), 0))
    return tf.where(exists & (value >= 1) & (value <= 8), value, 1)


def _upright(image: Any, orientation: Any) -> Any:
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    for axis, values in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        turned = tf.reduce_any(orientation == tf.constant(values))
        mirrored = image
        image = tf.cond(turned, lambda m=mirrored, a=axis: tf.reverse(m, [a]), lambda m=mirrored: m)
    return image


def resize(image: Any, spec: InputSpec) -> Any:
    """Return an image resized as :func:`kindsight.resize_image`: float32 (height, width, 3)."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    if spec.fit == "crop":
        inner_height = _side(height, _scaled(width, spec.height, spec.width))
        inner_width = _side(width, _scaled(height, spec.width, spec.height))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        image = image[top : top + inner_height, left : left + inner_width]
    if spec.fit != "pad":
        return tf.ensure_shape(_resample(image, spec.height, spec.width, spec), (*spec.size, 3))
    scale = tf.minimum(spec.height / height, spec.width / width)
    rows = _side(spec.height, tf.round(tf.cast(height, tf.float64) * scale))
    columns = _side(spec.width, tf.round(tf.cast(width, tf.float64) * scale))
    top, left = (spec.height - rows) // 2, (spec.width - columns) // 2
    inner = _resample(image, rows, columns, spec)
    paddings = [[top, spec.height - rows - top], [left, spec.width - columns - left], [0, 0]]
    padded = tf.pad(inner, paddings, constant_values=float(PAD_VALUE))
    return tf.ensure_shape(padded, (*spec.size, 3))


def _scaled(side: Any, numerator: int, denominator: int) -> Any:
    """Return side * numerator / denominator, rounded half to even as Python does."""
    product = tf.cast(side, tf.float64) * float(numerator) / float(denominator)
    return tf.round(product)


def _side(limit: Any, value: Any) -> Any:
    return tf.minimum(limit, tf.maximum(1, tf.cast(value, tf.int32)))


def _resample(image: Any, height: Any, width: Any, spec: InputSpec) -> Any:
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]

    def area() -> Any:
        shrunk = tf.stack([tf.minimum(height, rows), tf.minimum(width, columns)])
        pixels = tf.cast(image, tf.float32)[None]
        averaged = tf.raw_ops.ResizeArea(images=pixels, size=shrunk, align_corners=False)
        # For 2 x 2 pixels, OpenCV rounds halves up; for others, to the even number.
        half = (rows == 2 * shrunk[0]) & (columns == 2 * shrunk[1])
        rounded = tf.where(half, tf.floor(averaged[0] + 0.5), tf.round(averaged[0]))
        return _linear(rounded, height, width)

    def linear() -> Any:
        # At exactly half the size, linear interpolation also averages 2 x 2 pixels.
        half = (rows == 2 * height) & (columns == 2 * width)
        return tf.cond(half, area, lambda: _linear(image, height, width))

    if spec.interpolation == "area":
        return area()
    if spec.interpolation == "linear":
        return linear()
    return tf.cond((rows > 2 * height) | (columns > 2 * width), area, linear)


def _linear(image: Any, height: Any, width: Any) -> Any:
    """Return OpenCV's linear interpolation of 8-bit pixels, in its fixed point: float32."""
    pixels = tf.cast(image, tf.int32)
    top, bottom, upper, lower = _taps(tf.shape(image)[0], height)
    left, right, first, second = _taps(tf.shape(image)[1], width)

    def across(rows: Any) -> Any:
        chosen = tf.gather(pixels, rows)
        one = tf.gather(chosen, left, axis=1) * first[:, None]
        return one + tf.gather(chosen, right, axis=1) * second[:, None]

    shift = tf.bitwise.right_shift
    above = shift(upper[:, None, None] * shift(across(top), 4), 16)
    below = shift(lower[:, None, None] * shift(across(bottom), 4), 16)
    return tf.cast(shift(above + below + 2, 2), tf.float32)


def _taps(source: Any, target: Any) -> tuple[Any, Any, Any, Any]:
    """Return the two pixels of each output pixel, and their weights in 1/2048: int32."""
    scale = 1.0 / (tf.cast(target, tf.float64) / tf.cast(source, tf.float64))
    centres = (tf.cast(tf.range(target), tf.float64) + 0.5) * scale - 0.5
    position = tf.cast(centres, tf.float32)
    index = tf.floor(position)
    fraction = position - index
    # Outside the image, both pixels are the border pixel, so the weights do not matter.
    first = tf.cast(index, tf.int32)
    one, other = tf.round((1 - fraction) * 2048), tf.round(fraction * 2048)
    last = source - 1
    return (
        tf.clip_by_value(first, 0, last),
        tf.clip_by_value(first + 1, 0, last),
        tf.cast(one, tf.int32),
        tf.cast(other, tf.int32),
    )


IMAGE_BYTES = "image_bytes"
"""The input of image files: TensorFlow Serving decodes base64 where a name ends in ``_bytes``."""

OPSET = 17
"""The ONNX operator set: readable by runtimes since 2022."""


def main() -> None:
    """Run the jobs of converters with Keras until the parent ends."""
    jobs: dict[str, Job] = {"savedmodel": _saved_model, "onnx": _onnx, "coreml": _core_ml}
    serve(jobs)


def _saved_model(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Write a SavedModel with signatures for pixels and, where possible, for image files."""
    spec = InputSpec.from_dict(job["input"])
    return {"files": _write_saved_model(job["model"], job["out"], job["temperature"], spec)}


def _write_saved_model(model: str, out: str, temperature: float, spec: InputSpec | None) -> bool:
    """Write a SavedModel; return whether it takes image files, for which a `spec` is needed."""
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
        from kindsight.export.keras_jobs import decode, resize, serves

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
    """Write an ONNX file from a SavedModel.

    Keras's ``model.export(format="onnx")`` turns constants of the scaling layers into inputs.
    """
    import onnx
    from tf2onnx import convert

    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        saved, out = str(Path(folder, "saved")), str(Path(folder, "model.onnx"))
        _write_saved_model(job["model"], saved, job["temperature"], None)
        # Only the command is a documented interface.
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
    # TensorFlow sorts the outputs by name, and the converter renames them.
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
