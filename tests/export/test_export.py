"""Exports without further packages: the LiteRT files, the comparison, the command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tiny_bundle
from kindsight.bundle import load_bundle
from kindsight.classifier import ImageClassifier
from kindsight.dataset import ImageDataset
from kindsight.errors import ParityError, SettingsError, UsageError
from kindsight.export.images import ExportImages, Reference, choose_images, images_of_run
from kindsight.export.litert import (
    FLOAT32_TARGET,
    count_convolutions,
    probabilities_tflite,
    to_float16,
)
from kindsight.export.proof import compare
from kindsight.export.run import export_bundle
from kindsight.export.target import FLOAT16, FLOAT32, INT8, Measured
from kindsight.export.targets import TARGETS, find_targets
from kindsight.models.formats.tflite import compact
from kindsight.uncertainty.prediction import Decisions, Prediction

COLOURS = [(255, 0, 0), (10, 200, 30), (40, 40, 90), (128, 128, 128)]


@pytest.fixture
def tiny(tmp_path):
    return load_bundle(tiny_bundle.write_bundle(tmp_path / "tiny", temperature=1.5))


@pytest.fixture
def patches(tmp_path):
    """A folder with images of one colour in three classes."""
    for number, (name, colour) in enumerate(list(tiny_bundle.COLOURS.items()) * 3):
        tiny_bundle.write_image(tmp_path / "patches" / name / f"{number}.png", colour)
    return tmp_path / "patches"


def run_file(content: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    interpreter = Interpreter(model_content=content)
    run = interpreter.get_signature_runner("serving_default")
    return run(pixels=image[None].astype(np.float32))


def test_the_litert_file_returns_probabilities(tiny):
    content = probabilities_tflite(tiny, {"a": 1})
    for colour in COLOURS:
        image = np.full((tiny_bundle.SIDE, tiny_bundle.SIDE, 3), colour)
        found = run_file(content, image)
        expected = [*tiny_bundle.probabilities(colour, 1.5).values()]
        assert found["probabilities"][0] == pytest.approx(expected, abs=1e-6)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (entry,) = [entry for entry in model.metadata if entry.name == b"kindsight"]
    assert json.loads(bytes(model.buffers[entry.buffer].data)) == {"a": 1}


def constants(content: bytes) -> list[tuple[int, int]]:
    """Return the type and the bytes of the constants of a file."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found = []
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None:
            found.append((tensor.type, len(data)))
    return found


def test_float16_halves_the_weights_and_keeps_the_outputs(trained):
    content = probabilities_tflite(load_bundle(trained.run), {})
    half = to_float16(content)
    assert len(half) < 0.52 * len(content)
    kinds = schema.TensorType
    large = [kind for kind, size in constants(half) if size > 8192]
    assert len(large) > 30 and set(large) == {kinds.FLOAT16}
    image = np.random.default_rng(5).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    one, other = run_file(content, image), run_file(half, image)
    for name in ("probabilities", "ood_score"):
        assert other[name] == pytest.approx(one[name], rel=0.02, abs=0.02)
        assert not np.array_equal(one[name], other[name])


def test_a_compact_file_has_little_but_its_constants(trained):
    bundle = load_bundle(trained.run)
    content = compact(bundle.tflite.read_bytes())
    assert len(content) < 1.05 * sum(size for _, size in constants(content)) + 200_000
    image = np.random.default_rng(6).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    before, after = run_file(bundle.tflite.read_bytes(), image), run_file(content, image)
    assert np.array_equal(before["logits"], after["logits"])
    model = schema.Model.GetRootAs(content, 0)
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if buffer.DataLength():
            # LiteRT reads weights in place.
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
    assert count_convolutions(content) == (0, 49)


def reference(probabilities: list[list[float]], scores: list[float | None], labels: list[str]):
    classes = ("a", "b")
    predictions = [
        Prediction(f"{row}.png", classes, None, np.array(values, np.float32), ood_score=score)
        for row, (values, score) in enumerate(zip(probabilities, scores, strict=True))
    ]
    pixels = np.zeros((len(labels), 2, 2, 3), np.uint8)
    dataset = ImageDataset.from_arrays(list(pixels), labels)
    images = ExportImages(dataset, "validation", 9, dataset)
    return Reference(images, tuple(range(len(labels))), pixels, tuple(predictions), 1)


def test_the_comparison_by_hand():
    ours = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5]]
    theirs = [[0.8, 0.2], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]]
    outputs = np.array(theirs, np.float32), np.array([1.0, 2.0, 3.5, 4.0], np.float32)
    found = compare(
        Measured(outputs, 0.01, 100.0),
        reference(ours, [1.0, 2.0, 2.5, 4.0], ["a", "b", "a", "a"]),
        Decisions(unknown=3.0),
    )
    assert (found.images, found.skipped, found.agreeing) == (4, 1, 3)
    assert found.description == "4 of 9 validation images"
    assert found.largest == pytest.approx(0.2) and found.mean == pytest.approx(0.6 / 8)
    assert found.accuracy.accuracy == 0.75 and found.exported_accuracy.accuracy == 0.5
    assert found.largest_score == pytest.approx(1 / 3) and found.unknown_agreeing == 3
    (differing,) = found.differing
    assert (differing.path, differing.label, differing.exported_label) == ("1.png", "b", "a")
    assert (differing.probability, differing.exported_probability) == pytest.approx((0.6, 0.6))
    faults = " ".join(found.faults(FLOAT32))
    assert "1 of 4 images get a different label" in faults and "differs by 0.2" in faults
    assert "accuracy differs by 25.0 points" in " ".join(found.faults(INT8))


def test_an_export_that_returns_nan_or_lost_the_score_is_faulty():
    ours = reference([[0.9, 0.1]] * 2, [1.0, 2.0], ["a", "b"])
    broken = np.full((2, 2), np.nan, np.float32), None
    found = compare(Measured(broken, 0.01, 1.0), ours, Decisions(unknown=3.0))
    faults = " ".join(found.faults(FLOAT32))
    assert "differs by 1" in faults and "no finite ood_score" in faults
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_bounds_of_each_format():
    bounds = {name: target.bounds for name, target in TARGETS.items()}
    assert (FLOAT32.labels, FLOAT32.probability) == (1.0, 1e-3)
    assert (FLOAT16.labels, INT8.labels, INT8.accuracy) == (0.999, 0.98, 0.01)
    assert bounds["litert"] == bounds["onnx"] == bounds["openvino"] == FLOAT32
    assert bounds["savedmodel"] == bounds["coreml"] == FLOAT32
    assert bounds["litert-float16"] == bounds["openvino-float16"] == FLOAT16
    assert bounds["litert-int8"] == bounds["litert-dynamic"] == INT8


def test_names_of_formats():
    assert [t.name for t in find_targets("onnx, litert,onnx")] == ["onnx", "litert"]
    assert [t.name for t in find_targets(["litert", "openvino"])] == ["litert", "openvino"]
    with pytest.raises(SettingsError, match="Did you mean openvino"):
        find_targets("openvin0")
    with pytest.raises(SettingsError, match="at least one"):
        find_targets(" , ")


def test_validation_images_are_compared_and_training_images_calibrate():
    arrays = np.zeros((60, 4, 4, 3), np.uint8)
    data = ImageDataset.from_arrays(arrays, ["a", "b"] * 30)
    splits = ["train"] * 40 + ["validation"] * 15 + ["test"] * 5
    chosen = choose_images(data, splits, 10, ("a", "b"))
    again = choose_images(data, splits, 10, ("a", "b"))
    validation, train = set(data.path[40:55]), set(data.path[:40])
    assert len(chosen.compared) == 10 and set(chosen.compared.path) <= validation
    assert set(chosen.calibration.path) == train
    assert chosen.compared.path == again.compared.path
    assert chosen.description == "10 of 15 validation images"
    without = choose_images(data, [None] * 60, 20, ("a", "b"))
    assert len(without.compared) == 20 and len(without.calibration) == 40
    assert not set(without.compared.path) & set(without.calibration.path)
    assert len(choose_images(data, ["train"] * 60, 100, ("a", "b")).calibration) == 60
    with pytest.raises(UsageError, match="at least 1"):
        choose_images(data, splits, 0, ("a", "b"))


@dataclass(frozen=True)
class Reversed:
    """A format whose probabilities belong to other classes."""

    name: str = "reversed"
    title: str = "reversed"
    extra: str | None = None
    bounds: Any = FLOAT32
    needs_calibration: bool = False
    own_process: bool = True

    def check(self, bundle):
        pass

    def convert(self, bundle, folder, calibration):
        return FLOAT32_TARGET.convert(bundle, folder, calibration)

    def open(self, folder):
        model = FLOAT32_TARGET.open(folder)

        class Backwards:
            def predict(self, pixels):
                probabilities, scores = model.predict(pixels)
                return probabilities[:, ::-1], scores

            def close(self):
                model.close()

        return Backwards()

    def runtime(self):
        return {}


def test_a_wrong_export_is_not_written_unless_accepted(tiny, patches, tmp_path):
    data = ImageDataset.open(patches)
    images = choose_images(data, data.split, 9, tiny.classes)
    out = tmp_path / "out"
    (found,) = export_bundle(tiny, [Reversed()], out, images)
    assert found.status == "failed" and not out.exists()
    assert found.proof.agreeing == 3  # the middle class
    assert found.proof.exported_accuracy.accuracy == pytest.approx(1 / 3)
    (found,) = export_bundle(tiny, [Reversed()], out, images, accept=True)
    assert found.status == "accepted" and found.faults
    written = json.loads((out / "reversed" / "export.json").read_text())
    assert written["status"] == "accepted" and written["proof"]["label_agreement"] == 1 / 3
    assert {each["exported_label"] for each in written["proof"]["differing"]} == {"red", "blue"}
    with pytest.raises(UsageError, match="exists"):
        list(export_bundle(tiny, [Reversed()], out, images))


def test_a_conversion_that_fails_leaves_the_others(tiny, patches, tmp_path, monkeypatch):
    data = ImageDataset.open(patches)
    images = choose_images(data, data.split, 9, tiny.classes)

    class Failing(Reversed):
        def convert(self, bundle, folder, calibration):
            (folder / "half").write_text("half")
            raise UsageError("This network cannot be converted.")

    failing = Failing("failing")
    found = list(export_bundle(tiny, [failing, FLOAT32_TARGET], tmp_path / "out", images))
    assert [each.status for each in found] == ["failed", "proved"]
    assert found[0].faults == ("This network cannot be converted.",)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["litert"]


def test_a_classifier_exports_itself(trained, tmp_path):
    classifier = ImageClassifier.load(trained.run)
    (found,) = classifier.export(tmp_path / "out", "litert-float16", images=7)
    assert found.status == "proved" and found.proof.images == 7
    assert found.proof.description.endswith("validation images")
    assert set(images_of_run(load_bundle(trained.run)).compared.split) <= {None, "validation"}
    with pytest.raises(UsageError, match="exists"):
        classifier.export(tmp_path / "out", "litert-float16")
    with pytest.raises(SettingsError, match="got 'tflite'"):
        classifier.export(tmp_path / "out", "tflite")


def test_a_classifier_says_which_export_failed(tiny, patches, tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "reversed", Reversed())
    classifier = ImageClassifier.load(tiny.folder)
    with pytest.raises(ParityError, match="reversed: 6 of 9 images get a different label"):
        classifier.export(tmp_path / "out", ["litert", "reversed"], patches)
    assert (tmp_path / "out" / "litert" / "model.tflite").is_file()
    assert not (tmp_path / "out" / "reversed").exists()


def test_the_files_of_an_export(trained, tmp_path):
    classifier = ImageClassifier.load(trained.run)
    (found,) = classifier.export(tmp_path / "out", images=5)
    folder = Path(found.folder)
    assert (folder / "labels.txt").read_text() == "bar\nchequer\nring\n"
    facts = json.loads((folder / "model.json").read_text())
    bundle = load_bundle(trained.run)
    assert facts["classes"] == ["bar", "chequer", "ring"]
    assert facts["input"]["resize"] == bundle.spec.to_dict()
    assert facts["outputs"] == ["probabilities", "ood_score"]
    assert facts["thresholds"]["unknown"] == bundle.uncertainty["unknown"]["threshold"]
    proof = json.loads((folder / "export.json").read_text())
    assert proof["status"] == "proved" and proof["target"] == "litert"
    assert proof["bytes"] == (folder / "model.tflite").stat().st_size
    assert proof["proof"]["images"] == 5 and proof["proof"]["cold_start_seconds"] > 0
    assert proof["proof"]["probability_difference"]["largest"] < 1e-6
    assert {"kindsight", "ai-edge-litert"} <= set(proof["versions"])
