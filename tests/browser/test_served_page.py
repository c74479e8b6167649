"""The page of ``kindsight serve`` in headless Chromium, with a real server."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit import AXE, browser
from driven_page import choose_files, opened_chromium, view
from PIL import Image

import tiny_bundle
import tiny_conv
from kindsight.export.web.chromium import Chromium
from kindsight.export.web.pages import read_source
from running_server import RunningServer, serving

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-some-length"

GIVE = """
(() => {
  const transfer = new DataTransfer();
  for (let n = 0; n < %d; n++) {
    transfer.items.add(new File(["%s"], `image ${n}.png`, { type: "image/png" }));
  }
  dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
})()
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    """Two classifiers that are unsure of grey, and one of coloured patches, with heat maps."""
    found = []
    for name, classes in (("colours", tiny_bundle.CLASSES), ("wines", ("rosé", "vert", "rouge"))):
        folder = tiny_bundle.write_bundle(tmp_path_factory.mktemp("served") / name, classes)
        content = json.loads((folder / "bundle.json").read_text("utf-8"))
        content["uncertainty"] = {"unsure": {"accuracy": 0.9, "threshold": 0.7}}
        (folder / "bundle.json").write_text(json.dumps(content), "utf-8")
        found.append(folder)
    patches = tmp_path_factory.mktemp("served") / "patches"
    return [*found, tiny_conv.write_bundle(patches, tiny_conv.colour_weights())]


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "corrections"


@pytest.fixture(scope="module")
def server(bundles, kept) -> Iterator[RunningServer]:
    """A server of all of them that keeps corrections."""
    with serving(*bundles, options=["--keep", kept]) as started:
        yield started


@pytest.fixture(scope="module")
def opened() -> Iterator[Chromium]:
    with opened_chromium(browser()) as started:
        yield started


@pytest.fixture
def page(opened, server) -> Chromium:
    """The page of the server, ready."""
    view(opened, 1280, still=True)
    load(opened, server)
    return opened


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    colours = {**tiny_bundle.COLOURS, "grey 2": (128, 128, 128), "grey 10": (90, 90, 90)}
    found = [
        tiny_bundle.write_image(folder / f"{name}.png", rgb, 64) for name, rgb in colours.items()
    ]
    found.append(folder / "red.tif")
    Image.new("RGB", (60, 30), (255, 0, 0)).save(found[-1])
    found.append(folder / "letter.png")
    found[-1].write_text("no image")
    return found


def load(chromium: Chromium, server: RunningServer) -> None:
    chromium.messages.clear()
    chromium.open(f"http://127.0.0.1:{server.port}/")
    until(chromium, "document.getElementById('status').textContent === 'Ready'")


def until(chromium: Chromium, condition: str) -> None:
    """Wait until an expression is true."""
    assert chromium.evaluate(
        "new Promise((done) => { const end = performance.now() + 60000; const look = () => "
        f"({condition}) ? done(true) : performance.now() > end ? done(false) "
        ": setTimeout(look, 20); look(); })"
    ), f"not within 60 seconds: {condition}"


def choose(chromium: Chromium, paths: list[Path]) -> None:
    choose_files(chromium, "#files", paths)
    idle(chromium)


def idle(chromium: Chromium) -> None:
    busy = ".is-waiting, [aria-busy], #progress:not(:empty)"
    until(chromium, f"document.querySelector('{busy}') === null")


def text(chromium: Chromium, selector: str) -> str:
    return chromium.evaluate(f"document.querySelector('{selector}').innerText")


def cards(chromium: Chromium) -> list[list[str]]:
    return chromium.evaluate(
        "[...document.querySelectorAll('.card')].map((card) => "
        "[card.title, card.querySelector('.text').textContent])"
    )


def test_a_probability_close_to_0_or_1_is_not_shown_as_another(opened) -> None:
    source = re.sub("^import .*|^export ", "", read_source("dom.js"), flags=re.MULTILINE)
    shares = [0, 2.7e-5, 0.0005, 0.5, 0.9994, 0.9997, 1]
    opened.open("about:blank")
    assert opened.evaluate(f"(() => {{ {source}; return {shares}.map(percent); }})()") == [
        "0%", "<0.1%", "0.1%", "50.0%", "99.9%", ">99.9%", "100%",
    ]  # fmt: skip


def press(chromium: Chromium, *keys: str) -> None:
    for key in keys:
        letter = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        chromium.call("Input.dispatchKeyEvent", type="keyDown", key=key, **letter)
        chromium.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def change(chromium: Chromium, field: str, value: str) -> None:
    chromium.evaluate(
        f"(() => {{ const box = document.getElementById('{field}'); box.value = '{value}';"
        "box.dispatchEvent(new Event('input')); box.dispatchEvent(new Event('change')); })()"
    )
    idle(chromium)


def table(chromium: Chromium) -> dict[str, dict[str, str]]:
    """Return the rows of the CSV file by their paths."""
    chromium.evaluate(
        "URL.createObjectURL = (blob) => { globalThis.table = blob; return '#'; };"
        "document.getElementById('csv').click()"
    )
    rows = csv.DictReader(io.StringIO(chromium.evaluate("table.text()")))
    return {row["path"]: row for row in rows}


def panel_is_closed(chromium: Chromium) -> bool:
    """Return whether the choice of the correct class is closed, for a screen reader, too."""
    return chromium.evaluate(
        "document.getElementById('classes').hidden "
        "&& document.getElementById('wrong').ariaExpanded === 'false'"
    )


def test_images_are_classified_sorted_filtered_and_written(page, files):
    choose(page, files)
    found = dict(cards(page))
    assert found == {
        "blue.png": "blue", "green.png": "green", "red.png": "red", "grey 2.png": "Unsure",
        "grey 10.png": "Unsure", "red.tif": "red", "letter.png": "Unreadable",
    }  # fmt: skip
    assert "With a label: 4 · Unsure: 2 · Unreadable: 1" in text(page, "#counts")
    # A browser shows no TIFF: the server's small copy of it is shown.
    until(page, "document.querySelectorAll('.card img').length === 6")
    page.evaluate("document.querySelector('.card[title=\"red.tif\"]').click()")
    until(page, "document.getElementById('photo').naturalWidth === 60")
    change(page, "sort", "name")
    names = [name for name, _ in cards(page)]
    assert names == sorted(found, key=lambda name: (re.sub(r"\d+.*", "", name), len(name), name))
    change(page, "find", "GREY")
    assert [name for name, _ in cards(page)] == ["grey 2.png", "grey 10.png"]
    assert text(page, "#count") == "2 of 7 images"
    change(page, "find", "")
    change(page, "filter", "label red")
    assert {name for name, _ in cards(page)} == {"red.png", "red.tif"}
    rows = table(page)
    assert rows["red.png"]["label"] == "red"
    expected = tiny_bundle.probabilities(tiny_bundle.COLOURS["red"])["red"]
    assert float(rows["red.png"]["p_red"]) == pytest.approx(expected, abs=1e-6)
    assert (rows["grey 2.png"]["label"], rows["grey 2.png"]["reason"]) == ("", "unsure")
    assert rows["letter.png"]["error"]
    assert not [each for each in page.messages if "Security Policy" in each]


def test_a_correction_by_keys_is_stored_with_its_image_and_undone(page, files, kept):
    choose(page, files[:4])
    page.evaluate("document.querySelector('.card').focus()")
    press(page, "ArrowRight", "w")
    assert text(page, "#name") == "green.png"
    assert text(page, "#classes .choices").split() == (
        ["1", "blue", "2", "green", "3", "red", "0", "None", "of", "these"]
    )
    assert page.evaluate("document.activeElement.closest('#classes') !== null")
    press(page, "3")
    until(page, "document.getElementById('correction').innerText.includes('Saved on the server')")
    assert panel_is_closed(page)
    assert page.evaluate("document.activeElement.title") == "green.png"
    assert "red. Saved on the server" in text(page, "#spoken")
    (row,) = csv.DictReader((kept / "corrections.csv").open(encoding="utf-8"))
    assert (row["label"], row["predicted"]) == ("red", "green")
    assert (kept / row["path"]).read_bytes() == files[1].read_bytes()
    idle(page)
    assert dict(cards(page))["green.png"] == "red"
    assert table(page)["green.png"]["correction"] == "red"
    change(page, "filter", "kind corrected")
    assert len(cards(page)) == 1
    page.evaluate("document.querySelector('#correction button').click()")
    until(page, "document.getElementById('correction').hidden")
    assert list(csv.DictReader((kept / "corrections.csv").open(encoding="utf-8"))) == []


def test_without_a_folder_corrections_stay_in_the_page(opened, bundles, files):
    with serving(bundles[0]) as server:
        load(opened, server)
        choose(opened, files[:2])
        page = opened
        page.evaluate("document.getElementById('wrong').focus()")
        page.evaluate("document.getElementById('wrong').click()")
        page.evaluate("[...document.querySelectorAll('.choices button')].at(-1).click()")
        assert "Saved in this page only" in text(page, "#correction")
        assert panel_is_closed(page)
        assert page.evaluate("document.activeElement.id") == "wrong"
        idle(page)
        assert table(page)["blue.png"]["correction"] == "None of these"
        assert "Corrections stay in this page" in text(page, "footer")


def test_a_heat_map_is_laid_over_the_image_and_said_in_words(page, tmp_path):
    assert page.evaluate("document.getElementById('heat').hidden")  # a network without maps
    change(page, "model", "patches")
    until(page, "document.getElementById('title').textContent === 'patches'")
    patch = Image.new("RGB", (48, 48))
    patch.paste((255, 0, 0), (0, 0, 12, 12))
    patch.save(tmp_path / "patch.png")
    choose(page, [tmp_path / "patch.png"])
    page.evaluate("document.getElementById('heat').click()")
    until(page, "!document.getElementById('map').hidden")
    assert page.evaluate("document.getElementById('map').src").startswith("data:image/png;base64,")
    assert text(page, "#map-words") == "The regions that count most for “red” are at the top left."
    assert page.evaluate("document.getElementById('heat').ariaPressed") == "true"
    page.evaluate("document.getElementById('heat').click()")
    assert page.evaluate("document.getElementById('map').hidden")


def test_another_model_classifies_the_same_images(page, files):
    choose(page, files[:2])
    change(page, "model", "wines")
    until(page, "document.getElementById('title').textContent === 'wines'")
    idle(page)
    assert [found for _, found in cards(page)] == ["rosé", "vert"]


def test_a_new_bundle_classifies_the_images_again(opened, files, tmp_path):
    swapped = tiny_bundle.write_bundle(tmp_path / "swapped")
    with serving(swapped) as server:
        load(opened, server)
        choose(opened, files[:2])
        tiny_bundle.write_bundle(swapped, ("azul", "verde", "rojo"))
        until(
            opened,
            "fetch('v1/models/swapped').then((answer) => answer.json())"
            ".then(({ classes }) => { globalThis.swapped = classes[0] === 'azul'; }) "
            "&& globalThis.swapped",
        )
        choose(opened, files[2:3])
        until(opened, "document.getElementById('lead').innerText.includes('azul')")
        idle(opened)
        assert [found for _, found in cards(opened)] == ["azul", "verde", "rojo"]


def test_the_webcam_is_classified_live(page):
    page.evaluate("document.getElementById('webcam').click()")
    until(page, "document.querySelector('.is-used:has(#take:enabled) #verdict .bars') !== null")
    assert page.evaluate("document.getElementById('actions').hidden")
    page.evaluate("document.getElementById('take').click()")
    until(page, "document.getElementById('name').textContent === 'webcam-1.png'")
    idle(page)
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_a_busy_server_is_waited_for_and_a_lost_one_asked_again(page, files):
    page.evaluate(
        "(() => { const real = fetch; let busy = 2; globalThis.answers = true;"
        "globalThis.fetch = async (address, options) => {"
        " if (!answers) throw new TypeError('gone');"
        " if (busy-- > 0)"
        "  return new Response('{}', {status: 429, headers: {'Retry-After': '0.1'}});"
        " return real(address, options); }; })()"
    )
    choose(page, files[:2])
    assert [found for _, found in cards(page)] == ["blue", "green"]
    page.evaluate("answers = false")
    choose_files(page, "#files", files[2:4])
    until(page, "!document.getElementById('again').hidden")
    assert "does not answer" in text(page, "#status")
    page.evaluate("answers = true; document.getElementById('again').click()")
    idle(page)
    until(page, "document.querySelectorAll('.is-label').length >= 3")


def test_a_token_is_asked_for_once(opened, bundles, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with serving(bundles[0], options=["--token-file", tmp_path / "token"]) as server:
        opened.open(f"http://127.0.0.1:{server.port}/")
        for given in ("another-token-of-some-length", TOKEN):
            until(opened, "document.querySelector('dialog[open]:has(#token:focus)') !== null")
            opened.evaluate(f"document.getElementById('token').value = '{given}'")
            press(opened, "Enter")
            opened.evaluate("new Promise((done) => setTimeout(done, 100))")
        until(opened, "document.getElementById('status').textContent === 'Ready'")
        load(opened, server)  # as a reload of the same tab
        assert opened.evaluate("document.querySelector('dialog')") is None
        opened.evaluate("sessionStorage.clear()")


def test_of_thousands_of_images_those_in_sight_have_elements(page):
    page.evaluate(GIVE % (5000, "no image"))
    until(page, "document.querySelectorAll('.card').length > 10")
    assert text(page, "#count") == "5,000 images"
    assert page.evaluate("document.querySelectorAll('.card').length") < 100
    page.evaluate("document.querySelector('.card').focus()")
    press(page, "End")
    assert page.evaluate("document.activeElement.title") == "image 4999.png"
    place = "document.activeElement.parentElement.getAttribute('aria-posinset')"
    assert page.evaluate(place) == "5000"
    page.evaluate("document.getElementById('clear').click()")
    until(page, "document.getElementById('all').hidden")
    assert page.evaluate("document.querySelectorAll('.card').length") == 0


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_no_violation(page, files, width, dark):
    view(page, width, dark, still=True)
    run = "axe.run(document, {resultTypes: ['violations']}).then((result) => "
    run += "result.violations.map((rule) => rule.id + ' ' + rule.nodes[0].html))"
    page.evaluate(AXE.read_text("utf-8") + ";0")
    assert page.evaluate(run) == []
    change(page, "model", "patches")
    until(page, "document.getElementById('title').textContent === 'patches'")
    choose(page, files[1:6])
    page.evaluate("document.getElementById('wrong').click()")
    page.evaluate("document.querySelectorAll('.choices button')[1].click()")
    page.evaluate("document.getElementById('heat').click()")
    until(page, "!document.getElementById('map').hidden")
    until(page, "document.getElementById('correction').innerText.includes('Saved on the server')")
    assert page.evaluate(run) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelector('#correction button').click()")
    until(page, "document.getElementById('correction').hidden")
