"""Joined backbones: two side by side, over several views, in both kinds of file."""

import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.ensemble import build_ensemble
from kindsight.models.backbones.join import join_keras, join_tflite
from kindsight.models.backbones.tta import (
    FLIPS,
    flip_image,
    transform_image,
    tta_variants,
    variant_name,
)
from kindsight.models.formats.assemble import write_keras, write_tflite
from kindsight.models.formats.convert import make_images, run_litert
from kindsight.models.formats.litert import make_interpreter
from kindsight.models.heads.head import LinearHead
from kindsight.training.parity import check_keras_weights

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


def expected(files, images, views):
    """Each backbone's own features, averaged over images that NumPy crops and flips."""
    rows = []
    for view in views:
        seen = CROPPED[view // 4](np.asarray(images, np.float32))
        seen = [seen, seen[:, :, ::-1], seen[:, ::-1], seen[:, ::-1, ::-1]][view % 4]
        rows.append(run_litert(files.tflite.read_bytes(), np.ascontiguousarray(seen)))
    return np.mean(rows, axis=0)


def enlarged(part):
    """Enlarge images to the size, each pixel by those around it, one axis after the other."""
    for axis, size in ((1, SIZE[0]), (2, SIZE[1])):
        there = part.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * there / size - 0.5, 0, there - 1)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, there - 1), at - low
        share = share.reshape([-1 if place == axis else 1 for place in range(4)])
        part = (1 - share) * part.take(low, axis) + share * part.take(high, axis)
    return part.astype(np.float32)


# Of 40 by 48 pixels, 35 by 42 are seen.
CROPPED = [
    lambda images: images,
    lambda images: enlarged(images[:, 2:37, 3:45]),
    lambda images: enlarged(images[:, :35, :42]),
    lambda images: enlarged(images[:, :35, 6:]),
    lambda images: enlarged(images[:, 5:, :42]),
    lambda images: enlarged(images[:, 5:, 6:]),
]


@pytest.mark.parametrize(
    ("names", "views"),
    [
        (("one", "other"), [(0,), (0,)]),
        (("one",), [(0, 1)]),
        (("other", "one"), [(0, 1, 2, 3)] * 2),
        (("one",), [tta_variants((0,), 6)]),
        (("one", "other"), [tta_variants((0, 1), 2)] * 2),
        (("other",), [(0, 23)]),
        (("one", "other"), [(0, 3, 4, 7), (0, 3)]),
        (("other", "one"), [(0,), (0, 2, 5)]),
    ],
)
def test_joined_features_are_those_of_the_parts(parts, keras_process, tmp_path, names, views):
    found, folder = parts
    chosen = {name: found[name] for name in names}
    joined = build_ensemble(chosen, folder, views)
    assert joined == build_ensemble(chosen, folder, views)
    assert [part.variants for part in joined.members] == views
    assert [part.key for part in joined.members] == [files.key for files in chosen.values()]
    images = make_images(3, SIZE)
    every = zip(chosen.values(), views, strict=True)
    wanted = np.concatenate([expected(files, images, some) for files, some in every], 1)
    scale = np.abs(wanted).max()
    got = run_litert(joined.tflite.read_bytes(), images)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * scale)
    head = LinearHead(
        np.random.default_rng(0).normal(size=(joined.layout.width, 2)), np.zeros(2, np.float32)
    )
    write_tflite(joined.tflite, head, tmp_path / "model.tflite")
    write_keras(joined.keras, head, tmp_path / "model.keras")
    check_keras_weights(joined.keras, head, tmp_path / "model.keras")
    features, logits = keras_process.run(tmp_path / "model.keras", images)
    np.testing.assert_allclose(features, wanted, atol=1e-5 * scale)
    np.testing.assert_allclose(logits, wanted @ head.kernel, atol=1e-4 * scale)
    # Weights are written once, however many views there are.
    own = sum(files.tflite.stat().st_size for files in chosen.values())
    assert joined.tflite.stat().st_size < own * (1 + 0.9 * max(map(len, views)))


def test_batch_of_a_joined_backbone_can_be_resized(parts):
    found, folder = parts
    model = build_ensemble(found, folder, [(0, 1, 4), (0, 2)]).tflite
    images = make_images(3, SIZE)
    single = run_litert(model.read_bytes(), images)
    interpreter = make_interpreter(model)
    source = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(source, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, images)
    interpreter.invoke()
    together = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(together, single, atol=1e-5 * np.abs(single).max())


def test_layout_names_each_network(parts):
    found, folder = parts
    layout = build_ensemble(found, folder).layout
    widths = [files.layout.width for files in found.values()]
    assert layout.networks() == {"one": slice(0, widths[0]), "other": slice(widths[0], sum(widths))}
    assert layout.names[-1] == "other:top_mean"
    assert found["one"].layout.networks() == {}


def test_one_backbone_and_one_view_is_left_as_it_is(parts):
    found, folder = parts
    assert build_ensemble({"one": found["one"]}, folder) is found["one"]


def test_what_does_not_fit_together_is_refused(parts, built, tmp_path):
    found, _ = parts
    with pytest.raises(WeightsError, match=r"images of .* beside those of"):
        join_tflite([found["one"].tflite, built.tflite], [(0,)] * 2, tmp_path / "a.tflite")
    with pytest.raises(WeightsError, match="the same network twice: one_features"):
        join_keras([found["one"].keras] * 2, [(0,)] * 2, tmp_path / "a.keras")
    (tmp_path / "no.keras").write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="must fit together"):
        join_keras([found["one"].keras, tmp_path / "no.keras"], [(0,)] * 2, tmp_path / "a.keras")


def test_views_by_hand():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    a, b, c, d = ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])
    views = [[[a, b], [c, d]], [[b, a], [d, c]], [[c, d], [a, b]], [[d, c], [b, a]]]
    assert [flip_image(image, view).tolist() for view in range(len(FLIPS))] == views


def test_views_are_counted_crop_by_crop():
    assert tta_variants((0,), 1) == (0,) and tta_variants(range(3), 1) == (0, 1, 2)
    assert tta_variants((0, 3), 3) == (0, 3, 4, 7, 8, 11)
    assert [variant_name(view) for view in (0, 3, 4, 11)] == [
        "as-is", "turned", "middle", "top-left-turned"
    ]  # fmt: skip


def test_a_look_is_what_joined_networks_see():
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    for view in tta_variants(range(4), 6):
        seen = CROPPED[view // 4](image[None].astype(np.float32))[0]
        seen = [seen, seen[:, ::-1], seen[::-1], seen[::-1, ::-1]][view % 4]
        np.testing.assert_allclose(transform_image(image, view), seen, atol=2e-3)
