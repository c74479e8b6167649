"""Every check on one dataset of each file format and kind of input, and on odd measurements."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from check_images import assert_contract, file_of, scene, with_features, write_files
from fake_context import measured
from PIL import Image

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, RowFeatures, all_checks, measure_dataset, scan_folder
from kindsight.checks.measure import NUMERIC
from kindsight.dataset import ImageDataset, open_dataset
from kindsight.dataset.open import as_dataset

EACH = 20  # images of a class, the least that a check asks for
SPLITS = ("train", "test")
CLASSES = ("cat", "dog")

FORMATS = {
    "jpg": ("JPEG", "RGB"),
    "png": ("PNG", "RGB"),
    "gif": ("GIF", "P"),
    "webp": ("WebP", "RGB"),
    "bmp": ("BMP", "RGB"),
    "tif": ("TIFF", "RGB"),
    "float.tif": ("TIFF", "F"),
    "int.tif": ("TIFF", "I"),
    "deep.png": ("PNG", "I;16"),
    "alpha.png": ("PNG", "RGBA"),
    "pgm": ("PPM", "L"),
    "ppm": ("PPM", "RGB"),
    "avif": ("AVIF", "RGB"),
    "jp2": ("JPEG2000", "RGB"),
}


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Fail on NumPy's warnings about undefined results."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def scenes(n: int = 2 * EACH) -> list[np.ndarray]:
    return [scene(number, 24, 32) for number in range(n)]


def encoded(pixels: np.ndarray, name: str, mode: str) -> bytes:
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode in ("F", "I"):
        kind = np.float32 if mode == "F" else np.int32
        image = Image.fromarray(pixels[..., 0].astype(kind) * 3)
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, name)
    return file.getvalue()


def assert_every_contract(context: CheckContext) -> None:
    full = with_features(context)
    for check in all_checks():
        assert_contract(check, full)


def context_for(dataset: ImageDataset, tmp_path: Path, folder: Path | None = None) -> CheckContext:
    dataset, measurements = measure_dataset(dataset, Cache(tmp_path / "cache"), workers=2)
    assert measurements.readable.all()
    files = None if folder is None else scan_folder(folder, dataset.path)
    return CheckContext(dataset, measurements, files)


@pytest.mark.parametrize("ending", FORMATS)
def test_every_check_on_one_format(ending: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    files = {
        f"{SPLITS[i % 4 > 1]}/{CLASSES[i % 2]}/{i}.{ending}": encoded(pixels, *FORMATS[ending])
        for i, pixels in enumerate(scenes())
    }
    write_files(folder, files)
    assert_every_contract(context_for(open_dataset(folder), tmp_path, folder))


def folder_of(tmp_path: Path) -> ImageDataset:
    files = {f"{CLASSES[i % 2]}/{i}.png": pixels for i, pixels in enumerate(scenes())}
    return open_dataset(write_files(tmp_path / "photos", files))


def table_of(tmp_path: Path) -> ImageDataset:
    folder_of(tmp_path)
    rows = [f"{CLASSES[i % 2]}/{i}.png,{CLASSES[i % 2]},p{i % 9}" for i in range(2 * EACH)]
    table = tmp_path / "photos" / "labels.csv"
    table.write_text("path,label,patient\n" + "\n".join(rows) + "\n")
    return open_dataset(table)


def npz_of(tmp_path: Path) -> ImageDataset:
    labels = np.arange(2 * EACH) % 2
    np.savez(tmp_path / "digits.npz", x=np.stack(scenes()), y=labels)
    return open_dataset(tmp_path / "digits.npz")


def pixel_table_of(tmp_path: Path) -> ImageDataset:
    rows = [
        ",".join(map(str, [i % 2, *pixels[:20, :20, 0].ravel().tolist()]))
        for i, pixels in enumerate(scenes())
    ]
    names = ",".join(["label", *(f"pixel{k}" for k in range(400))])
    (tmp_path / "digits.csv").write_text("\n".join([names, *rows]) + "\n")
    return open_dataset(tmp_path / "digits.csv")


def arrays_of(tmp_path: Path) -> ImageDataset:
    return as_dataset(np.stack(scenes()), [CLASSES[i % 2] for i in range(2 * EACH)])


def list_of(tmp_path: Path) -> ImageDataset:
    dataset = folder_of(tmp_path)
    return as_dataset(
        [dataset.file(i) for i in range(len(dataset))], [str(label) for label in dataset.label]
    )


def mixed_of(tmp_path: Path) -> ImageDataset:
    endings = ("png", "jpg", "webp")
    files = {
        f"{CLASSES[i % 2]}/{i}.{endings[i % 3]}": file_of(pixels, endings[i % 3])
        for i, pixels in enumerate(scenes())
    }
    return open_dataset(write_files(tmp_path / "photos", files))


def one_patient_of(tmp_path: Path) -> ImageDataset:
    dataset = folder_of(tmp_path)
    return dataset.with_columns(group=["one"] * len(dataset))


def one_scene_of(tmp_path: Path) -> ImageDataset:
    files = {f"{CLASSES[i % 2]}/{i}.png": scene(1) for i in range(2 * EACH)}
    return open_dataset(write_files(tmp_path / "photos", files))


def one_tone_of(tmp_path: Path) -> ImageDataset:
    files = {
        f"{CLASSES[i % 2]}/{i}.png": np.full((9 + i, 20, 3), i, np.uint8) for i in range(2 * EACH)
    }
    return open_dataset(write_files(tmp_path / "photos", files))


INPUTS = (
    folder_of, table_of, npz_of, pixel_table_of, arrays_of, list_of, mixed_of, one_patient_of,
    one_scene_of, one_tone_of,
)  # fmt: skip


@pytest.mark.parametrize("make", INPUTS)
def test_every_check_on_one_kind_of_input(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert_every_contract(context_for(make(tmp_path), tmp_path))


# Measurements that some files lack. The others are defined for every image that can be read.
_NUMBERS = ("quality", "taken", "transparency", "thumbnail_difference")
_TEXTS = ("format", "mode", "subsampling", "encoder", "camera", "software")
_CONSTANT = tuple(name for name in NUMERIC.names or () if name != "hash")


def odd_context(column: str, values: object) -> CheckContext:
    random = np.random.default_rng(3)
    n = 2 * EACH
    dataset = ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)),
        label=tuple(CLASSES[i % 2] for i in range(n)),
        split=tuple(SPLITS[i % 4 > 1] for i in range(n)),
        digest=tuple(f"{i:04}" for i in range(n)),
    )
    columns = {
        name: random.integers(30, 90, n)
        for name in _CONSTANT
        if name not in ("orientation", "frames", "progressive", "transparency")
    }
    small = random.integers(0, 256, (n, 64, 64), dtype=np.uint8)
    hashes = random.integers(0, 2**63, (n, 4), dtype=np.uint64)
    measurements = measured(n, **columns | {"hash": hashes, "orientation": 1, "frames": 1})
    measurements = type(measurements)(
        measurements.numeric, measurements.text, lambda rows: small[rows]
    )
    target = measurements.text if column in measurements.text else measurements.numeric
    target[column][:] = values
    return CheckContext(dataset, measurements)


@pytest.mark.parametrize("column", _CONSTANT)
def test_every_check_with_a_constant_measurement(column: str) -> None:
    assert_every_contract(odd_context(column, 1))


@pytest.mark.parametrize("column", _NUMBERS)
def test_every_check_with_a_measurement_missing_for_some_or_all(column: str) -> None:
    n = 2 * EACH
    assert_every_contract(odd_context(column, np.nan))
    assert_every_contract(odd_context(column, np.where(np.arange(n) % 3, np.nan, 0.5)))
    # Missing for one class.
    assert_every_contract(odd_context(column, np.where(np.arange(n) % 2, np.nan, 0.5)))


@pytest.mark.parametrize("column", _TEXTS)
def test_every_check_with_a_text_missing_for_some_or_all(column: str) -> None:
    n = 2 * EACH
    assert_every_contract(odd_context(column, ""))
    for step in (2, 3):
        texts = np.where(np.arange(n) % step, "", "some").astype(object)
        assert_every_contract(odd_context(column, texts))


def test_outliers_among_images_with_equal_features() -> None:
    n = 300
    vectors = np.zeros((n, 8), np.float32)
    vectors[:, 0] = 1
    random = np.random.default_rng(0)
    vectors[:40] = random.normal(size=(40, 8))
    dataset = ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)), digest=tuple(f"{i:04}" for i in range(n))
    )
    features = RowFeatures(np.arange(n), vectors)
    alike = CheckContext(dataset, measured(n), compute_features=lambda: features)
    (outliers,) = (check for check in all_checks() if check.code == "KS404")
    assert_contract(outliers, alike)
