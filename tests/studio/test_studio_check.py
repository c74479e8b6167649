"""The check of a project's images: findings, remedies, undo; events; and the table of jobs."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kindsight.errors import DatasetError, UsageError
from kindsight.studio.events import MAX_EVENTS, EventLog
from kindsight.studio.jobs import Job
from kindsight.studio.state.thumbnails import Thumbnails
from kindsight.studio.studio import Studio, open_folder
from studio_page import Page, png


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def finished(page: Page, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job when it is over."""
    end = time.monotonic() + 120
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.1)
        job = page.get(f"/jobs/{job['id']}")
    return job


@pytest.fixture
def checked(page: Page) -> Page:
    """Return the page of a project of 26 images that was checked, one of them blank.

    Images 24 and 25 are the same picture in two files, with two labels.
    """
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
    files = [(f"{'ab'[k % 2]}/{k}.png", png(100 + k, 40)) for k in range(23)]
    files.append(("a/blank.png", encoded(np.full((40, 40, 3), 128, np.uint8))))
    files.append(("a/same.png", encoded(pixels)))
    files.append(("b/same.bmp", encoded(pixels, "BMP")))
    page.add(*files, label_from="folder")
    page.studio.start()
    job = finished(page, page.post("/check", {}))
    assert job["state"] == "done", job
    assert job["command"] == "kindsight check dataset.csv --out checks/1 --apply checks/1.csv"
    return page


def test_findings_are_there_as_soon_as_the_check_is_done(page: Page, monkeypatch):
    page.add(*[(f"{'ab'[k % 2]}/{k}.png", png(k, 40)) for k in range(4)], label_from="folder")
    seen, update = [], Job.update

    def watched(job: Job, **facts) -> None:
        update(job, **facts)
        if facts.get("state") == "done":
            seen.append(page.get("/findings")["images"])

    monkeypatch.setattr(Job, "update", watched)
    page.studio.start()
    finished(page, page.post("/check", {}))
    page.studio.jobs.close()
    assert seen == [4]


def test_findings_name_their_images_and_remedies_that_can_be_undone(checked: Page):
    page = checked
    found = page.get("/findings")
    groups = {group["code"]: group for group in found["groups"]}
    (blank,) = groups["KS201"]["findings"]
    assert blank["images"] == [23]
    (twins,) = groups["KS402"]["findings"]
    assert twins["images"] == [24, 25]
    assert page.get("/images/ids", finding="KS201")["ids"] == [23]
    before = page.get("/images/columns")

    exclude = blank["actions"][0]
    assert exclude["title"] == "Exclude this image"
    page.post(exclude["path"].removeprefix("/api"), exclude["body"])
    groups = {group["code"]: group for group in page.get("/findings")["groups"]}
    assert groups["KS201"]["open"] == 0
    page.post("/undo")
    assert page.get("/images/columns")["excluded"] == before["excluded"]

    keep = next(each for each in twins["actions"] if each["title"].startswith("Keep the first"))
    assert keep["body"] == {"ids": [25], "excluded": True}
    page.post(keep["path"].removeprefix("/api"), keep["body"])
    groups = {group["code"]: group for group in page.get("/findings")["groups"]}
    assert groups["KS402"]["open"] == 0


def test_all_corrections_are_one_change(checked: Page):
    page = checked
    (action,) = page.get("/findings")["actions"]
    # The blank image, and both of the pair without a majority.
    assert action["title"] == "Exclude 3 images"
    change = page.post("/findings/apply")
    assert change["changed"] == 3
    assert change["command"] == "kindsight check dataset.csv --apply corrected.csv"
    assert page.get("/project")["excluded"] == 3
    assert page.get("/findings")["actions"] == []
    page.post("/findings/apply", status=400)
    page.post("/undo")
    assert page.get("/project")["excluded"] == 0


def test_findings_and_jobs_are_there_after_a_restart(
    checked: Page, folder: Path, thumbnails: Thumbnails
):
    before = checked.get("/findings")
    checked.studio.close()
    again = Studio(folder, thumbnails=thumbnails)
    try:
        page = Page(again)
        assert page.get("/findings") == before
        assert [job["state"] for job in page.get("/jobs")] == ["done"]
        assert page.client.get("/api/reports/check").status_code == 200
    finally:
        again.close()


def test_a_command_that_fails_says_why(page: Page):
    page.add(("a/1.png", png(1)), ("b/2.png", png(2)), label_from="folder")
    page.studio.start()
    job = finished(page, page.post("/train", {"options": {"validation": 0.5, "size": 32}}))
    assert job["state"] == "failed"
    assert job["error"].startswith("kindsight: ")
    again = finished(page, page.post(f"/jobs/{job['id']}/continue"))
    assert again["error"] == job["error"]


def test_trainings_that_cannot_be_are_refused_before_they_start(page: Page):
    page.post("/train", {}, status=400)  # no classes
    page.add(("a/1.png", png(1)), ("b/2.png", png(2)), label_from="folder")
    for body in (
        {"budget": "soon"},
        {"options": {"nothing": 1}},
        {"options": {"data": "/"}},
        {"options": {"runs": "/tmp"}},
        {"model": "--help"},
    ):
        assert "detail" in page.post("/train", body, status=400)
    page.post("/export", {"run": "../x", "to": ["web"]}, status=404)
    preview = page.post("/train/preview", {"budget": "10m", "options": {"seed": 3}})
    assert preview == {"command": "kindsight train dataset.csv --seed 3 --budget 10m"}
    assert page.get("/jobs") == []


def test_a_project_without_a_change_is_opened_again(
    page: Page, folder: Path, thumbnails: Thumbnails
):
    page.studio.close()
    assert open_folder(folder) == (folder, None)
    again = Studio(folder, thumbnails=thumbnails)
    assert Page(again).get("/project")["images"] == 0
    again.close()


def test_a_project_is_open_once(page: Page, folder: Path, thumbnails: Thumbnails):
    with pytest.raises(UsageError, match="open in another kindsight studio"):
        Studio(folder, thumbnails=thumbnails)


def test_data_that_cannot_be_used_leave_no_project(tmp_path: Path, thumbnails: Thumbnails):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    folder, data = open_folder(tmp_path / "photos")
    with pytest.raises(UsageError):
        Studio(folder, data, thumbnails)
    assert not folder.exists()


def test_a_file_that_is_no_table_leaves_no_project(tmp_path: Path, thumbnails: Thumbnails):
    (tmp_path / "draw.py").write_text("print()")
    folder, data = open_folder(tmp_path / "draw.py")
    with pytest.raises(DatasetError, match="neither a table nor a file of arrays"):
        Studio(folder, data, thumbnails)
    assert not folder.exists()


def listen(log: EventLog, last: str, count: int) -> list[str]:
    """Return the next events after an id."""

    async def collect() -> list[str]:
        stream = log.listen(last, {"revision": 0})
        found = [await anext(stream) for _ in range(count)]
        await stream.aclose()
        return found

    return asyncio.run(collect())


def test_a_page_that_reconnects_misses_no_event():
    log = EventLog()
    log.send("project", {"revision": 1})
    (hello,) = listen(log, "", 1)
    assert "event: hello" in hello
    last = hello.partition("\n")[0].removeprefix("id: ")
    log.send("project", {"revision": 2})
    log.send("job", {"id": 1})
    continued, events = listen(log, last, 2)
    assert continued.startswith(":")
    assert events.count("event: ") == 2
    assert '{"revision":2}' in events
    assert '{"revision":1}' not in events
    # Of a page of another server, or one that missed too much.
    for _ in range(MAX_EVENTS + 1):
        log.send("project", {})
    for unknown in (last, "abcd-1", "abcd", f"{last}99999", "-1"):
        assert "event: hello" in listen(log, unknown, 1)[0]
