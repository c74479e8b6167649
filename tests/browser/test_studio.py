"""The studio in headless Chromium, on a real server: the whole way, with kills in between."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit import AXE, browser
from driven_page import opened_chromium
from PIL import Image
from studio_browser import CONTROL, SHIFT, StudioPage, StudioServer

from kindsight.export.web.chromium import Chromium
from kindsight.web.library import SOURCES
from shapes import shape, write_shapes

pytestmark = pytest.mark.slow

FINDING = {
    "code": "KD102", "title": "Stopped too early", "severity": "warning",
    "message": "The loss (--epochs 20) still fell.", "figure": {"epochs": 20.0},
    "evidence": "Still improving in the last epoch. Try --epochs 40.",
    "commands": ["kindsight train dataset.csv --epochs 40"], "remedies": [{"epochs": 40}],
}  # fmt: skip
VIEWS = ("images", "check", "train", "mistakes", "try", "export")
AUDIT = (
    "axe.run(document, {resultTypes: ['violations']}).then((result) => "
    "result.violations.map((rule) => rule.id + ' ' + rule.nodes[0].html))"
)


@pytest.fixture(scope="module", autouse=True)
def needs() -> str:
    """Chromium, axe and Preact; without them, these tests are skipped."""
    found = browser()
    if not (SOURCES / "vendor" / "preact" / "preact.js").is_file():
        reason = "The studio needs Preact and htm: make web."
        if os.environ.get("KINDSIGHT_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture
def chromium(needs) -> Iterator[Chromium]:
    with opened_chromium(needs) as opened:
        yield opened


@pytest.fixture
def server(tmp_path) -> Iterator[StudioServer]:
    started = StudioServer(tmp_path / "leaves")
    yield started
    started.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Class folders: rings, bars, a copy of a ring and a cut bar."""
    folder = write_shapes(tmp_path_factory.mktemp("images") / "shapes", {"ring": 14, "bar": 14})
    shutil.copy(folder / "ring" / "ring 001.png", folder / "ring" / "again.png")
    data = (folder / "bar" / "bar 003.jpg").read_bytes()
    (folder / "bar" / "cut.jpg").write_bytes(data[: len(data) // 2])
    return folder


def add_folder(page: StudioPage, folder: Path) -> None:
    before = page.get("store.images.ids.length")
    page.choose("#directory", folder)
    page.click("Use as classes")
    page.wait(f"store.images.ids.length > {before} && !store.upload?.isRunning")
    page.settle()


def table(server: StudioServer) -> list[dict[str, str]]:
    with (server.folder / "dataset.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def violations(page: StudioPage) -> list[str]:
    """Return what axe finds in what the page shows now."""
    if not page.chromium.evaluate("'axe' in window"):
        page.chromium.evaluate(AXE.read_text("utf-8") + ";0")
    found: list[str] = page.chromium.evaluate(AUDIT)
    return found


def test_the_whole_way(chromium, server, images, tmp_path):
    page = StudioPage(chromium, server.address)
    assert violations(page) == []
    page.type(".new-class input", "other")
    page.click("Add")
    page.wait("store.images.classes.includes('other')")
    hold_the_webcam(page)
    page.click("All images")
    add_folder(page, images)
    assert page.get("store.images.classes") == ["other", "bar", "ring"]
    assert "not added" in page.get("document.querySelector('.adding-now').textContent")
    check_and_mend(page)
    label_by_keyboard(page)
    train_through_a_kill(page, server)
    look_at_mistakes(page)
    try_images(page, tmp_path)
    export(page, server)
    unexpected = [each for each in chromium.messages if "net::ERR" not in each]
    assert unexpected == []


def hold_the_webcam(page: StudioPage) -> None:
    page.click("Webcam")
    page.wait("document.querySelector('.hold')?.disabled === false")
    assert page.get("document.querySelector('.camera select').value") == "other"
    x, y = page.middle(".hold")
    page.mouse("mousePressed", x, y)
    page.wait("store.images.ids.length >= 3")
    page.mouse("mouseReleased", x, y)
    page.click("Close the webcam")
    page.settle()
    assert set(page.labels().values()) == {"other"}


def check_and_mend(page: StudioPage) -> None:
    page.go("check")
    page.click("Check")
    page.wait("store.findings.checked !== null && store.jobs[0]?.state === 'done'", 120)
    before = page.get("store.project.excluded")
    page.wait("document.querySelectorAll('.case .thumb img').length > 0")
    assert violations(page) == []
    page.chromium.evaluate(
        "[...document.querySelectorAll('.case button')]"
        ".find((each) => each.textContent.startsWith('Exclude')).click()"
    )
    page.wait(f"store.project.excluded > {before}")
    assert "dataset.csv" in page.get("document.querySelector('.bottom code').textContent")
    page.key("z", CONTROL)
    page.wait(f"store.project.excluded === {before}")


def label_by_keyboard(page: StudioPage) -> None:
    page.go("images")
    page.click("ring")
    page.wait("document.querySelectorAll('.cell').length > 5")
    name = page.get("document.querySelector('.cell').getAttribute('title')")
    page.chromium.evaluate("document.querySelector('.grid').focus()")
    page.key("ArrowRight")
    assert violations(page) == []
    page.key("1")
    page.settle()
    assert page.labels()[name] == "other"
    assert page.get("store.selection.ids.size") == 1, "the next image is selected"
    page.key("z", CONTROL)
    page.wait("store.message.startsWith('Undo')")
    page.settle()
    assert page.labels()[name] == "ring"


def train_through_a_kill(page: StudioPage, server: StudioServer) -> None:
    page.go("train")
    page.click("Train")
    page.wait("store.jobs[0]?.kind === 'train' && store.jobs[0]?.stage !== ''")
    server.kill()
    page.wait("document.querySelector('.offline') !== null")
    server.start()
    page.wait("document.querySelector('.offline') === null && store.connection === 'on'")
    page.wait("['running', 'interrupted', 'done'].includes(store.jobs[0]?.state)")
    if page.get("store.jobs[0]?.state") == "interrupted":
        page.click("Continue")
    page.wait(
        "store.jobs[0]?.state === 'done' && store.runs.some((run) => run.accuracy !== null)", 180
    )
    says = page.wait("document.querySelector('.says')?.textContent")
    assert "that it had not seen were classified correctly" in says
    assert "of 100 to be correct" in says


def look_at_mistakes(page: StudioPage) -> None:
    page.go("mistakes")
    page.wait("document.querySelector('.matrix') !== null")
    wrong = page.get("document.querySelectorAll('.matrix .is-mistake').length")
    if wrong:
        page.chromium.evaluate("document.querySelector('.matrix .is-mistake button').click()")
        name = page.get("document.querySelector('.mistake .cell-name').textContent")
        page.chromium.evaluate(
            "[...document.querySelectorAll('.mistake button')]"
            ".find((each) => each.textContent.startsWith('It is ')).focus()"
        )
        page.key(" ")
        page.settle()
        page.wait("document.querySelector('.mistake.is-mended') !== null")
        assert page.get("document.activeElement.textContent") == "Take back"
        page.click("Take back")
        page.settle()
        assert name in page.labels()


def try_images(page: StudioPage, tmp_path: Path) -> None:
    page.go("try")
    Image.fromarray(shape("ring", 900)).save(tmp_path / "new ring.png")
    page.choose("#try-file", tmp_path / "new ring.png")
    page.wait("document.querySelectorAll('.bars li').length === 3")
    page.click("Heat map")
    page.wait("document.querySelector('.heat')?.naturalWidth > 0")
    for shown in (".heat", ".verdict", ".bars"):
        visible = "checkVisibility({ visibilityProperty: true, opacityProperty: true })"
        assert page.get(f"document.querySelector('{shown}').{visible}"), shown
    page.click("Use the webcam")
    page.wait(
        "document.querySelector('video') !== null && document.querySelector('.bars') !== null"
    )
    page.click("Stop the webcam")


def export(page: StudioPage, server: StudioServer) -> None:
    page.go("export")
    page.wait("document.querySelectorAll('.formats input').length > 5")
    page.click("Web page in one file")
    page.click("Android, Raspberry Pi")
    page.click("Export")
    page.wait("store.jobs[0]?.kind === 'export' && store.jobs[0]?.state === 'done'", 120)
    page.wait("document.querySelector('.proof') !== null")
    assert violations(page) == []
    assert "100.0%" in page.get("document.querySelector('.proof').textContent")
    folder = page.get("document.querySelector('.path').textContent")
    assert any((server.folder / folder).glob("*.tflite"))


def test_killed_while_labelling(chromium, server, images):
    page = StudioPage(chromium, server.address)
    add_folder(page, images)
    page.click("ring")
    page.wait("document.querySelectorAll('.cell').length > 10")
    names = page.get(
        "[...document.querySelectorAll('.cell')].map((each) => each.getAttribute('title'))"
    )
    page.chromium.evaluate("document.querySelector('.grid').focus()")
    page.key("ArrowRight")
    page.key("1")
    page.settle()
    server.kill()
    page.wait("document.querySelector('.offline') !== null")
    for _ in range(3):  # the person goes on
        page.key("1")
    assert page.get("store.waiting") == 3
    assert "3 changes" in page.get("document.querySelector('.offline').textContent")
    server.start()
    page.wait("store.connection === 'on'")
    page.settle()
    assert [page.labels()[name] for name in names[:5]] == ["bar"] * 4 + ["ring"]
    server.kill()  # again: what the page shows is on disk
    server.start()
    again = StudioPage(chromium, server.address)
    assert [again.labels()[name] for name in names[:5]] == ["bar"] * 4 + ["ring"]
    assert sum(row["label"] == "bar" for row in table(server)) == 4 + 14
    for count in (3, 2, 1, 0):
        again.key("z", CONTROL)
        again.wait(f"store.images.labels.filter((label) => label === 0).length === {14 + count}")


def test_a_drop_of_several_requests_is_counted_as_one(chromium, server, images):
    page = StudioPage(chromium, server.address)
    page.chromium.evaluate(
        "globalThis.sent = 0; globalThis.realFetch = fetch; globalThis.fetch = (path, options) => "
        "{ if (path === '/api/images') sent++; return realFetch(path, options); }; 0"
    )
    add_folder(page, images)
    assert page.chromium.evaluate("sent") == 2
    words = "28 images added, 1 duplicate and 1 unreadable file not added"
    assert page.get("store.message") == words
    assert page.get("document.querySelector('.adding-now > p').textContent") == f"{words}."
    page.click("Which files")
    reasons = page.get(
        "[...document.querySelectorAll('.reasons > li')].map((each) => each.innerText)"
    )
    assert any(each.startswith("The project already has this image. 1 file") for each in reasons)
    assert any("cut.jpg" in each for each in reasons)
    assert "Add 28 images" in page.get("store.project.undo")


def test_new_files_of_a_folder_are_offered(chromium, tmp_path):
    photos = write_shapes(tmp_path / "photos", {"ring": 3, "bar": 3})
    server = StudioServer(tmp_path / "project", "--data", str(photos))
    try:
        page = StudioPage(chromium, server.address)
        assert page.get("store.sources.length") == 0
        write_shapes(photos, {"ring": 2}, first=10)
        page.chromium.evaluate("setInterval(() => dispatchEvent(new Event('focus')), 200)")
        page.wait("document.querySelector('.adding-now')?.textContent.includes('2 new images in')")
        assert violations(page) == []
        page.chromium.evaluate("document.querySelector('.adding-now button').click()")
        page.wait("store.project.images === 8 && document.querySelector('.adding-now') === null")
        page.settle()
        assert list(page.labels().values()).count("ring") == 5
    finally:
        server.close()


def test_selection_by_mouse_and_keyboard(chromium, server, images):
    page = StudioPage(chromium, server.address)
    add_folder(page, images)
    page.click("All images")
    page.wait("document.querySelectorAll('.cell').length > 12")
    selected = (
        "[...store.selection.ids].map((id) => store.images.rows.get(id)).sort((a, b) => a - b)"
    )

    page.point("[data-place='1']")
    assert page.get(selected) == [1]
    page.point("[data-place='4']", SHIFT)
    assert page.get(selected) == [1, 2, 3, 4]
    page.point("[data-place='2']", CONTROL)
    assert page.get(selected) == [1, 3, 4]
    columns = page.get(
        "[...document.querySelectorAll('.cell')].filter((each) => each.getBoundingClientRect().top "
        "=== document.querySelector('.cell').getBoundingClientRect().top).length"
    )
    (left, top), (right, bottom) = (
        page.middle("[data-place='0']"),
        page.middle(f"[data-place='{columns + 1}']"),
    )
    page.mouse("mousePressed", left, top)
    for step in range(1, 9):
        page.mouse("mouseMoved", left + (right - left) * step / 8, top + (bottom - top) * step / 8)
    page.mouse("mouseReleased", right, bottom)
    assert page.get(selected) == [0, 1, columns, columns + 1]
    page.key("a", CONTROL)
    assert page.get("store.selection.ids.size") == page.get("store.images.ids.length")
    page.key("Home")
    page.key("ArrowRight", SHIFT)
    page.key("ArrowDown", SHIFT)
    assert page.get(selected) == list(range(columns + 2))
    page.key("x")
    page.wait(f"store.project.excluded === {columns + 2}")
    page.key("Escape")
    page.type(".tools input", "bar")
    page.wait("document.querySelector('.heading .number').textContent.startsWith('14 ')")


def test_classes_are_renamed_and_followed(chromium, server, images):
    page = StudioPage(chromium, server.address)
    add_folder(page, images)
    page.click("ring")
    page.chromium.evaluate("document.querySelectorAll('.edit')[1].click()")
    page.wait("document.activeElement.value === 'ring'")
    page.chromium.call("Input.insertText", text="A ring with a very long name")
    page.click("Rename")
    heading = "document.querySelector('.toolbar h1').textContent"
    page.wait(f"{heading} === 'A ring with a very long name'")
    right = "document.querySelectorAll('.edit')[1].getBoundingClientRect().right"
    assert page.get(f"{right} <= document.querySelector('.classes').getBoundingClientRect().right")
    page.key("z", CONTROL)
    page.wait(f"{heading} === 'ring'")
    assert page.get("document.querySelectorAll('.cell').length") > 10


def test_only_what_is_seen_is_in_the_page(chromium, tmp_path):
    folder = tmp_path / "many"
    for number in range(900):
        path = folder / f"class{number % 2}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (number % 256, number // 4, 90)).save(path)
    server = StudioServer(tmp_path / "many")
    try:
        page = StudioPage(chromium, server.address)
        page.wait("document.querySelectorAll('.thumb img').length > 10")
        page.chromium.evaluate("document.querySelector('.grid').focus()")
        page.key("End")
        page.wait("document.querySelector('[data-place=\"899\"]') !== null")
        page.wait("document.querySelectorAll('.thumb img').length > 10")
        assert page.get("document.querySelectorAll('.cell').length") < 120
        top = page.get("document.querySelector('.grid').scrollTop")
        page.go("train")
        page.go("images")
        page.wait("document.querySelector('.grid') !== null")
        assert page.get("document.querySelector('.grid').scrollTop") == top
        page.wait(
            "kindsight.thumbnailLoad().running === 0 && kindsight.thumbnailLoad().waiting === 0"
        )
    finally:
        server.close()


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False), (640, True)]
)
def test_axe_finds_no_violation(chromium, studio_with_a_run, width, dark):
    page = StudioPage(chromium, studio_with_a_run.address, width)
    page.view(width, dark=dark, height=400 if width == 640 else 800)
    for view in VIEWS:
        page.go(view)
        page.wait("document.querySelector('main h1') !== null")  # the run is loaded
        assert violations(page) == [], view
        assert chromium.evaluate("document.documentElement.scrollWidth") <= width, view


@pytest.fixture(scope="module")
def studio_with_a_run(needs, images, trained, tmp_path_factory) -> Iterator[StudioServer]:
    """A project with images, and a run of other images."""
    folder = tmp_path_factory.mktemp("studio") / "shapes"
    started = StudioServer(folder, "--data", str(images))
    # The running studio must not see half a run.
    run = shutil.copytree(trained.run, folder.with_name("copied-run"))
    diagnosis = json.loads((run / "diagnosis.json").read_text("utf-8"))
    diagnosis["findings"] = [FINDING]
    (run / "diagnosis.json").write_text(json.dumps(diagnosis), "utf-8")
    (folder / "runs").mkdir(exist_ok=True)
    run.rename(folder / "runs" / "shapes-1")
    yield started
    started.close()


def test_a_remedy_is_a_button_and_its_command_behind_a_disclosure(chromium, studio_with_a_run):
    page = StudioPage(chromium, studio_with_a_run.address)
    page.go("train")
    page.wait("document.querySelector('.diagnosis button') !== null")
    text = page.get("document.querySelector('.diagnosis').innerText")
    assert "Train again: 40 epochs" in text and "Still improving in the last epoch." in text
    assert "--" not in text and "kindsight" not in text
    page.click("As a command")
    assert "kindsight train dataset.csv --epochs 40" in page.get(
        "document.querySelector('.diagnosis').innerText"
    )
    page.view(390)
    assert page.get("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []


def test_no_other_script_runs(chromium, server):
    page = StudioPage(chromium, server.address)
    assert "'unsafe" not in page.chromium.evaluate(
        "fetch('/').then((answer) => answer.headers.get('content-security-policy'))"
    )
    page.chromium.evaluate(
        "document.head.append(Object.assign(document.createElement('script'), "
        "{textContent: 'document.title = \"foreign\"'}))"
    )
    assert page.get("document.title") != "foreign"
    # The protocol's own evaluation may evaluate; what the page runs later may not.
    code = "try { eval('1'); done('ran'); } catch { done('refused'); }"
    later = f"new Promise((done) => setTimeout(() => {{ {code} }}))"
    assert page.chromium.evaluate(later) == "refused"


def test_names_are_never_markup(chromium, server, tmp_path):
    foreign = tmp_path / "<img src=x onerror=document.title=1>"
    foreign.mkdir()
    Image.fromarray(shape("bar", 1)).save(foreign / "<b>\u202egnp.png")
    page = StudioPage(chromium, server.address)
    add_folder(page, foreign)
    page.wait("document.querySelectorAll('.cell').length === 1")
    for view in VIEWS:
        page.go(view)
    assert "kindsight studio" in page.get("document.title")
    assert page.get("document.querySelectorAll('img[src=x], b').length") == 0
