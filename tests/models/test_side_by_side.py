"""Joined backbones: two side by side, over several views, in both kinds of file."""

import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.assemble import write_keras, write_tflite
from kindsight.models.build import ensure_backbone
from kindsight.models.convert import make_pictures, run_litert
from kindsight.models.heads import LinearHead
from kindsight.models.join_keras import join_keras
from kindsight.models.join_tflite import join_tflite
from kindsight.models.keras_check import check_written
from kindsight.models.litert import make_interpreter
from kindsight.models.side_by_side import join_backbones
from kindsight.models.views import VIEWS, flip

SIZE = (40, 48)


@pytest.fixture(scope="module")
def parts(tmp_path_factory, keras_process):
    """Two small networks of one's own, built; of different widths."""
    import keras

    folder = tmp_path_factory.mktemp("parts")
    found = {}
    for name, width in (("one", 4), ("other", 6)):
        keras.utils.set_random_seed(width)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((*SIZE, 3)),
                layers.Rescaling(1 / 255),
                layers.Conv2D(width, 3, strides=4, activation="relu"),
                layers.Conv2D(width, 3, strides=2, activation="relu"),
            ],
            name=name,
        )
        model.save(folder / f"{name}.keras")
        file = str(folder / f"{name}.keras")
        found[name] = ensure_backbone(file, SIZE, folder, process=keras_process)
    return found, folder


def expected(files, pictures, views):
    """Each backbone's own features, averaged over pictures that NumPy flips."""
    flips = [pictures, pictures[:, :, ::-1], pictures[:, ::-1], pictures[:, ::-1, ::-1]][:views]
    rows = [run_litert(files.tflite.read_bytes(), np.ascontiguousarray(view)) for view in flips]
    return np.mean(rows, axis=0)


@pytest.mark.parametrize(
    ("names", "views"), [(("one", "other"), 1), (("one",), 2), (("other", "one"), 4)]
)
def test_joined_features_are_those_of_the_parts(parts, keras_process, tmp_path, names, views):
    found, folder = parts
    chosen = {name: found[name] for name in names}
    joined = join_backbones(chosen, folder, views)
    assert joined == join_backbones(chosen, folder, views)
    assert (joined.parts, joined.views) == (tuple(chosen.values()), views)
    pictures = make_pictures(3, SIZE)
    wanted = np.concatenate([expected(files, pictures, views) for files in chosen.values()], 1)
    scale = np.abs(wanted).max()
    got = run_litert(joined.tflite.read_bytes(), pictures)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * scale)
    head = LinearHead(
        np.random.default_rng(0).normal(size=(joined.layout.width, 2)), np.zeros(2, np.float32)
    )
    write_tflite(joined.tflite, head, tmp_path / "model.tflite")
    write_keras(joined.keras, head, tmp_path / "model.keras")
    check_written(joined.keras, head, tmp_path / "model.keras")
    features, logits = keras_process.run(tmp_path / "model.keras", pictures)
    np.testing.assert_allclose(features, wanted, atol=1e-5 * scale)
    np.testing.assert_allclose(logits, wanted @ head.kernel, atol=1e-4 * scale)
    # Weights are written once, however many views there are.
    own = sum(files.tflite.stat().st_size for files in chosen.values())
    assert joined.tflite.stat().st_size < own * (1 + 0.8 * views)


def test_batch_of_a_joined_backbone_can_be_resized(parts):
    found, folder = parts
    model = join_backbones(found, folder, 2).tflite
    pictures = make_pictures(3, SIZE)
    single = run_litert(model.read_bytes(), pictures)
    interpreter = make_interpreter(model)
    source = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(source, pictures.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, pictures)
    interpreter.invoke()
    together = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(together, single, atol=1e-5 * np.abs(single).max())


def test_layout_names_each_network(parts):
    found, folder = parts
    layout = join_backbones(found, folder).layout
    widths = [files.layout.width for files in found.values()]
    assert layout.networks() == {"one": slice(0, widths[0]), "other": slice(widths[0], sum(widths))}
    assert layout.names[-1] == "other:top_mean"
    assert found["one"].layout.networks() == {}


def test_one_backbone_and_one_view_is_left_as_it_is(parts):
    found, folder = parts
    assert join_backbones({"one": found["one"]}, folder) is found["one"]


def test_what_does_not_fit_together_is_refused(parts, built, tmp_path):
    found, _ = parts
    with pytest.raises(WeightsError, match=r"pictures of .* beside those of"):
        join_tflite([found["one"].tflite, built.tflite], 1, tmp_path / "a.tflite")
    with pytest.raises(WeightsError, match="the same network twice: one_features"):
        join_keras([found["one"].keras] * 2, 1, tmp_path / "a.keras")
    (tmp_path / "no.keras").write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="must fit together"):
        join_keras([found["one"].keras, tmp_path / "no.keras"], 1, tmp_path / "a.keras")


def test_views_by_hand():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    a, b, c, d = ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])
    views = [[[a, b], [c, d]], [[b, a], [d, c]], [[c, d], [a, b]], [[d, c], [b, a]]]
    assert [flip(picture, view).tolist() for view in range(len(VIEWS))] == views
