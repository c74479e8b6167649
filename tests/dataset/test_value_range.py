"""One range of values for the images of a dataset with more than 8 bits a sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kindsight.cli.app import app
from kindsight.dataset import ImageDataset, open_dataset, open_splits, with_value_range
from kindsight.dataset import properties as module
from kindsight.dataset.open import as_dataset
from kindsight.dataset.properties import describe_range, typical_range
from kindsight.errors import DatasetError
from kindsight.images import InputSpec, read_image
from kindsight.predictor import Predictor


def scene(seed: int, top: float = 1.0, low: float = 0.0) -> np.ndarray:
    """Return noise from `low` to `top`, both of which occur."""
    values = np.random.default_rng(seed).random((24, 32)) * (top - low) + low
    values[0, :2] = low, top
    return values


def write(folder: Path, ending: str, dtype: type, top: float, low: float = 0.0) -> Path:
    """Write 12 images of two classes with values from `low` to `top`."""
    for i in range(12):
        file = folder / f"class {i % 2}" / f"{i}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(i, top, low).round(3).astype(dtype)).save(file)
    return folder


KINDS = [
    ("png", np.uint16, 1023, 0),
    ("png", np.uint16, 4095, 0),
    ("tif", np.uint16, 16383, 0),
    ("tif", np.uint16, 65535, 0),
    ("tif", np.int32, 4095, 0),
    ("tif", np.int32, 200_000, -5),
    ("tif", np.float32, 1, 0),
    ("tif", np.float32, 255, 0),
    ("tif", np.float32, 280, 100),
    ("tif", np.float32, 0.25, -0.125),
]


def test_the_range_over_images_is_bounded_by_the_usual_one() -> None:
    assert typical_range([0, 2, 1], [90, 100, 95]) == (0, 100)
    # The median range is 0 to 100; an image to 9,000 extends it by 100, one from -5 by 5.
    assert typical_range([0, 0, 0, -5, 0], [100, 100, 100, 100, 9000]) == (-5, 200)
    assert typical_range([0, 0, 0], [0, 0, 7]) == (0, 7)
    assert typical_range([3, 3], [3, 3]) is None


def test_a_range_in_words() -> None:
    assert describe_range((0, 4095)) == "0 to 4,095"
    assert describe_range((-0.125, 0.25)) == "-0.125 to 0.25"


@pytest.mark.parametrize(("ending", "dtype", "top", "low"), KINDS)
def test_all_bits_of_all_images_are_used(
    ending: str, dtype: type, top: float, low: float, tmp_path: Path
) -> None:
    dataset = with_value_range(open_dataset(write(tmp_path, ending, dtype, top, low)))
    assert dataset.value_range == (low, top)
    (note,) = dataset.notes
    assert describe_range((low, top)) in note and "--value-range LOW,HIGH" in note
    image = read_image(dataset.file(0), value_range=dataset.value_range)[..., 0]
    assert (image.min(), image.max()) == (0, 255)
    assert 110 < image.mean() < 145


@pytest.mark.parametrize(("ending", "dtype", "top", "low"), KINDS)
def test_one_value_never_turns_the_images_black(
    ending: str, dtype: type, top: float, low: float, tmp_path: Path
) -> None:
    folder = write(tmp_path, ending, dtype, top, low)
    before = with_value_range(open_dataset(folder))
    most = 65535 if dtype is np.uint16 else 1e9
    values = scene(4, top, low).round(3)
    for share in (1.01, 1.5, 1e6):
        values[3, 3] = min(low + (top - low) * share, most)
        Image.fromarray(values.astype(dtype)).save(folder / "class 0" / f"4.{ending}")
        after = with_value_range(open_dataset(folder))
        assert after.value_range is not None and before.value_range is not None
        assert after.value_range[0] == low
        assert top <= after.value_range[1] <= low + min(share, 2) * (top - low) + 1e-6
        image = read_image(after.file(1), value_range=after.value_range)
        assert image.mean() > 60
    clipped = [note for note in after.notes if "clipped" in note]
    assert bool(clipped) == (values[3, 3] > after.value_range[1])


def test_8_bits_are_left_alone_and_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, "png", np.uint8, 255)
    for i in range(6):
        Image.fromarray(scene(i, 255).astype(np.uint8)).save(folder / "class 0" / f"{i} b.jpg")
    dataset = open_dataset(folder)

    def refuse(*_: object) -> None:
        raise AssertionError("only the first bytes are needed")

    monkeypatch.setattr(module, "read_bytes", refuse)
    monkeypatch.setattr(module, "read_with_scale", refuse)
    assert with_value_range(dataset) is dataset
    shutil.rmtree(folder / "class 1")
    (folder / "class 1").mkdir()
    Image.fromarray(scene(9, 255).astype(np.uint8)).save(folder / "class 1" / "a.bmp")
    assert with_value_range(open_dataset(folder)).value_range is None


def test_8_bit_tiffs_are_left_alone(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, "tif", np.uint8, 255))
    assert with_value_range(dataset) is dataset


def test_a_depth_that_every_file_states_needs_no_range(tmp_path: Path) -> None:
    for i in range(4):
        file = tmp_path / f"class {i % 2}" / f"{i}.pgm"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"P5 2 1 4095\n" + np.array([i, 900], ">u2").tobytes())
    dataset = open_dataset(tmp_path)
    assert with_value_range(dataset) is dataset
    assert read_image(dataset.file(0))[0, 1, 0] == 56  # 900 / 4095 * 255
    given = with_value_range(dataset, (0, 900))
    assert given.value_range == (0, 900)
    assert read_image(dataset.file(0), value_range=given.value_range)[0, 1, 0] == 255


def test_a_given_range_is_used_and_clipping_said(tmp_path: Path) -> None:
    dataset = with_value_range(open_dataset(write(tmp_path, "png", np.uint16, 4095)), (0, 2000))
    assert dataset.value_range == (0, 2000)
    assert any("12 of 12 images" in note and "clipped" in note for note in dataset.notes)
    whole = with_value_range(open_dataset(tmp_path), (0, 4095))
    assert not any("clipped" in note for note in whole.notes)


def test_unreadable_files_do_not_matter(tmp_path: Path) -> None:
    folder = write(tmp_path, "tif", np.uint16, 4095)
    for name in ("0.tif", "2.tif"):
        (folder / "class 0" / name).write_bytes(b"II*\0" + b"\xff" * 40)
    (folder / "class 0" / "4.tif").write_bytes(b"")
    assert with_value_range(open_dataset(folder)).value_range == (0, 4095)


def test_the_sample_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    for i in range(2 * module.SAMPLE + 3):
        Image.fromarray(scene(i, 1000 + i).astype(np.uint16)).save(tmp_path / f"{i:03}.png")
    files = sorted(tmp_path.glob("*.png"))
    one = with_value_range(ImageDataset.from_files(files))
    other = with_value_range(ImageDataset.from_files(files[::-1]))
    assert one.value_range == other.value_range is not None


def test_test_images_do_not_change_the_range(tmp_path: Path) -> None:
    write(tmp_path / "train", "png", np.uint16, 1000)
    write(tmp_path / "test", "png", np.uint16, 1900)
    assert with_value_range(open_dataset(tmp_path)).value_range == (0, 1000)


def test_an_input_spec_with_a_range() -> None:
    plain, ranged = InputSpec(64, 64), InputSpec(64, 64, value_range=(0, 4095))
    assert plain.to_dict().keys() == {"height", "width", "fit", "interpolation"}
    assert plain.key() == "64x64-stretch-auto" != ranged.key()
    assert ranged.key() != InputSpec(64, 64, value_range=(0, 4096)).key()
    assert InputSpec.from_dict(json.loads(json.dumps(ranged.to_dict()))) == ranged


ARRAYS = [
    (np.uint16, 4095, 0),
    (np.int32, 70_000, -3),
    (np.float32, 1, 0),
    (np.float64, 300, 100),
    (np.float32, 1.0000001, 0),
]


@pytest.mark.parametrize(("dtype", "top", "low"), ARRAYS)
def test_arrays_are_scaled_by_one_range(
    dtype: type, top: float, low: float, tmp_path: Path
) -> None:
    arrays = np.stack([scene(i, top, low).astype(dtype) for i in range(6)])
    arrays[1] = arrays[1] * 0.5 + low * 0.5  # half as bright: no image has its own scale
    expected = (np.clip(arrays.astype(float), low, top) - low) / (top - low) * 255
    np.savez(tmp_path / "d.npz", x=arrays, y=np.arange(6) % 2)
    for dataset in (
        as_dataset(arrays, list("ababab")),
        as_dataset(list(arrays), list("ababab")),
        open_dataset(tmp_path / "d.npz"),
    ):
        assert dataset.value_range == pytest.approx((low, top))
        assert dataset.notes and with_value_range(dataset) is dataset
        loaded = np.stack([dataset.load(i)[..., 0] for i in range(6)])  # type: ignore[index]
        assert np.abs(loaded - expected).max() <= 0.5 + 1e-3
    given = as_dataset(arrays, list("ababab"), value_range=(low, 2 * top))
    assert given.value_range == (low, 2 * top)


def test_whole_numbers_to_255_are_left_alone() -> None:
    arrays = scene(0, 255).round()[None]
    for dtype in (np.uint8, np.int64, np.float32):
        dataset = as_dataset(arrays.astype(dtype))
        assert dataset.value_range is None and dataset.notes == ()
        np.testing.assert_array_equal(dataset.load(0)[..., 0], arrays[0])  # type: ignore[index]


def test_files_of_arrays_share_one_range(tmp_path: Path) -> None:
    for name, top in (("train", 4095), ("test", 2000)):
        arrays = np.stack([scene(i, top).astype(np.uint16) for i in range(4)])
        np.savez(tmp_path / f"{name}.npz", x=arrays, y=np.arange(4) % 2)
    dataset = open_dataset(tmp_path)
    assert dataset.value_range == (0, 4095)
    row = dataset.split.index("test")
    assert dataset.load(row).max() == 125  # type: ignore[union-attr]  # 2000 / 4095 * 255 = 124.5
    both = open_splits(tmp_path / "train.npz", test=tmp_path / "test.npz")
    assert both.value_range == (0, 4095)
    assert both.load(4).max() == 125  # type: ignore[union-attr]


@pytest.fixture
def ranged(trained, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    """A bundle whose training had a range of 0 to 4,095."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("bundle.json", "model.tflite"):
        shutil.copy(trained.run / name, folder / name)
    facts = json.loads((folder / "bundle.json").read_text("utf-8"))
    facts["input"]["value_range"] = [0, 4095]
    (folder / "bundle.json").write_text(json.dumps(facts))
    return folder


def test_a_prediction_uses_the_range_of_the_training(ranged: Path, tmp_path: Path) -> None:
    values = scene(0, 4095)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "float.tif")
    eight = np.floor(values.astype(np.uint16) / 4095 * 255 + 0.5).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "eight.png")
    Image.fromarray((values * 2).astype(np.uint16)).save(tmp_path / "bright.png")
    predictor = Predictor(ranged)
    names = [tmp_path / f"{name}" for name in ("eight.png", "deep.png", "bright.png")]
    plain, deep, bright = predictor.predict(names)
    np.testing.assert_array_equal(plain.logits, deep.logits)
    assert (plain.is_clipped, deep.is_clipped, bright.is_clipped) == (False, False, True)
    assert bright.clipped == pytest.approx(0.5, abs=0.05)
    array = as_dataset(values.astype(np.uint16)[None], value_range=(0, 4095))
    (from_array,) = predictor.predict_dataset(array)
    np.testing.assert_array_equal(from_array.logits, plain.logits)


def test_images_of_more_bits_than_those_of_the_training_are_noted(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    values = scene(0, 4095).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray((values // 16).astype(np.uint8)).save(tmp_path / "eight.png")
    result = CliRunner().invoke(app, ["predict", str(trained.run), str(tmp_path)])
    assert "1 of 2 images had more than 8 bits" in " ".join(result.stderr.split())
    eight = CliRunner().invoke(app, ["predict", str(trained.run), str(tmp_path / "eight.png")])
    assert "8 bits" not in eight.stderr


def test_arrays_of_another_range_are_refused(ranged: Path, trained) -> None:  # type: ignore[no-untyped-def]
    other = as_dataset((scene(0, 1000)[None]).astype(np.uint16))
    for bundle, message in ((ranged, r"value_range=\(0.0, 4095.0\)"), (trained.run, "uint8")):
        with pytest.raises(DatasetError, match=message):
            list(Predictor(bundle).predict_dataset(other))
    usual = as_dataset(scene(0)[None].astype(np.float32))  # floats from 0 to 1
    assert len(list(Predictor(trained.run).predict_dataset(usual))) == 1


def test_a_training_states_the_range_and_a_second_fit_can_set_it(  # type: ignore[no-untyped-def]
    backbone, tmp_path: Path
) -> None:
    from kindsight import ImageClassifier

    folder = write(tmp_path / "data", "png", np.uint16, 4095)
    fitted = ImageClassifier(size=64).fit(folder)
    bundle = fitted.save(tmp_path / "bundle")
    assert bundle.spec.value_range == (0, 4095)
    deep = scene(1, 4095)[None].astype(np.uint16)
    eight = np.floor(deep / 4095 * 255 + 0.5).astype(np.uint8)
    loaded = ImageClassifier.load(tmp_path / "bundle")
    for classifier in (fitted, loaded):
        np.testing.assert_allclose(
            classifier.predict_proba(deep), classifier.predict_proba(eight), atol=1e-6
        )
    given = ImageClassifier(size=64, value_range=(0, 8190)).fit(folder)
    brighter = given.predict_proba(deep * 2)
    np.testing.assert_allclose(brighter, given.predict_proba(eight), atol=2e-2)
