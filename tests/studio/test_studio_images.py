"""Images and labels of a studio's project, over its API."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from kindsight.studio.state.thumbnails import Thumbnails
from kindsight.studio.studio import Studio, open_folder
from studio_page import Page, png


def table(page: Page) -> list[dict[str, str]]:
    page.studio.project.write()
    path = page.studio.folder / "dataset.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_added_images_are_labelled_and_in_the_table(page: Page, folder: Path):
    added = page.add(("cats/1.png", png(1)), ("dogs/2.png", png(2)), label_from="folder")
    assert added["added"] == [0, 1]
    rows = table(page)
    assert [row["label"] for row in rows] == ["cats", "dogs"]
    assert all((folder / row["path"]).is_file() for row in rows)
    classes = page.get("/project")["classes"]
    assert classes == [
        {"name": "cats", "images": 1, "excluded": 0},
        {"name": "dogs", "images": 1, "excluded": 0},
    ]


def test_the_same_content_is_added_once_and_named(page: Page):
    page.add(("1.png", png(1)))
    added = page.add(("again.png", png(1)), ("new.png", png(2)), ("twice.png", png(2)))
    assert added["added"] == [1]
    assert [(each["name"], each["id"]) for each in added["duplicates"]] == [
        ("again.png", 0),
        ("twice.png", 1),
    ]


def test_unreadable_files_are_named_with_the_reason(page: Page):
    cut = png(1)[:300]
    added = page.add(
        ("cut.png", cut), ("text.png", b"hello"), ("empty.png", b""), ("1.png", png(1))
    )
    assert added["added"] == [0]
    assert [each["name"] for each in added["unreadable"]] == ["cut.png", "text.png", "empty.png"]
    assert all(each["reason"] for each in added["unreadable"])


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "..\\..\\x.png", "C:\\x.png", "a\x1bb.png", "x" * 4000,
     "<script>.html", "\u202egnp.exe", "con.png", ".", "..", "a/../../b.png", "\udcff.png"],
)  # fmt: skip
def test_hostile_names_stay_inside_and_are_printable(page: Page, folder: Path, name: str):
    quoted = name.encode("utf-8", "replace").decode("latin-1").replace('"', "")
    added = page.add((quoted, png(1)), label_from="folder")
    assert added["added"] == [0] or added.get("detail")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    stored = [file for file in files if not file.startswith(".studio/")]
    assert all(file.startswith("images/") for file in stored if file.endswith(".png"))
    (row,) = page.get("/images")["images"]
    assert row["name"].isprintable()
    assert len(row["name"]) <= 300
    assert ".." not in row["name"].split("/")


def test_labels_exclusions_and_undo(page: Page):
    page.add(*((f"{k}.png", png(k)) for k in range(4)), batch="b")
    page.add(("4.png", png(4)), batch="b")
    change = page.post("/label", {"ids": [0, 1, 1], "label": "cat"})
    assert (change["changed"], change["title"]) == (2, "Label 2 images 'cat'")
    assert change["command"].startswith("# dataset.csv: label 'cat' in the rows images/")
    page.post("/exclude", {"ids": [1, 2], "excluded": True})
    assert [(row["label"], row["split"]) for row in table(page)] == [
        ("cat", ""), ("cat", "excluded"), ("", "excluded"), ("", ""), ("", ""),
    ]  # fmt: skip
    assert page.post("/undo")["redo"] == "Exclude 2 images"
    assert page.post("/undo")["undo"] == "Add 5 images"
    assert page.post("/undo")["title"] == "Undo: Add 5 images"
    assert page.get("/project")["images"] == 0
    assert table(page) == []
    page.post("/redo")
    page.post("/redo")
    assert [row["label"] for row in table(page)] == ["cat", "cat", "", "", ""]
    page.post("/label", {"ids": [3], "label": None})
    page.post("/redo")
    page.post("/redo", status=400)


def test_lists_are_filtered_and_sorted(page: Page):
    names = ["b/2.png", "a/1.png", "a/3.png"]
    page.add(*((name, png(k, 8 * (k + 1))) for k, name in enumerate(names)), label_from="folder")
    page.post("/label", {"ids": [2], "label": None})
    page.post("/exclude", {"ids": [0], "excluded": True})
    ids = {
        (): [0, 1, 2],
        (("label", "a"),): [1],
        (("label", ""),): [2],
        (("query", "A/"),): [1, 2],
        (("excluded", "false"),): [1, 2],
        (("sort", "name"),): [1, 2, 0],
        (("sort", "size"), ("reverse", "true")): [2, 1, 0],
        (("split", "none"),): [0, 1, 2],
        (("finding", "any"),): [],
    }
    for query, expected in ids.items():
        found = page.get("/images/ids", **dict(query))
        assert (found["ids"], found["total"]) == (expected, len(expected)), query
    part = page.get("/images", offset=1, limit=1)
    assert [row["id"] for row in part["images"]] == [1]
    columns = page.get("/images/columns")
    assert columns["classes"] == ["b", "a"]
    assert columns["labels"] == [0, 1, -1]
    assert columns["excluded"] == [1, 0, 0]
    for query in ({"sort": "nothing"}, {"split": "nothing"}, {"limit": 10**9}, {"other": 1}):
        assert page.client.get("/api/images", params=query).status_code == 400


def test_classes_are_renamed_merged_and_removed(page: Page):
    page.add(("cat/1.png", png(1)), ("kitten/2.png", png(2)), ("dog/3.png", png(3)),
             label_from="folder")  # fmt: skip
    page.post("/classes", {"rename": "dog", "to": "hound"})
    page.post("/classes", {"merge": ["kitten"], "to": "cat"})
    assert [row["label"] for row in table(page)] == ["cat", "cat", "hound"]
    page.post("/classes", {"remove": "cat"})
    assert [row["label"] for row in table(page)] == ["", "", "hound"]
    page.post("/classes", {"rename": "cat", "to": "x"}, status=404)
    page.post("/classes", {"add": "Hound"}, status=400)
    page.post("/classes", {"add": "a", "remove": "hound"}, status=400)
    page.post("/label", {"ids": [99], "label": "hound"}, status=404)
    page.post("/label", {"ids": "all", "label": "hound"}, status=400)
    for _ in range(3):
        page.post("/undo")
    assert [row["label"] for row in table(page)] == ["cat", "kitten", "dog"]


def test_thumbnails_are_small_turned_and_cached(page: Page):
    side = Image.new("RGB", (1000, 400), "red")
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    out = io.BytesIO()
    side.save(out, "JPEG", exif=exif)
    page.add(("1.jpg", out.getvalue()))
    answer = page.client.get("/api/thumbnails/0")
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert thumbnail.format == "JPEG"
    assert thumbnail.size == (102, 256)
    assert "immutable" in answer.headers["cache-control"]


def test_a_folder_of_classes_is_used_where_it_is(tmp_path: Path, thumbnails: Thumbnails):
    data = tmp_path / "photos"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for k in range(2):
            (data / name / f"{k}.png").write_bytes(png(k + len(name + "x" * (name == "dog"))))
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    folder, source = open_folder(data)
    assert folder == tmp_path / "photos-studio"
    studio = Studio(folder, source, thumbnails)
    page = Page(studio)
    try:
        assert [row["path"] for row in table(page)] == [
            "../photos/cat/0.png", "../photos/cat/1.png", "../photos/dog/0.png",
            "../photos/dog/1.png",
        ]  # fmt: skip
        assert page.get("/project")["undo"] is None
        page.post("/undo", status=400)
        assert page.client.get("/api/thumbnails/3").status_code == 200
        # The content of an image of the folder is known, too.
        added = page.add(("copy.png", (data / "dog/1.png").read_bytes()))
        assert [each["id"] for each in added["duplicates"]] == [3]
        # New files of the folder are noticed and added; those that are known are not added twice.
        new = {"path": str(data), "name": "photos", "new": 0}
        assert page.get("/sources") == [new]
        (data / "dog/2.png").write_bytes(png(50))
        assert page.get("/sources") == [{**new, "new": 1}]
        assert page.post("/import", {"path": str(data)})["changed"] == 1
        assert page.get("/sources") == [new]
        page.post("/undo")
        assert page.get("/sources") == [{**new, "new": 1}]
        (data / "dog/2.png").unlink()
        data.rename(tmp_path / "away")
        assert page.get("/sources") == []
        (tmp_path / "away").rename(data)
    finally:
        studio.close()
    reopened = Studio(folder, None, thumbnails)
    try:
        assert Page(reopened).get("/sources") == [new]
    finally:
        reopened.close()
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }
    assert open_folder(data) == (folder, None)
    assert open_folder(data, "more.csv") == (folder, "more.csv")
