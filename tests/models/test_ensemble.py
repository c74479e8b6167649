"""Ensembles of backbones and TTA variants, as LiteRT and Keras files."""

import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.ensemble import build_ensemble, join_keras, join_tflite
from kindsight.models.backbones.tta import (
    FLIPS,
    flip_image,
    transform_image,
    tta_variants,
    variant_name,
)
from kindsight.models.formats.assemble import write_keras, write_tflite
from kindsight.models.heads import LinearHead
from kindsight.models.runtime import make_images, make_interpreter, run_litert
from kindsight.training.parity import check_keras_weights

SIZE = (40, 48)


@pytest.fixture(scope="module")
def members(tmp_path_factory, keras_process):
    """Two small networks of different widths, built."""
    import keras

    folder = tmp_path_factory.mktemp("members")
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


def expected(files, images, variants):
    """Return a backbone's features, averaged over images that NumPy crops and flips."""
    rows = []
    for variant in variants:
        pixels = CROPPED[variant // 4](np.asarray(images, np.float32))
        pixels = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]][variant % 4]
        rows.append(run_litert(files.tflite.read_bytes(), np.ascontiguousarray(pixels)))
    return np.mean(rows, axis=0)


def enlarged(crop):
    """Enlarge images to SIZE with bilinear interpolation, one axis after the other."""
    for axis, size in ((1, SIZE[0]), (2, SIZE[1])):
        length = crop.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        high, weight = np.minimum(low + 1, length - 1), at - low
        weight = weight.reshape([-1 if other == axis else 1 for other in range(4)])
        crop = (1 - weight) * crop.take(low, axis) + weight * crop.take(high, axis)
    return crop.astype(np.float32)


# A crop has 35 by 42 of the 40 by 48 pixels.
CROPPED = [
    lambda images: images,
    lambda images: enlarged(images[:, 2:37, 3:45]),
    lambda images: enlarged(images[:, :35, :42]),
    lambda images: enlarged(images[:, :35, 6:]),
    lambda images: enlarged(images[:, 5:, :42]),
    lambda images: enlarged(images[:, 5:, 6:]),
]


@pytest.mark.parametrize(
    ("names", "variants"),
    [
        (("one", "other"), [(0,), (0,)]),
        (("one",), [(0, 1)]),
        (("one",), [tta_variants((0,), 6)]),
        (("one", "other"), [(0, 3, 4, 7), (0, 3)]),
        (("other", "one"), [(0,), (0, 2, 23)]),
    ],
)
def test_features_are_those_of_the_members(members, keras_process, tmp_path, names, variants):
    found, folder = members
    chosen = {name: found[name] for name in names}
    joined = build_ensemble(chosen, folder, variants)
    assert joined == build_ensemble(chosen, folder, variants)
    assert [member.variants for member in joined.members] == variants
    assert [member.key for member in joined.members] == [files.key for files in chosen.values()]
    images = make_images(3, SIZE)
    pairs = zip(chosen.values(), variants, strict=True)
    wanted = np.concatenate([expected(files, images, some) for files, some in pairs], 1)
    scale = np.abs(wanted).max()
    got = run_litert(joined.tflite.read_bytes(), images)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * scale)
    head = LinearHead(
        np.random.default_rng(0).normal(size=(joined.layout.width, 2)), np.zeros(2, np.float32)
    )
    write_tflite(joined.tflite, head, tmp_path / "model.tflite")
    write_keras(joined.keras, head, tmp_path / "model.keras")
    check_keras_weights(joined.keras, head.layers(), tmp_path / "model.keras")
    features, logits, _ = keras_process.run(tmp_path / "model.keras", images)
    np.testing.assert_allclose(features, wanted, atol=1e-5 * scale)
    np.testing.assert_allclose(logits, wanted @ head.kernel, atol=1e-4 * scale)
    # Weights are written once, whatever the number of variants.
    own = sum(files.tflite.stat().st_size for files in chosen.values())
    assert joined.tflite.stat().st_size < own * (1 + 0.9 * max(map(len, variants)))


def test_batch_of_an_ensemble_can_be_resized(members):
    found, folder = members
    model = build_ensemble(found, folder, [(0, 1, 4), (0, 2)]).tflite
    images = make_images(3, SIZE)
    single = run_litert(model.read_bytes(), images)
    interpreter = make_interpreter(model)
    source = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(source, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source, images)
    interpreter.invoke()
    batch = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(batch, single, atol=1e-5 * np.abs(single).max())


def test_layout_names_each_network(members):
    found, folder = members
    layout = build_ensemble(found, folder).layout
    widths = [files.layout.width for files in found.values()]
    assert layout.networks() == {"one": slice(0, widths[0]), "other": slice(widths[0], sum(widths))}
    assert layout.names[-1] == "other:top_mean"
    assert found["one"].layout.networks() == {}


def test_one_backbone_without_tta_is_returned_unchanged(members):
    found, folder = members
    assert build_ensemble({"one": found["one"]}, folder) is found["one"]


def test_files_that_do_not_fit_are_rejected(members, built, tmp_path):
    found, _ = members
    with pytest.raises(WeightsError, match="inputs of different shapes"):
        join_tflite([found["one"].tflite, built.tflite], [(0,)] * 2, tmp_path / "a.tflite")
    with pytest.raises(WeightsError, match="the same network twice: one_features"):
        join_keras([found["one"].keras] * 2, [(0,)] * 2, tmp_path / "a.keras")
    (tmp_path / "no.keras").write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="Cannot join"):
        join_keras([found["one"].keras, tmp_path / "no.keras"], [(0,)] * 2, tmp_path / "a.keras")


def test_flips_by_hand():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    a, b, c, d = ([0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])
    flips = [[[a, b], [c, d]], [[b, a], [d, c]], [[c, d], [a, b]], [[d, c], [b, a]]]
    assert [flip_image(image, flip).tolist() for flip in range(len(FLIPS))] == flips


def test_variants_are_numbered_crop_by_crop():
    assert tta_variants((0,), 1) == (0,) and tta_variants(range(3), 1) == (0, 1, 2)
    assert tta_variants((0, 3), 3) == (0, 3, 4, 7, 8, 11)
    assert [variant_name(variant) for variant in (0, 3, 4, 11)] == [
        "original", "rotated", "center", "top-left-rotated"
    ]  # fmt: skip


def test_transformed_images_are_those_of_the_ensemble():
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    for variant in tta_variants(range(4), 6):
        pixels = CROPPED[variant // 4](image[None].astype(np.float32))[0]
        pixels = [pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1]][variant % 4]
        np.testing.assert_allclose(transform_image(image, variant), pixels, atol=2e-3)
