"""Every format on several kinds of classifiers: files, outputs, and what the file says itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.bundle import load_bundle
from kindsight.export.images import images_of_run
from kindsight.export.litert import count_convolutions, count_int8_weights
from kindsight.export.run import export_bundle
from kindsight.export.targets import find_targets
from kindsight.predictor import Predictor

pytestmark = pytest.mark.slow

KINDS = ("small-cnn", "ensemble")


def own_network(path: Path, filters: int) -> Path:
    """Write a small Keras network with a batch normalisation and a residual connection."""
    import keras

    keras.utils.set_random_seed(filters)
    layers = keras.layers
    pixels = keras.Input((40, 40, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(filters, 1)(y)])
    x = layers.Conv2D(2 * filters, 3, strides=2, padding="same", activation="relu")(x)
    keras.Model(pixels, layers.GlobalAveragePooling2D()(x), name=f"own{filters}").save(path)
    return path


@pytest.fixture(scope="module")
def runs(photos, machine_cache, tmp_path_factory):
    """A small CNN, and a head on two small networks with flips at prediction time."""
    from kindsight.runs.train import TrainSettings, train

    folder = tmp_path_factory.mktemp("runs")
    networks = [own_network(folder / f"own{filters}.keras", filters) for filters in (8, 12)]
    common = {"runs": str(folder), "seed": 3}
    cnn = TrainSettings(str(photos), model="small-cnn", size=32, epochs=2, **common)
    model = "+".join(map(str, networks))
    both = TrainSettings(str(photos), model=model, size=40, tta_flips=2, **common)
    return {"small-cnn": train(cnn).run, "ensemble": train(both).run}


def export(run, names: str, out: Path, images: int = 12):
    bundle = load_bundle(run)
    targets = find_targets(names)
    found = list(export_bundle(bundle, targets, out, images_of_run(bundle, images)))
    problems = {each.target.name: each.faults for each in found if each.status == "failed"}
    assert not problems
    return bundle, {each.target.name: each for each in found}


def new_images(bundle, count: int = 5) -> np.ndarray:
    random = np.random.default_rng(9)
    coarse = random.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    size = bundle.spec.size[::-1]
    return np.stack([np.asarray(Image.fromarray(image).resize(size)) for image in coarse])


def expected(bundle, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions = list(Predictor(bundle).predict(list(images)))
    probabilities = np.array([each.probabilities for each in predictions])
    return probabilities, np.array([each.ood_score for each in predictions])


@pytest.mark.parametrize("kind", KINDS)
def test_litert_formats(runs, kind, tmp_path):
    names = "litert,litert-float16,litert-dynamic,litert-int8"
    _, found = export(runs[kind], names, tmp_path)
    assert found["litert"].proof.largest < 1e-5
    assert found["litert-float16"].size < 0.7 * found["litert"].size
    int8 = (tmp_path / "litert-int8" / "model.tflite").read_bytes()
    integer, total = count_convolutions(int8)
    assert integer == total >= 3
    dynamic = (tmp_path / "litert-dynamic" / "model.tflite").read_bytes()
    assert count_int8_weights(dynamic) == (total, total) and count_convolutions(dynamic)[0] == 0
    assert found["litert-int8"].size < 0.6 * found["litert"].size


@pytest.mark.parametrize("kind", KINDS)
def test_onnx(runs, kind, tmp_path):
    import onnx
    import onnxruntime

    bundle, found = export(runs[kind], "onnx", tmp_path)
    path = tmp_path / "onnx" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # Constants of scaling layers have become required inputs in other ways of converting.
    assert [(end.name, end.shape[0]) for end in session.get_inputs()] == [("pixels", "batch")]
    assert [end.name for end in session.get_outputs()] == ["probabilities", "ood_score"]
    images = new_images(bundle)
    probabilities, scores = session.run(None, {"pixels": images.astype(np.float32)})
    ours, our_scores = expected(bundle, images)
    assert probabilities == pytest.approx(ours, abs=1e-4)
    assert scores[:, 0] == pytest.approx(our_scores, rel=1e-3, abs=1e-3)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(properties["classes"]) == list(bundle.classes)
    assert json.loads(properties["kindsight"])["input"]["resize"] == bundle.spec.to_dict()
    assert found["onnx"].proof.unknown_agreeing == found["onnx"].proof.images


@pytest.mark.parametrize("kind", KINDS)
def test_openvino(runs, kind, tmp_path):
    import openvino

    both = kind == "ensemble"
    names = "openvino,openvino-float16" if both else "openvino"
    bundle, found = export(runs[kind], names, tmp_path)
    model = openvino.Core().compile_model(str(tmp_path / "openvino" / "model.xml"), "CPU")
    images = new_images(bundle)
    ours, _ = expected(bundle, images)
    dynamic = model.input("pixels").get_partial_shape()[0].is_dynamic
    for batch in [images] if dynamic else images[:, None]:
        result = model({"pixels": batch.astype(np.float32)})
        rows = slice(None) if dynamic else slice(0, 1)
        assert result["probabilities"] == pytest.approx(ours[rows], abs=2e-2)
        ours = ours[len(batch) :]
    assert not both or found["openvino-float16"].size < 0.8 * found["openvino"].size


def test_saved_model(runs, tmp_path):
    bundle, found = export(runs["ensemble"], "savedmodel", tmp_path)
    proof = found["savedmodel"].proof
    assert proof.from_files.images + proof.from_files.unreadable == proof.images
    assert proof.from_files.agreeing == proof.from_files.images > 0
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.fromarray(new_images(bundle, 1)[0]).resize((90, 61))
    files = []
    for options in ({"format": "PNG"}, {"format": "JPEG", "exif": exif, "quality": 95}):
        buffer = io.BytesIO()
        picture.save(buffer, **options)
        files.append(buffer.getvalue())
    (target,) = find_targets("savedmodel")
    model = target.open(tmp_path / "savedmodel")
    try:
        probabilities, _ = model.predict_files([*files, files[1][:100]])
    finally:
        model.close()
    assert np.isnan(probabilities[2]).all()
    predictor = Predictor(bundle)
    for file, found_probabilities in zip(files, probabilities, strict=False):
        ours = predictor.predict_bytes(file).probabilities
        assert found_probabilities == pytest.approx(ours, abs=0.002)


def test_core_ml(runs, tmp_path):
    import coremltools

    bundle, found = export(runs["small-cnn"], "coreml", tmp_path)
    package = tmp_path / "coreml" / "model.mlpackage"
    spec = coremltools.utils.load_spec(str(package))
    (pixels,) = spec.description.input
    assert pixels.name == "pixels"
    assert (pixels.type.imageType.height, pixels.type.imageType.width) == bundle.spec.size
    shapes = {end.name: list(end.type.multiArrayType.shape) for end in spec.description.output}
    assert shapes == {"probabilities": [1, 3], "ood_score": [1, 1]}
    stored = dict(spec.description.metadata.userDefined)
    assert json.loads(stored["classes"]) == list(bundle.classes)
    proof = json.loads((tmp_path / "coreml" / "export.json").read_text())
    expected_status = "unproven" if found["coreml"].proof is None else "proved"
    assert proof["status"] == expected_status


def test_the_operations_of_the_serving_signature_are_kindsight_s():
    """Decoding and resizing give kindsight's pixels, for every fit and EXIF orientation."""
    import tensorflow as tf

    from kindsight.export.keras_jobs import decode, resize
    from kindsight.images import InputSpec, read_image, resize_image

    random = np.random.default_rng(4)
    for fit in ("stretch", "crop", "pad"):
        spec = InputSpec(48, 40, fit)

        @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
        def run(content, spec=spec):
            return resize(decode(content, spec.size), spec)

        for number, (height, width) in enumerate([(60, 71), (20, 90), (96, 80), (480, 401)]):
            coarse = random.integers(0, 256, (height // 7 + 2, width // 7 + 2, 4), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((width, height))
            exif = Image.Exif()
            exif[274] = 5 + number
            for chosen, options in (
                (image, {"format": "PNG"}),
                (image.convert("RGB"), {"format": "JPEG", "exif": exif}),
                (image.convert("L"), {"format": "JPEG"}),
            ):
                buffer = io.BytesIO()
                chosen.save(buffer, **options)
                ours = resize_image(read_image(buffer.getvalue(), target=spec.size), spec)
                theirs = run(tf.constant(buffer.getvalue())).numpy()
                difference = np.abs(ours.astype(int) - theirs)
                # Sums of an area in another order may round a half to the other number.
                assert difference.max() <= 1, (fit, height, width, options)
                assert (difference > 0).mean() <= 0.02, (fit, height, width, options)


def test_openvino_is_imported_without_its_telemetry():
    code = """
import os, sys, time
os.register_at_fork(before=lambda: os._exit(3))
from kindsight.export.openvino import import_openvino
assert import_openvino().Core().available_devices
assert "openvino_telemetry.main" not in sys.modules
time.sleep(1)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr
