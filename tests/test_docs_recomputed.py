"""Code of the documentation that recomputes what kindsight computes gives the same numbers."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.images import InputSpec, read_image, resize_image
from kindsight.predictor import Predictor
from run_page import blocks
from tiny_bundle import CLASSES, write_bundle

DOCS = Path(__file__).resolve().parents[1] / "docs"
GUIDE = DOCS / "guide" / "bundle.md"
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("auto", "area", "linear", "cubic", "nearest")


def python_block(page: Path, words: str) -> str:
    """Return the one Python block of a page that has these words."""
    (found,) = (
        block.text
        for block in blocks(page.read_text("utf-8"))
        if block.language == "python" and words in block.text
    )
    return found


def gradient(height: int, width: int, channels: int) -> np.ndarray:
    """Return an image whose every corner has another colour, with noise."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [255 * down, 255 * across, 255 * (1 - down * across), 255 * np.abs(across - down)]
    image = np.stack(planes[:channels], axis=2)
    noise = np.random.default_rng(0).normal(0, 20, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_images(folder: Path) -> dict[str, Path]:
    """Write images of other shapes, orientations and modes than square RGB."""
    images = {
        "tall.jpg": (gradient(61, 22, 3), {}),
        "wide.jpg": (gradient(33, 150, 3), {}),
        "small.png": (gradient(5, 4, 3), {}),
        "thin.png": (gradient(40, 1, 3), {}),
        "half.png": (gradient(15, 17, 3), {}),
        "same size.png": (gradient(8, 12, 3), {}),
        **{f"exif {n}.jpg": (gradient(90, 37, 3), {"exif": turned(n)}) for n in (2, 3, 5, 6, 8)},
        "exif 6.webp": (gradient(30, 45, 3), {"exif": turned(6), "lossless": True}),
        "exif 8.tif": (gradient(30, 45, 3), {"exif": turned(8)}),
        "exif 6 alpha.png": (gradient(30, 45, 4), {"exif": turned(6)}),
        "grey.jpg": (gradient(70, 45, 1)[..., 0], {}),
        "grey.png": (gradient(20, 45, 1)[..., 0], {}),
        "alpha.png": (gradient(50, 45, 4), {}),
        "grey alpha.png": (gradient(19, 45, 2), {}),
    }
    folder.mkdir()
    paths = {}
    for name, (pixels, options) in images.items():
        paths[name] = folder / name
        Image.fromarray(pixels).save(paths[name], **options)
    palette = Image.fromarray(gradient(50, 45, 3)).quantize(16)
    paths["palette.gif"] = folder / "palette.gif"
    palette.save(paths["palette.gif"], transparency=3)
    return paths


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle at the path that the page names; it is the current folder's."""
    monkeypatch.chdir(tmp_path)
    return write_bundle(tmp_path / "runs" / "photos-1", temperature=1.7)


def change_input(run: Path, **settings: object) -> None:
    path = run / "bundle.json"
    content = json.loads(path.read_text("utf-8"))
    content["input"].update(settings)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("fit", FITS)
def test_code_for_litert_gives_the_probabilities_of_predict(
    run: Path, tmp_path: Path, fit: str
) -> None:
    change_input(run, fit=fit, interpolation="auto")
    code = compile(python_block(GUIDE, "Interpreter("), str(GUIDE), "exec")
    images = write_images(tmp_path / "images")
    (tmp_path / "new").mkdir()
    predictor = Predictor(run)
    for name, path in images.items():
        (tmp_path / "new" / "a.jpg").write_bytes(path.read_bytes())
        namespace: dict[str, object] = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        (prediction,) = predictor.predict([path])
        # Pillow rounds what it blends with white in another way.
        tolerance = 2e-3 if "alpha" in name else 1e-6
        np.testing.assert_allclose(
            namespace["probabilities"], prediction.probabilities, atol=tolerance, err_msg=name
        )
        assert printed.getvalue().split()[0] == prediction.label, name
    assert prediction.classes == CLASSES


def test_code_for_litert_reads_and_resizes_as_kindsight_does(run: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.jpg").write_bytes(images["tall.jpg"].read_bytes())
    namespace: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(python_block(GUIDE, "Interpreter("), namespace)
    read, resize = namespace["read"], namespace["resize"]
    for fit, interpolation in itertools.product(FITS, INTERPOLATIONS):
        spec = InputSpec(8, 12, fit, interpolation)
        for name, path in images.items():
            ours = resize(read(path, spec.size), **spec.to_dict())
            wanted = resize_image(read_image(path, target=spec.size), spec)
            # Pillow rounds what it blends with white in another way.
            difference = np.abs(ours.astype(int) - wanted).max()
            assert difference <= (1 if "alpha" in name else 0), (fit, interpolation, name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the drop-in's about such images
def test_code_for_one_image_of_the_course_prepares_it_as_the_generator_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kindsight.preprocessing.image import ImageDataGenerator

    monkeypatch.chdir(tmp_path)
    line = python_block(DOCS / "course.md", "load_img(").split("\n\n")[1].splitlines()[0]
    assert line.endswith("/ 255")
    code = f"from kindsight.preprocessing.image import img_to_array, load_img\n{line}"
    images = tmp_path / "classes" / "a"
    images.parent.mkdir()
    write_images(images)
    (tmp_path / "new").mkdir()
    generator = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        os.fspath(images.parent), target_size=(150, 150), class_mode=None, shuffle=False
    )
    assert len(generator.filenames) > 12
    for name, expected in zip(generator.filenames, next(generator), strict=True):
        (tmp_path / "new" / "b.jpg").write_bytes((images.parent / name).read_bytes())
        namespace: dict[str, np.ndarray] = {}
        exec(code, namespace)
        np.testing.assert_allclose(namespace["image"], expected, atol=1e-6, err_msg=name)
