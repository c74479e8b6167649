"""The conformance kit: its images, the resize written again, and the examples of its README."""

from __future__ import annotations

import io
import json
import re
import runpy
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from kindsight.bundle import load_bundle
from kindsight.errors import KindsightError
from kindsight.export.images import images_of_run
from kindsight.export.kit import drawings as drawings_module
from kindsight.export.kit.drawings import draw_files
from kindsight.export.kit.write import make_kit, readme
from kindsight.export.run import export_bundle
from kindsight.export.targets import TARGETS, find_targets
from kindsight.export.web.chromium import Chromium, find_browser
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.web.library import load_library

RESIZE = Path(drawings_module.__file__).with_name("resize.py")


@pytest.fixture(scope="module")
def program() -> dict:
    """The program that every kit has; it imports NumPy and Pillow alone."""
    return runpy.run_path(str(RESIZE))


@pytest.fixture(scope="module")
def export(trained, tmp_path_factory):
    """Return a function that exports the trained classifier and returns the kit's folder."""
    out = tmp_path_factory.mktemp("exports")

    def make(name: str) -> Path:
        if not (out / name).exists():
            bundle = load_bundle(trained.run)
            (done,) = export_bundle(bundle, find_targets(name), out, images_of_run(bundle, 6))
            assert done.status == "proved", done.faults
        return out / name / "kit"

    return make


# The resize, written again


def test_the_program_needs_numpy_and_pillow_alone():
    found = set(re.findall(r"^(?:from|import) (\w+)", RESIZE.read_text("utf-8"), re.MULTILINE))
    assert found - set(sys.stdlib_module_names) == {"numpy", "PIL"}


def test_linear_interpolation_by_hand(program):
    # 2 -> 4 columns: centres at -0.25, 0.25, 0.75, 1.25, the first and the last beyond the border.
    image = np.array([[[0, 100, 8], [200, 20, 8]]], np.uint8)
    expected = [[[0, 100, 8], [50, 80, 8], [150, 40, 8], [200, 20, 8]]]
    np.testing.assert_array_equal(program["resize"](image, 1, 4), expected)


def test_areas_by_hand(program):
    # 5 -> 2 columns: 2.5 pixels each.
    image = np.array([10, 20, 30, 40, 50], np.uint8)[None, :, None].repeat(3, 2)
    result = program["resize"](image, 1, 2)
    assert result[0, :, 0].tolist() == [18, 42]  # (10 + 20 + 15) / 2.5, (15 + 40 + 50) / 2.5


def noise(random, size):
    return random.integers(0, 256, (*size, 3)).astype(np.uint8)


def ramps(random, size):
    y, x = np.indices(size)
    return np.stack([x * 255 // size[1], y * 255 // size[0], (x + y) % 256], 2).astype(np.uint8)


@pytest.mark.parametrize("draw", [noise, ramps])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(
    ("interpolation", "fraction"),
    [("auto", 5e-4), ("area", 5e-4), ("linear", 0), ("cubic", 5e-3), ("nearest", None)],
)
def test_the_program_gives_the_pixels_of_the_package(program, draw, fit, interpolation, fraction):
    random, differing, values = np.random.default_rng([3, len(fit)]), 0, 0
    for number in range(30):
        before, after = random.integers(1, 260, 2), random.integers(1, 130, 2)
        if number % 5 == 0:  # whole factors
            before = after * (2 + number % 2)
        spec = InputSpec(int(after[0]), int(after[1]), fit, interpolation)
        image = draw(random, before.tolist())
        ours = resize_image(image, spec).astype(int)
        again = program["resize"](image, **spec.to_dict())
        assert again.dtype == np.uint8 and again.shape == ours.shape
        difference = np.abs(ours - again)
        if fraction is not None:
            assert difference.max() <= 1
        differing += np.count_nonzero(difference)
        values += difference.size
    # Of the nearest pixel, there may be two.
    assert differing <= (0.02 if fraction is None else fraction) * values


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(224, 224, "crop"),
        InputSpec(96, 64),
        InputSpec(33, 48, "pad"),
        InputSpec(64, 64, "crop", value_range=(1000, 40000)),
        InputSpec(1, 1),
    ],
)
def test_the_program_reads_every_file_of_the_kit_as_the_package(program, spec):
    for drawing in draw_files(spec):
        image = read_image(drawing.data, target=spec.size, value_range=spec.value_range)
        ours = resize_image(image, spec).astype(int)
        rule = spec.to_dict()
        again = program["resize"](program["read"](io.BytesIO(drawing.data), rule), **rule)
        difference = np.abs(ours - again)
        assert difference.max() <= (1 if drawing.lossless else 3), drawing.name
        assert difference.mean() < 0.5, drawing.name


# The images


def test_the_images_are_of_the_kinds_that_go_wrong():
    files = draw_files(InputSpec(64, 96))
    assert len(files) == 20 == len({drawing.name for drawing in files})
    opened = {each.name.partition("-")[2]: Image.open(io.BytesIO(each.data)) for each in files}
    modes = {name: image.mode for name, image in opened.items()}
    assert modes["cmyk.jpg"] == "CMYK" and modes["grey.png"] == "L"
    assert modes["grey-16-bit.png"] == "I;16" and modes["transparent.png"] == "RGBA"
    assert opened["turned.jpg"].getexif()[0x0112] == 6
    assert opened["wide.png"].width > 3 * 96 and opened["wide.png"].height < 64
    assert opened["tall.png"].height > 3 * 64 and opened["tall.png"].width < 96
    assert opened["same.png"].size == (96, 64) and opened["pixel.png"].size == (1, 1)
    assert opened["animation.gif"].n_frames == 2
    assert [each.data for each in draw_files(InputSpec(64, 96))] == [each.data for each in files]


# The folder, and the examples


def test_the_folder_has_pixels_and_probabilities_of_each_image(trained, export):
    kit = export("litert")
    assert {path.name for path in kit.iterdir()} == {
        "README.md", "expected.json", "images", "pixels", "resize.md", "resize.py"
    }  # fmt: skip
    expected = json.loads((kit / "expected.json").read_text("utf-8"))
    bundle = load_bundle(trained.run)
    assert tuple(expected["classes"]) == bundle.classes and expected["source"] == "export"
    assert len(expected["images"]) == 20
    for image in expected["images"]:
        data = (kit / image["file"]).read_bytes()
        pixels = resize_image(read_image(data, target=bundle.spec.size), bundle.spec)
        with Image.open(kit / image["pixels"]) as stored:
            np.testing.assert_array_equal(pixels, np.array(stored))
        assert sum(image["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert image["probabilities"] == pytest.approx(image["classifier"], abs=1e-3)
        assert image["ood_score"] > 0
        if image["reason"]:
            assert image["label"] is None
        else:
            best = expected["classes"][int(np.argmax(image["probabilities"]))]
            assert image["label"] == best


def test_an_export_that_was_not_run_has_the_classifier_s_probabilities(trained, tmp_path):
    kit = make_kit(load_bundle(trained.run))
    folder = kit.write(tmp_path, TARGETS["coreml"], None)
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    assert expected["source"] == "classifier"
    assert expected["images"][0]["probabilities"] == expected["images"][0]["classifier"]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_an_example_in_its_language(name):
    text = readme(name)
    languages = {"coreml": {"swift"}, "web": {"javascript"}}.get(name, {"python"})
    languages |= {"kotlin", "swift"} if name.startswith("litert") else set()
    assert set(re.findall(r"^```(\w+)", text, re.MULTILINE)) == languages
    assert text.startswith("# Conformance kit") and "tolerance" in text
    for code in re.findall(r"^```\w+\n(.*?)```", text, re.MULTILINE | re.DOTALL):
        assert len(code.splitlines()) <= 15


def run_example(kit: Path, code: str) -> list[float]:
    """Run a README's Python in the kit's folder; return the difference of each image."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=kit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("images/")]
    assert len(lines) == 20
    return [float(line[-1]) for line in lines]


def example(kit: Path, language: str) -> str:
    pattern = rf"^```{language}\n(.*?)```"
    (code,) = re.findall(pattern, (kit / "README.md").read_text("utf-8"), re.M | re.S)
    return code


def test_the_python_example_returns_what_is_expected(export):
    kit = export("litert")
    tolerance = json.loads((kit / "expected.json").read_text("utf-8"))["tolerance"]
    code = example(kit, "python")
    assert max(run_example(kit, code)) <= tolerance["probabilities"]
    swapped = code.replace("pixels[None]", "pixels[None, ..., ::-1]")
    assert swapped != code
    assert max(run_example(kit, swapped)) > 5 * tolerance["probabilities"]
    scaled = code.replace("astype(np.float32)", "astype(np.float32) / 255")
    assert max(run_example(kit, scaled)) > 5 * tolerance["probabilities"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["litert-int8", "onnx", "openvino", "savedmodel"])
def test_the_python_example_of_other_runtimes_returns_what_is_expected(name, export):
    try:
        kit = export(name)
    except KindsightError as error:  # the converter's package is not installed
        pytest.skip(str(error))
    tolerance = json.loads((kit / "expected.json").read_text("utf-8"))["tolerance"]
    assert max(run_example(kit, example(kit, "python"))) <= tolerance["probabilities"]


@pytest.mark.slow
def test_the_javascript_example_returns_what_is_expected(export):
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium")
    try:
        load_library()
    except KindsightError as error:
        pytest.skip(str(error))
    kit = export("web")
    handler = partial(SimpleHTTPRequestHandler, directory=str(kit.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = Chromium(browser, network=True)
        try:
            page.open(f"http://127.0.0.1:{server.server_port}/site/")
            code = example(kit, "javascript").replace("console.table(found)", "return found")
            found = page.evaluate(f"(async () => {{ {code} }})()")
        finally:
            page.close()
            server.shutdown()
    differences = {Path(row["file"]).name: row["difference"] for row in found}
    assert len(differences) == 20
    lossless = [value for name, value in differences.items() if not name.endswith(".jpg")]
    assert max(lossless) <= 5e-3
