"""The cache of built backbones: found, built, repaired, locked."""

import json
import threading
import time

import numpy as np
import pytest

from kindsight.errors import CacheError, ParityError, SettingsError, WeightsError
from kindsight.models.backbones import build
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.table import get_backbone
from kindsight.models.backbones.weights import IMAGENET_WEIGHTS
from kindsight.models.runtime import Interpreter, make_interpreter, schema

NAME = "efficientnet-lite0"


class FakeWorker:
    """Stands for a Keras worker process and writes placeholder files."""

    def __init__(self, width=None, error=None):
        self.versions = {"keras": "3"}
        self.layout = get_backbone(NAME).layout()
        self.width = self.layout.width if width is None else width
        self.error = error
        self.built = 0

    def build(
        self,
        name,
        size,
        *,
        tflite,
        keras,
        weights=None,
        seed=0,
        input_size=None,
        fold_batch_norm=True,
        layers=None,
    ):
        if self.error is not None:
            raise self.error
        self.built += 1
        tflite.write_bytes(b"litert %d" % self.built)
        keras.write_bytes(b"keras %d" % self.built)
        layout = self.layout.to_dict()
        return {"ok": True, "width": self.width, "layout": layout, "difference": 0.0}


def test_built_files_have_named_inputs_and_outputs(built):
    assert built.key.startswith("efficientnet-lite0-64x48-0a19cb5b4a16-")
    assert built.layout == get_backbone(NAME).layout()
    interpreter = make_interpreter(built.tflite)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["pixels"], "outputs": ["features"]}
    }
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    assert (source["name"], source["shape"].tolist()) == ("pixels", [1, 64, 48, 3])
    assert (target["name"], target["shape"].tolist()) == ("features", [1, built.layout.width])


def test_a_built_litert_file_has_little_but_its_weights(built):
    content = built.tflite.read_bytes()
    whole = schema().ModelT.InitFromPackedBuf(content, 0)
    weights = sum(0 if each.data is None else len(each.data) for each in whole.buffers)
    assert weights < len(content) < weights + 200_000
    model = schema().Model.GetRootAs(content, 0)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    # LiteRT reads weights in place.
    assert not any(
        each._tab.Vector(each._tab.Offset(4)) % 16 for each in buffers if each.DataLength()
    )


def test_record_of_a_build(built):
    record = json.loads((built.tflite.parent / f"{built.key}.json").read_text())
    assert record["backbone"] == NAME
    assert record["size"] == [64, 48]
    assert 0 <= record["difference"] < 1e-5
    assert record["files"]["tflite"]["digest"] == built.digest
    assert sorted(record["versions"]) == ["keras", "tensorflow"]


def test_batch_of_a_built_backbone_can_be_resized(built, images):
    interpreter = make_interpreter(built.tflite)
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    single = []
    for image in images:
        interpreter.set_tensor(source, image[np.newaxis])
        interpreter.invoke()
        single.append(interpreter.get_tensor(target)[0])
    interpreter.resize_tensor_input(source, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, images)
    interpreter.invoke()
    together = interpreter.get_tensor(target)
    np.testing.assert_allclose(together, np.stack(single), atol=1e-5 * np.abs(together).max())


def test_second_call_builds_nothing(tmp_path):
    process, messages = FakeWorker(), []
    first = ensure_backbone(NAME, (64, 64), tmp_path, messages.append, process=process)
    second = ensure_backbone(NAME, (64, 64), tmp_path, messages.append, process=process)
    assert first == second
    assert process.built == 1
    assert messages == ["Building efficientnet-lite0 for 64 x 64 pixels, once on this machine."]
    assert first.tflite.read_bytes() == b"litert 1"
    names = {path.name for path in (tmp_path / "backbones").iterdir()}
    assert {f"{first.key}.{end}" for end in ("json", "keras", "lock", "tflite")} <= names


def test_different_backbones_have_different_keys(tmp_path, monkeypatch):
    process = FakeWorker()
    own = tmp_path / "own.pth"
    own.write_bytes(b"weights")
    keys = [
        ensure_backbone(NAME, (64, 64), tmp_path, process=process).key,
        ensure_backbone(NAME, (64, 32), tmp_path, process=process).key,
        ensure_backbone(NAME, (32, 64), tmp_path, process=process).key,
        ensure_backbone(NAME, (64, 64), tmp_path, process=process, weights=own).key,
        ensure_backbone(NAME, (64, 64), tmp_path, process=process, weights="none").key,
        ensure_backbone(NAME, (64, 64), tmp_path, process=process, weights="none", seed=1).key,
    ]
    keys.append(ensure_backbone(NAME, (64, 64), tmp_path, process=process, input_size=(96, 96)).key)
    keys.append(
        ensure_backbone(NAME, (64, 64), tmp_path, process=process, fold_batch_norm=False).key
    )
    monkeypatch.setattr(build, "BUILD_FORMAT", 999)
    keys.append(ensure_backbone(NAME, (64, 64), tmp_path, process=process).key)
    assert len(set(keys)) == process.built == 9
    assert IMAGENET_WEIGHTS[NAME].digest[:12] in keys[0]


def test_input_size_equal_to_the_size_changes_nothing(tmp_path):
    process = FakeWorker()
    first = ensure_backbone(NAME, (64, 64), tmp_path, process=process)
    again = ensure_backbone(NAME, (64, 64), tmp_path, process=process, input_size=(64, 64))
    assert first == again and process.built == 1


def test_other_networks_cannot_resize_images(tmp_path):
    with pytest.raises(SettingsError, match=r"Only an EfficientNet-Lite.*got resnet50\."):
        ensure_backbone(
            "resnet50",
            (64, 64),
            tmp_path,
            weights="none",
            process=FakeWorker(),
            input_size=(96, 96),
        )


def halved(images):
    """Bring images to half their sides: each pixel is the mean of four."""
    n, height, width, _ = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2, 3).mean(axis=(2, 4))


@pytest.mark.slow
def test_a_network_that_resizes_images_itself(built, tmp_path, keras_process):
    files = ensure_backbone(NAME, (64, 48), tmp_path, process=keras_process, input_size=(128, 96))
    images = np.random.default_rng(3).integers(0, 256, (3, 128, 96, 3)).astype(np.float32)
    plain, network = Interpreter(built.tflite), Interpreter(files.tflite)
    assert files.layout == built.layout
    for image, small in zip(images, halved(images), strict=True):
        expected = plain(small.astype(np.float32))
        np.testing.assert_allclose(network(image), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_folded_normalisations_change_no_feature(built, images, tmp_path, keras_process):
    import keras

    plain = ensure_backbone(NAME, (64, 48), tmp_path, process=keras_process, fold_batch_norm=False)
    folded, unfolded = Interpreter(built.tflite), Interpreter(plain.tflite)
    for image in images:
        expected = unfolded(image)
        np.testing.assert_allclose(folded(image), expected, atol=1e-4 * np.abs(expected).max())
    kinds = [
        [type(layer).__name__ for layer in keras.models.load_model(files.keras).layers]
        for files in (built, plain)
    ]
    # Who trains finds them as they are, and as many layers with weights as the network has.
    assert [kind.count("BatchNormalization") for kind in kinds] == [0, 49]


@pytest.mark.parametrize("ending", ["tflite", "keras", "json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damaged_files_are_built_again(tmp_path, ending, damage):
    process = FakeWorker()
    files = ensure_backbone(NAME, (64, 64), tmp_path, process=process)
    path = files.tflite.with_name(f"{files.key}.{ending}")
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        path.unlink()
    again = ensure_backbone(NAME, (64, 64), tmp_path, process=process)
    assert process.built == 2
    assert (again.tflite.read_bytes(), again.keras.read_bytes()) == (b"litert 2", b"keras 2")


@pytest.mark.parametrize(
    "record", [[], {"format": 1}, {"format": 1, "layout": 3}, {"layout": {"blocks": [[1, 2]]}}]
)
def test_invalid_records_are_ignored(tmp_path, record):
    process = FakeWorker()
    files = ensure_backbone(NAME, (64, 64), tmp_path, process=process)
    files.tflite.with_suffix(".json").write_text(json.dumps(record))
    ensure_backbone(NAME, (64, 64), tmp_path, process=process)
    assert process.built == 2


def test_files_of_a_killed_build_are_removed(tmp_path):
    key = ensure_backbone(NAME, (64, 64), tmp_path / "other", process=FakeWorker()).key
    left = tmp_path / "backbones" / f".building-{key}-killed"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    ensure_backbone(NAME, (64, 64), tmp_path, process=FakeWorker())
    assert not left.exists()


def test_failed_builds_leave_no_record(tmp_path):
    with pytest.raises(ParityError, match="with 7 features"):
        ensure_backbone(NAME, (64, 64), tmp_path, process=FakeWorker(width=7))
    with pytest.raises(WeightsError, match="damaged"):
        ensure_backbone(NAME, (64, 64), tmp_path, process=FakeWorker(error=WeightsError("damaged")))
    files = [path for path in (tmp_path / "backbones").iterdir() if path.is_file()]
    assert {path.suffix for path in files} <= {".lock", ""}


def test_two_threads_build_once(tmp_path):
    process, messages, results = FakeWorker(), [], []
    entered = threading.Event()
    released = threading.Event()
    plain_build = process.build

    def slow_build(*args, **kwargs):
        entered.set()
        assert released.wait(60)
        return plain_build(*args, **kwargs)

    process.build = slow_build

    def work():
        results.append(ensure_backbone(NAME, (64, 64), tmp_path, messages.append, process=process))

    first = threading.Thread(target=work)
    first.start()
    assert entered.wait(60)
    second = threading.Thread(target=work)
    second.start()
    limit = time.monotonic() + 60
    while len(messages) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    released.set()
    first.join(200)
    second.join(200)
    assert process.built == 1
    assert results[0] == results[1]
    assert "Waiting for another process that is building the same backbone." in messages


def test_invalid_arguments_write_nothing(tmp_path):
    with pytest.raises(SettingsError, match="backbone must be"):
        ensure_backbone("resnet", (64, 64), tmp_path)
    with pytest.raises(SettingsError, match="size"):
        ensure_backbone(NAME, (8, 8), tmp_path)
    with pytest.raises(WeightsError, match="absent"):
        ensure_backbone(NAME, (64, 64), tmp_path, weights=tmp_path / "absent.pth")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_cache_is_an_error(tmp_path):
    (tmp_path / "backbones").write_bytes(b"a file where the folder should be")
    with pytest.raises(CacheError, match="Cannot write"):
        ensure_backbone(NAME, (64, 64), tmp_path, process=FakeWorker())
