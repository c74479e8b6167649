"""Classifier files written from a backbone's files and a head."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.formats.assemble import METADATA_NAME, write_keras, write_tflite
from kindsight.models.formats.tflite import read_tflite
from kindsight.models.heads import EnsembleHead, LinearHead, RBFHead
from kindsight.models.ood import OODScore, output_layers
from kindsight.models.runtime import make_interpreter, schema

KINDS = ["linear", "rbf", "rbf+linear", "ensemble"]
CLASSES = [2, 3, 50]


def make_head(kind, features, classes):
    """Return a head of random arrays with the magnitudes of fitted ones."""
    random = np.random.default_rng([KINDS.index(kind), classes])
    if kind == "ensemble":
        first = features // 3
        return EnsembleHead(
            (
                make_head("rbf", first, classes),
                make_head("linear", features - 2 * first, classes),
                make_head("rbf+linear", first, classes),
            )
        )
    if kind == "linear":
        kernel = random.normal(size=(features, classes)) / np.sqrt(features)
        return LinearHead(kernel, random.normal(size=classes))
    return RBFHead(
        project_kernel=random.normal(size=(features, 16)) / np.sqrt(25 * features),
        project_bias=random.normal(size=16),
        landmarks=random.normal(size=(40, 16)),
        gamma=0.03,
        kernel=random.normal(size=(40, classes)),
        bias=random.normal(size=classes),
        linear_kernel=random.normal(size=(16, classes)) if kind == "rbf+linear" else None,
    )


def run_one_by_one(path, images):
    interpreter = make_interpreter(path)
    runner = interpreter.get_signature_runner("serving_default")
    return [runner(pixels=image[np.newaxis]) for image in images]


def make_score(features, centers=3, width=8):
    random = np.random.default_rng(7)
    return OODScore(
        random.normal(size=(features, width)) / np.sqrt(features),
        random.normal(size=width),
        random.normal(size=(centers, width)),
    )


def expected_scores(score, features):
    points = features.astype(np.float64) @ score.project_kernel + score.project_bias
    every = np.square(points[:, None] - score.centers[None]).sum(2)
    return every.min(1)


def assert_close(got, expected, tolerance=1e-5):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def features(built, images):
    rows = [output["features"] for output in run_one_by_one(built.tflite, images)]
    return np.concatenate(rows)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", KINDS)
def test_litert_file_gives_the_heads_logits(tmp_path, kind, classes):
    backbone = write_tiny_tflite(tmp_path / "tiny.tflite", channels=24)
    head = make_head(kind, 24, classes)
    write_tflite(backbone, head, tmp_path / "model.tflite")
    images = np.random.default_rng(0).normal(size=(4, 2, 2, 24)).astype(np.float32)
    outputs = run_one_by_one(tmp_path / "model.tflite", images)
    assert all(output.keys() == {"logits"} for output in outputs)
    got = np.concatenate([output["logits"] for output in outputs])
    assert_close(got, head.logits(images.mean(axis=(1, 2))), tolerance=1e-4)


@pytest.mark.parametrize("centers", [1, 2, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_litert_file_gives_the_score_beside_the_logits(tmp_path, kind, centers):
    backbone = write_tiny_tflite(tmp_path / "tiny.tflite", channels=24)
    head, score = make_head(kind, 24, 3), make_score(24, centers)
    path = tmp_path / "model.tflite"
    write_tflite(backbone, head, path, score=score)
    images = np.random.default_rng(0).normal(size=(4, 2, 2, 24)).astype(np.float32)
    outputs = run_one_by_one(path, images)
    assert all(output["ood_score"].shape == (1, 1) for output in outputs)
    means = images.mean(axis=(1, 2))
    got = np.concatenate([output["ood_score"][0] for output in outputs])
    assert_close(got, expected_scores(score, means), tolerance=1e-5)
    assert_close(score(means), expected_scores(score, means), tolerance=1e-5)
    logits = np.concatenate([output["logits"] for output in outputs])
    assert_close(logits, head.logits(means), tolerance=1e-4)
    names = [detail["name"] for detail in make_interpreter(path).get_output_details()]
    assert names == ["logits", "ood_score"]


@pytest.mark.parametrize("kind", ["linear", "ensemble"])
def test_plain_keras_gives_the_score_beside_the_logits(
    built, keras_process, images, features, tmp_path, kind
):
    head, score = make_head(kind, built.layout.width, 3), make_score(built.layout.width, 4)
    path = tmp_path / "model.keras"
    write_keras(built.keras, head, path, score)
    got_features, logits, scores = keras_process.run(path, images)
    assert_close(got_features, features, tolerance=1e-4)
    assert_close(logits, head.logits(got_features))
    assert_close(scores, expected_scores(score, got_features))


def test_score_for_other_features_is_rejected(built, tmp_path):
    head = make_head("linear", built.layout.width, 2)
    score = make_score(built.layout.width - 1)
    with pytest.raises(WeightsError, match="the score"):
        write_tflite(built.tflite, head, tmp_path / "model.tflite", score=score)
    with pytest.raises(WeightsError, match="the score"):
        write_keras(built.keras, head, tmp_path / "model.keras", score)
    with pytest.raises(WeightsError, match="finite"):
        OODScore(np.full((2, 2), np.nan), np.zeros(2), np.zeros((1, 2)))
    with pytest.raises(WeightsError, match="shapes"):
        OODScore(np.ones((2, 2)), np.zeros(3), np.zeros((1, 2)))
    with pytest.raises(WeightsError, match="shape"):
        score(np.zeros((1, 3)))


def test_names_and_shapes_of_the_litert_file(built, tmp_path):
    path = tmp_path / "model.tflite"
    write_tflite(built.tflite, make_head("rbf+linear", built.layout.width, 3), path)
    interpreter = make_interpreter(path)
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    assert (source["name"], source["shape"].tolist()) == ("pixels", [1, 64, 48, 3])
    assert (target["name"], target["shape"].tolist()) == ("logits", [1, 3])
    assert source["dtype"] == target["dtype"] == np.float32


def test_batch_can_be_resized(built, images, features, tmp_path):
    head = make_head("ensemble", built.layout.width, 3)
    path = tmp_path / "model.tflite"
    write_tflite(built.tflite, head, path)
    interpreter = make_interpreter(path)
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    for count in (1, 4):
        interpreter.resize_tensor_input(source, (count, *images.shape[1:]))
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, images[:count])
        interpreter.invoke()
        assert_close(interpreter.get_tensor(target), head.logits(features[:count]))


def test_weights_are_aligned_to_16_bytes(built, tmp_path):
    path = tmp_path / "model.tflite"
    write_tflite(built.tflite, make_head("rbf+linear", built.layout.width, 3), path, {"a": 1})
    model = schema().Model.GetRootAs(path.read_bytes(), 0)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    offsets = [
        buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()
    ]
    assert len(offsets) > 100
    assert all(offset % 16 == 0 for offset in offsets)


def test_metadata_are_stored(tiny, tmp_path):
    path = tmp_path / "model.tflite"
    head = make_head("linear", 4, 2)
    write_tflite(tiny, head, path, {"classes": ["égale", "b"], "temperature": 1.5})
    model = schema().Model.GetRootAs(path.read_bytes(), 0)
    found = {
        model.Metadata(number).Name().decode(): model.Metadata(number).Buffer()
        for number in range(model.MetadataLength())
    }
    content = model.Buffers(found[METADATA_NAME]).DataAsNumpy().tobytes()
    assert json.loads(content) == {"classes": ["égale", "b"], "temperature": 1.5}
    assert make_interpreter(path).get_output_details()[0]["shape"].tolist() == [1, 2]


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": "x" * 2**20}])
def test_invalid_metadata_are_rejected(tiny, tmp_path, metadata):
    head = make_head("linear", 4, 2)
    with pytest.raises(SettingsError, match="Metadata"):
        write_tflite(tiny, head, tmp_path / "model.tflite", metadata)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "classes"), [("rbf+linear", 50), ("ensemble", 2)])
def test_plain_keras_loads_the_keras_file(
    built, keras_process, images, features, tmp_path, kind, classes
):
    head = make_head(kind, built.layout.width, classes)
    path = tmp_path / "model.keras"
    write_keras(built.keras, head, path)
    got_features, got_logits, scores = keras_process.run(path, images)
    assert_close(got_features, features, tolerance=1e-4)
    assert_close(got_logits, head.logits(got_features))
    assert scores is None


@pytest.mark.parametrize("scored", [False, True])
def test_keras_file_is_what_keras_itself_would_write(tmp_path, scored):
    """Compare the names of the weights with those that Keras gives the same layers."""
    import keras

    from kindsight.models.networks.keras_heads import add_layers

    pixels = keras.Input((8, 8, 3), name="pixels")
    maps = keras.layers.Dense(4)(keras.layers.Conv2D(4, 3)(pixels))
    means = [keras.layers.GlobalAveragePooling2D()(maps), keras.ops.max(maps, axis=(1, 2))]
    backbone = keras.Model(pixels, keras.layers.Concatenate(name="features")(means))
    backbone.save(tmp_path / "backbone.keras")
    head = make_head("rbf+linear", 8, 3)
    score = make_score(8) if scored else None
    write_keras(tmp_path / "backbone.keras", head, tmp_path / "ours.keras", score)
    tensors = add_layers(backbone.output, output_layers(head, score))
    outputs = [tensors[name] for name in ("logits", "ood_score") if name in tensors]
    keras.Model(pixels, outputs).save(tmp_path / "theirs.keras")
    ours, theirs = (read_weights(tmp_path / f"{name}.keras") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def read_weights(path):
    found = {}
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_head_for_other_features_is_rejected(built, tmp_path):
    head = make_head("linear", built.layout.width - 1, 2)
    with pytest.raises(WeightsError, match="features"):
        write_tflite(built.tflite, head, tmp_path / "model.tflite")
    with pytest.raises(WeightsError, match="the head needs"):
        write_keras(built.keras, head, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_second_head_is_rejected(tmp_path):
    head = make_head("linear", 4, 4)
    write_keras(write_template(tmp_path / "t.keras"), head, tmp_path / "model.keras")
    with pytest.raises(WeightsError, match="only output"):
        write_keras(tmp_path / "model.keras", head, tmp_path / "twice.keras")


def test_name_of_the_keras_file_is_checked(built, tmp_path):
    with pytest.raises(SettingsError, match=r"\.keras"):
        write_keras(built.keras, make_head("linear", 4, 2), tmp_path / "model.h5")


def write_tiny_tflite(path, channels=4):
    """Write a network by hand: the mean over space of (1, 2, 2, channels)."""
    import flatbuffers

    types = schema()
    model, graph, mean = types.ModelT(), types.SubGraphT(), types.OperatorT()
    shapes = [(1, 2, 2, channels), (2,), (1, channels)]
    graph.tensors = []
    for number, shape in enumerate(shapes):
        tensor = types.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = types.TensorType.INT32 if number == 1 else types.TensorType.FLOAT32
        tensor.buffer = int(number == 1)
        tensor.name = f"tensor{number}"
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([2], np.int32)
    mean.inputs, mean.outputs = np.array([0, 1], np.int32), np.array([2], np.int32)
    mean.builtinOptionsType = types.BuiltinOptions.ReducerOptions
    mean.builtinOptions = types.ReducerOptionsT()
    graph.operators = [mean]
    code = types.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = types.BuiltinOperator.MEAN
    code.version = 1
    axes = np.array([1, 2], "<i4").view(np.uint8)
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [types.BufferT(), types.BufferT(axes)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_head_on_a_network_written_by_hand(tmp_path):
    head = LinearHead(kernel=np.eye(4)[:, :2], bias=[10, 20])
    write_tflite(write_tiny_tflite(tmp_path / "tiny.tflite"), head, tmp_path / "out.tflite")
    pixels = np.zeros((1, 2, 2, 4), np.float32)
    pixels[0, 0, 0] = [4, 8, 12, 16]
    (output,) = run_one_by_one(tmp_path / "out.tflite", pixels)
    assert output["logits"].tolist() == [[11.0, 22.0]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_tflite(tmp_path_factory.mktemp("tiny") / "tiny.tflite")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_litert_files_are_rejected_or_written(tiny, tmp_path_factory, data):
    content = bytearray(tiny.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(content) - 1))
        content[index] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "damaged.tflite").write_bytes(content)
    head = make_head("rbf+linear", 4, 3)
    try:
        write_tflite(folder / "damaged.tflite", head, folder / "out.tflite")
    except WeightsError as error:
        assert "damaged.tflite" in str(error)
        assert not (folder / "out.tflite").exists()
    else:
        assert (folder / "out.tflite").read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0\0\0\0TFL3", b"PK\3\4" * 50])
def test_files_that_are_no_litert_are_rejected(tmp_path, content):
    (tmp_path / "no.tflite").write_bytes(content)
    with pytest.raises(WeightsError, match=r"no\.tflite"):
        read_tflite(tmp_path / "no.tflite")
    with pytest.raises(WeightsError, match=r"no\.tflite"):
        make_interpreter(tmp_path / "no.tflite")


def test_absent_files_are_rejected(tmp_path):
    head = make_head("linear", 4, 2)
    with pytest.raises(WeightsError, match="cannot be read"):
        write_tflite(tmp_path / "absent.tflite", head, tmp_path / "out.tflite")
    with pytest.raises(WeightsError, match="cannot be read"):
        write_keras(tmp_path / "absent.keras", head, tmp_path / "out.keras")
    with pytest.raises(WeightsError, match="cannot be read"):
        write_keras(tmp_path, head, tmp_path / "out.keras")


def test_too_large_a_file_is_rejected_unread(tmp_path):
    with (tmp_path / "large.tflite").open("wb") as file:
        file.write(b"\0\0\0\0TFL3")
        file.truncate(2**30 + 1)
    with pytest.raises(WeightsError, match="1073741825 bytes"):
        read_tflite(tmp_path / "large.tflite")


CONFIG = {
    "class_name": "Functional",
    "config": {
        "name": "tiny_features",
        "layers": [
            {
                "class_name": "Concatenate",
                "name": "features",
                "config": {},
                "build_config": {"input_shape": [[None, 1], [None, 3]]},
            }
        ],
        "output_layers": ["features", 0, 0],
    },
}


def tiny_weights():
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
    return buffer.getvalue()


def write_template(path, **changes):
    """Write a minimal template, with some of its members changed or left out."""
    members = {
        "metadata.json": b"{}",
        "config.json": json.dumps(CONFIG).encode(),
        "model.weights.h5": tiny_weights(),
    }
    members.update({name.replace("_json", ".json"): value for name, value in changes.items()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            if value is not None:
                archive.writestr(name, value)
    return path


def changed(*keys, value):
    config = json.loads(json.dumps(CONFIG))
    item = config
    for key in keys[:-1]:
        item = item[key]
    item[keys[-1]] = value
    return json.dumps(config).encode()


def test_tiny_template_is_accepted(tmp_path):
    write_keras(
        write_template(tmp_path / "t.keras"), make_head("rbf+linear", 4, 3), tmp_path / "o.keras"
    )
    names = ["dense", "dense_1", "dense_2", "dense_3"]
    assert sorted(read_weights(tmp_path / "o.keras")) == [
        f"layers/{name}/vars/{number}" for name in names for number in (0, 1)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata_json": None},
        {"config_json": None},
        {"model.weights.h5": None},
        {"assets/more": b"x"},
        {"../outside": b"x"},
        {"metadata_json": b" " * (2**20 + 1)},
        {"config_json": b"{"},
        {"config_json": b"[]"},
        {"config_json": b"\xff"},
        {"config_json": b"[" * 100_000},
        {"config_json": changed("class_name", value="Sequential")},
        {"config_json": changed("config", value=None)},
        {"config_json": changed("config", "layers", value={})},
        {"config_json": changed("config", "layers", value=[])},
        {"config_json": changed("config", "layers", value=[1])},
        {"config_json": changed("config", "layers", value=[{}] * 20_001)},
        {"config_json": changed("config", "layers", 0, "name", value=["features"])},
        {"config_json": changed("config", "layers", 0, "build_config", value=None)},
        {"config_json": changed("config", "output_layers", value=[["features", 0, 0]] * 2)},
        {"config_json": changed("config", "output_layers", value=["logits", 0, 0])},
        {"model.weights.h5": b""},
        {"model.weights.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100},
    ],
    ids=str,
)
def test_hostile_templates_are_rejected(tmp_path, changes):
    template = write_template(tmp_path / "t.keras", **changes)
    with pytest.raises(WeightsError, match=r"t\.keras"):
        write_keras(template, make_head("linear", 4, 3), tmp_path / "o.keras")
    assert not (tmp_path / "o.keras").exists()


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/"), h5py.SoftLink("/x"), None])
def test_links_in_the_weights_are_not_followed(tmp_path, link):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("x")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("x")
        if link is not None:
            file["layers"] = link
    template = write_template(tmp_path / "t.keras", **{"model.weights.h5": buffer.getvalue()})
    with pytest.raises(WeightsError, match="has no group of layers"):
        write_keras(template, make_head("linear", 4, 3), tmp_path / "o.keras")


def test_existing_names_are_rejected(tmp_path):
    layers = [*CONFIG["config"]["layers"], {"class_name": "Dense", "name": "logits"}]
    template = write_template(
        tmp_path / "t.keras", config_json=changed("config", "layers", value=layers)
    )
    with pytest.raises(WeightsError, match="named 'logits' already"):
        write_keras(template, make_head("linear", 4, 3), tmp_path / "o.keras")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_weights_are_rejected_or_written(tmp_path_factory, data):
    # The archive is intact, so that its checksum does not detect the damage.
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(tiny_weights())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(content) - 1))
        content[index] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    template = write_template(folder / "t.keras", **{"model.weights.h5": bytes(content)})
    try:
        write_keras(template, make_head("linear", 4, 3), folder / "o.keras")
    except WeightsError as error:
        assert "t.keras" in str(error)
    else:
        assert zipfile.is_zipfile(folder / "o.keras")


@settings(max_examples=75, deadline=None)
@given(data=st.data())
def test_damaged_templates_are_rejected_or_written(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(write_template(folder / "t.keras").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(content) - 1))
        content[index] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    (folder / "t.keras").write_bytes(content)
    try:
        write_keras(folder / "t.keras", make_head("linear", 4, 3), folder / "o.keras")
    except WeightsError as error:
        assert "t.keras" in str(error)
    else:
        assert "layers/dense/vars/0" in read_weights(folder / "o.keras")
