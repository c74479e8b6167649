"""The exported web page in headless Chromium: its pixels, predictions, controls and policy."""

from __future__ import annotations

import base64
import csv
import functools
import gzip
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from audit import AXE, browser
from driven_page import choose_files, opened_chromium, view
from PIL import Image

import tiny_bundle
from kindsight.bundle import load_bundle
from kindsight.errors import KindsightError
from kindsight.export.web.chromium import Chromium
from kindsight.export.web.packing import as_text, pack_model, round_weights
from kindsight.export.web.target import PAGE_FILE, SITE, Web, WebModel
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.models.formats.tflite import compact
from kindsight.predictor import Predictor
from kindsight.web.library import SOURCES, join_modules, load_library
from shapes import shape

pytestmark = pytest.mark.slow

SIDE = 96
MODES = ("RGB", "RGBA", "L", "LA", "P", "P with alpha", "I;16", "1", "colour key")

CLASSIFY = """
(async () => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const answer = await kindsight.classify({ blob: new Blob([bytes]) }, 0, true);
  let text = "";
  for (const value of answer.pixels) text += String.fromCharCode(value);
  return btoa(text);
})()
"""

RESTORE = """
(() => {
  %s
  return [...packing.restoreModel(packing.fromText("%s", %d))];
})()
"""

IDLE = """
new Promise((done) => {
  const look = () => {
    const isBusy = document.querySelector(".is-waiting, [aria-busy], #progress:not(:empty)");
    if (isBusy) setTimeout(look, 20);
    else requestAnimationFrame(() => setTimeout(done, 50));
  };
  look();
})
"""


@pytest.fixture(scope="module", autouse=True)
def needs() -> str:
    """Chromium, axe and LiteRT.js; without them, these tests are skipped."""
    found = browser()
    try:
        load_library()
    except KindsightError as error:
        if os.environ.get("KINDSIGHT_NEEDS_BROWSER"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    return found


def export(bundle: Path, folder: Path) -> Path:
    """Return the folder of an export."""
    folder.mkdir()
    Web().convert(load_bundle(bundle), folder, None)
    return folder


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory) -> Path:
    """A trained classifier that is unsure of some images."""
    folder = tmp_path_factory.mktemp("web") / "<b>shapes"
    folder.mkdir()
    for name in ("bundle.json", "model.tflite"):
        shutil.copy(trained.run / name, folder / name)
    content = json.loads((folder / "bundle.json").read_text("utf-8"))
    content["uncertainty"]["unsure"]["threshold"] = 0.7
    content["classes"][2] = "<img src=x onerror=document.title='foreign'>"
    (folder / "bundle.json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory) -> Path:
    return export(bundle, tmp_path_factory.mktemp("page") / "web")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Images with a label, without, of none of the classes, and a file that is none."""
    folder = tmp_path_factory.mktemp("files")
    found = []
    for kind in ("ring", "bar", "chequer"):
        for seed in range(500, 506):
            found.append(folder / f"{kind}-{seed}.png")
            Image.fromarray(shape(kind, seed)).save(found[-1])
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2, :, 0] = 255
    found.append(folder / "=stripes.png")
    Image.fromarray(stripes).save(found[-1])
    found.append(folder / "<img src=x onerror=alert(1)>\u202e.png")
    found[-1].write_bytes(found[0].read_bytes())
    found.append(folder / "broken.png")
    found[-1].write_bytes(found[0].read_bytes()[:-40])
    return found


@pytest.fixture
def chromium(needs) -> Iterator[Chromium]:
    with opened_chromium(needs) as opened:
        yield opened


def load(chromium: Chromium, exported: Path) -> None:
    chromium.open((exported / PAGE_FILE).as_uri())
    chromium.evaluate("kindsight.ready.then(() => 0)")


def choose(chromium: Chromium, paths: list[Path]) -> None:
    """Choose files in the page and wait for their results."""
    choose_files(chromium, "#files", paths)
    chromium.evaluate(IDLE)


def png(random: np.random.Generator, mode: str, orientation: int) -> bytes:
    """Return a PNG file of a kind, with smooth and noisy content and a random size."""
    height, width = (int(2 ** random.uniform(3, 9)) for _ in range(2))
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / random.uniform(3, 40) + y / random.uniform(3, 40) + c) for c in range(3)]
    noise = random.normal(0, random.uniform(0, 40), (height, width, 3))
    values = (128 + 100 * np.stack(waves, -1) + noise).clip(0, 255)
    pixels = values.astype(np.uint8)
    alpha = random.integers(0, 256, (height, width), dtype=np.uint8)
    options: dict[str, object] = {}
    if mode == "RGBA":
        image = Image.fromarray(np.dstack([pixels, alpha]))
    elif mode == "L":
        image = Image.fromarray(pixels[..., 0])
    elif mode == "LA":
        image = Image.fromarray(np.dstack([pixels[..., 0], alpha]), "LA")
    elif mode.startswith("P"):
        image = Image.fromarray(pixels).quantize(int(random.choice([2, 4, 16, 64])))
        if "alpha" in mode:
            options["transparency"] = bytes(random.integers(0, 256, 64, dtype=np.uint8))
    elif mode == "I;16":
        image = Image.fromarray((values[..., 0] * 257).astype(np.uint16))
    elif mode == "1":
        image = Image.fromarray(pixels[..., 0]).convert("1")
    else:
        image = Image.fromarray(pixels)
        if mode == "colour key":
            options["transparency"] = tuple(int(value) for value in pixels[0, 0])
    if orientation > 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_pixels_are_those_of_the_package(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_bundle, "SIDE", SIDE)
    exported = export(tiny_bundle.write_bundle(tmp_path / "tiny"), tmp_path / "out")
    whole = (exported / PAGE_FILE).read_text("utf-16")
    random = np.random.default_rng(21)
    values = differing = largest = images = 0
    specs = [("stretch", "auto"), ("crop", "auto"), ("pad", "auto"), ("crop", "area"),
             ("pad", "linear")]  # fmt: skip
    for number, (fit, interpolation) in enumerate(specs):
        # The policy covers the scripts; the description of the model is data.
        page = whole.replace('"fit": "stretch"', f'"fit": "{fit}"', 1)
        page = page.replace('"interpolation": "area"', f'"interpolation": "{interpolation}"', 1)
        path = tmp_path / f"{number}.html"
        path.write_text(page, "utf-16")
        chromium.open(path.as_uri())
        spec = InputSpec(SIDE, SIDE, fit, interpolation)
        for image in range(40):
            data = png(random, MODES[image % len(MODES)], 1 + image % 8)
            expected = resize_image(read_image(data, target=spec.size), spec)
            text = chromium.evaluate(CLASSIFY % base64.b64encode(data).decode())
            found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(expected.shape)
            difference = np.abs(found.astype(int) - expected)
            largest = max(largest, int(difference.max()))
            differing += int((difference > 0).sum())
            values += difference.size
            images += 1
    assert images == 200
    assert largest <= 1
    assert differing <= 1e-4 * values


def test_samples_of_16_bits_are_scaled_by_the_range_of_the_training(chromium, tmp_path):
    folder = tiny_bundle.write_bundle(tmp_path / "tiny")
    content = json.loads((folder / "bundle.json").read_text("utf-8"))
    content["input"]["value_range"] = [100.0, 4000.0]
    (folder / "bundle.json").write_text(json.dumps(content), "utf-8")
    load(chromium, export(folder, tmp_path / "out"))
    values = np.random.default_rng(0).integers(0, 5000, (tiny_bundle.SIDE,) * 2, dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    text = chromium.evaluate(CLASSIFY % base64.b64encode(file.getvalue()).decode())
    found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(*values.shape, 3)
    expected = np.floor((values.clip(100, 4000) - 100) / 3900 * 255 + 0.5)
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=2))


def test_predictions_are_those_of_the_package(needs, exported, bundle, files):
    random = np.random.default_rng(3)
    data = [path.read_bytes() for path in files]
    data += [png(random, MODES[number % len(MODES)], 1 + number % 8) for number in range(40)]
    model = WebModel(needs, exported / PAGE_FILE)
    try:
        probabilities, scores = model.predict_files(data)
    finally:
        model.close()
    for row, prediction in enumerate(Predictor(bundle).predict(data)):
        if prediction.error is not None:
            assert np.isnan(probabilities[row]).all()
            continue
        np.testing.assert_allclose(probabilities[row], prediction.probabilities, atol=2e-3)
        assert probabilities[row].argmax() == prediction.probabilities.argmax()
        assert scores[row] == pytest.approx(prediction.ood_score, rel=0.01)
    assert np.isnan(probabilities).all(axis=1).sum() == 1


def test_the_page_shows_and_writes_what_predict_does(chromium, exported, bundle, files):
    view(chromium, 1280, height=3000)  # the grid makes those cards alone that are seen
    load(chromium, exported)
    choose(chromium, files)
    shown = chromium.evaluate(
        "[...document.querySelectorAll('.card')].map((card) => "
        "[card.className, card.querySelector('.text').textContent])"
    )
    predictions = list(Predictor(bundle).predict(files))
    words = {"unsure": "Unsure", "unknown": "None of these"}
    for (kind, text), prediction in zip(shown, predictions, strict=True):
        if prediction.error is not None:
            assert (kind, text) == ("card is-error", "Unreadable")
        elif prediction.reason:
            assert (kind, text) == (f"card is-{prediction.reason}", words[prediction.reason])
        else:
            assert (kind, text) == ("card is-label", prediction.label)
    assert {"is-label", "is-unsure", "is-unknown", "is-error"} == {
        kind.split()[1] for kind, _ in shown
    }
    chromium.evaluate(
        "URL.createObjectURL = (blob) => { globalThis.table = blob; return '#'; };"
        "document.getElementById('csv').click()"
    )
    rows = list(csv.DictReader(io.StringIO(chromium.evaluate("table.text()"))))
    assert len(rows) == len(files)
    for row, path, prediction in zip(rows, files, predictions, strict=True):
        name = f"./{path.name}" if path.name.startswith("=") else path.name
        assert row["path"] == name
        assert row["label"] == (prediction.label or "")
        assert row["reason"] == prediction.reason
        if prediction.error is None:
            assert float(row["confidence"]) == pytest.approx(prediction.confidence, abs=2e-3)
            assert row["best"] == prediction.best
        else:
            assert row["error"] == "unreadable"
            assert row["message"].startswith("The PNG file ")
    # Names of files and classes are text.
    assert chromium.evaluate("document.title") == "<b>shapes"
    assert chromium.evaluate("document.querySelectorAll('h1 b, img[src=x]').length") == 0
    assert "\u202e" not in chromium.evaluate("document.body.innerText")


def test_filter_sorting_and_arrow_keys(chromium, exported, files):
    load(chromium, exported)
    choose(chromium, files)
    kinds = "[...document.querySelectorAll('.card')].map((card) => card.className)"
    change = "(() => { const box = document.getElementById('%s'); box.value = '%s'; "
    change += "box.dispatchEvent(new Event('change')); })()"
    chromium.evaluate(change % ("filter", "kind unsure"))
    chromium.evaluate(IDLE)
    assert set(chromium.evaluate(kinds)) == {"card is-unsure"}
    chromium.evaluate(change % ("filter", ""))
    chromium.evaluate(change % ("sort", "high"))
    chromium.evaluate(IDLE)
    numbers = chromium.evaluate(
        "[...document.querySelectorAll('.card.is-label .number')].map((e) => e.textContent)"
    )
    shares = [float(number.strip("<>%")) for number in numbers]
    assert shares == sorted(shares, reverse=True)
    focused = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
    chromium.evaluate("document.querySelector('.card').focus()")
    for key, expected in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        chromium.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        assert chromium.evaluate(focused) == expected
    chromium.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
    chromium.call("Input.dispatchKeyEvent", type="keyUp", key="Enter")
    current = "[...document.querySelectorAll('.card')].findIndex((e) => e.ariaCurrent)"
    assert chromium.evaluate(current) == 1


def test_pasted_and_dropped_images_are_classified(chromium, exported, files):
    load(chromium, exported)
    give = """
    (() => {
      const transfer = new DataTransfer();
      const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
      transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
      dispatchEvent(new %s);
    })()
    """
    data = base64.b64encode(files[0].read_bytes()).decode()
    for number, event in enumerate(
        ("ClipboardEvent('paste', { clipboardData: transfer })",
         "DragEvent('drop', { dataTransfer: transfer, cancelable: true })"), 1,
    ):  # fmt: skip
        chromium.evaluate(give % (data, event))
        chromium.evaluate("new Promise((done) => setTimeout(done, 200))")
        chromium.evaluate(IDLE)
        assert chromium.evaluate("document.querySelector('#verdict .bars li') !== null")
        assert chromium.evaluate("document.querySelectorAll('.card').length") == (0, 2)[number - 1]
    chromium.evaluate("document.getElementById('clear').click()")
    assert chromium.evaluate("document.getElementById('result').hidden")


def test_the_webcam_is_classified_live_and_its_photo_kept(chromium, exported):
    load(chromium, exported)
    chromium.evaluate("document.getElementById('webcam').click()")
    wait = "new Promise((done) => { const look = () => document.querySelector('%s') "
    wait += "? done(true) : setTimeout(look, 50); look(); })"
    assert chromium.evaluate(wait % ".is-used:has(#take:enabled) #verdict .bars")
    chromium.evaluate("document.getElementById('take').click()")
    assert chromium.evaluate(wait % "#result:has(#photo:not([hidden])) #verdict .bars")
    assert chromium.evaluate("document.getElementById('name').textContent") == "webcam-1.png"
    assert chromium.evaluate("document.getElementById('video').srcObject") is None


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_violation(chromium, exported, files, dark, width):
    view(chromium, width, dark)
    load(chromium, exported)
    run = "axe.run(document, {resultTypes: ['violations']}).then((result) => "
    run += "result.violations.map((rule) => rule.id + ' ' + rule.nodes[0].html))"
    chromium.evaluate(AXE.read_text("utf-8") + ";0")
    assert chromium.evaluate(run) == []
    choose(chromium, files[-9:])
    for kind in ("label", "unsure", "unknown", "error"):
        chromium.evaluate(f"document.querySelector('.card.is-{kind}')?.click()")
        assert chromium.evaluate(run) == []
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width


class _Handler(SimpleHTTPRequestHandler):
    """A static host that sends the headers of the file ``_headers``."""

    def end_headers(self) -> None:
        lines = Path(self.directory, "_headers").read_text("utf-8").splitlines()[1:]
        for line in lines:
            name, _, value = line.strip().partition(": ")
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Utf8Handler(SimpleHTTPRequestHandler):
    """A host that says of every page that it is UTF-8."""

    def guess_type(self, path: str) -> str:
        return "text/html; charset=utf-8"

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_file_works_on_a_host_that_says_utf_8(chromium, exported, files):
    handler = functools.partial(_Utf8Handler, directory=str(exported))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        chromium.open(f"http://127.0.0.1:{server.server_port}/{PAGE_FILE}")
        chromium.evaluate("kindsight.ready.then(() => 0)")
        choose(chromium, files[:1])
        assert chromium.evaluate("document.querySelectorAll('#verdict .bars li').length") == 3
    finally:
        server.shutdown()
        server.server_close()


def test_the_page_restores_the_rounded_model(chromium):
    kernel = np.random.default_rng(0).normal(size=(1000, 3)).astype("<f4")
    content = compact(tiny_bundle.tflite_bytes(1000, kernel))
    modules = {"packing.js": (SOURCES / "page" / "packing.js").read_text("utf-8")}
    packing = join_modules(modules, "packing.js", name="packing")
    rounded = round_weights(content, 14)
    packed = gzip.decompress(pack_model(content, 14))
    assert rounded != content
    found = chromium.evaluate(RESTORE % (packing, as_text(packed), len(packed)))
    assert bytes(found)[: len(rounded)] == rounded


def test_the_folder_works_on_a_host_with_a_strict_policy(chromium, exported, files):
    handler = functools.partial(_Handler, directory=str(exported / SITE))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        chromium.open(f"http://127.0.0.1:{server.server_port}/")
        chromium.evaluate("kindsight.ready.then(() => 0)")
        choose(chromium, files[:1])
        assert chromium.evaluate("document.querySelectorAll('#verdict .bars li').length") == 3
        assert [each for each in chromium.messages if "Security Policy" in each] == []
        chromium.evaluate(
            "(() => { const foreign = document.createElement('script');"
            "foreign.textContent = 'document.title = \"foreign\"'; document.body.append(foreign); "
            "})()"
        )
        assert chromium.evaluate("document.title") == "<b>shapes"
        assert [each for each in chromium.messages if "Security Policy" in each]
    finally:
        server.shutdown()
        server.server_close()
