"""KS101 to KS118 on files written for each check."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from check_images import file_of, run, scene
from PIL import Image

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, measure_dataset
from kindsight.dataset import ImageDataset

JPEG = file_of(scene(1))
PLAIN = {"cat/a.jpg": scene(1), "cat/b.png": scene(2), "dog/c.jpg": scene(3)}


def paths(result):
    return [finding.paths for finding in result.findings]


def test_unreadable_images(make_context):
    png = file_of(scene(1), "png")
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    context = make_context(
        {
            "cat/a.png": png,
            "cat/damaged.png": bytes(damaged),
            "dog/b.png": scene(2),
        }
    )
    result = run("KS101", context)
    assert result.state == "found" and result.examined == 3
    assert paths(result) == [("cat/damaged.png",)]
    assert "checksum" in result.findings[0].message


@pytest.mark.parametrize(
    ("code", "name", "content"),
    [
        ("KS102", "cut.jpg", JPEG[: len(JPEG) // 2]),
        ("KS103", "empty.jpg", b""),
        ("KS104", "page.jpg", b"<html><body>404 Not Found</body></html>"),
        ("KS105", "bomb.png", file_of(scene(1), "png")[:16] + struct.pack(">II", 50_000, 50_000)),
    ],
)
def test_each_kind_of_unreadable_file_has_its_own_check(make_context, code, name, content):
    if code == "KS105":  # a header that promises 2.5 billion pixels
        content += file_of(scene(1), "png")[24:]
    context = make_context({**PLAIN, f"dog/{name}": content})
    for other in ("KS101", "KS102", "KS103", "KS104", "KS105"):
        result = run(other, context)
        if other == code:
            assert paths(result) == [(f"dog/{name}",)]
            assert result.findings[0].severity == "error"
        else:
            assert result.state == "passed"


def test_a_missing_file_is_unreadable(tmp_path):
    (tmp_path / "there.jpg").write_bytes(JPEG)
    dataset = ImageDataset.from_files([tmp_path / "there.jpg", tmp_path / "gone.jpg"])
    context = CheckContext(*measure_dataset(dataset, Cache(tmp_path / "cache")))
    assert context.dataset.digest[1] is None
    (finding,) = run("KS101", context).findings
    assert finding.rows == (1,) and "no such file" in finding.message


def test_wrong_extensions(make_context):
    context = make_context(
        {**PLAIN, "cat/liar.JPG": file_of(scene(4), "png"), "dog/right.jpe": JPEG}
    )
    (finding,) = run("KS106", context).findings
    assert finding.paths == ("cat/liar.JPG",)
    assert finding.message == "The extension is .jpg, but the file is PNG."
    assert finding.suggestion == "PNG"


def test_files_with_several_frames(make_context):
    frames = [Image.fromarray(scene(seed)) for seed in range(5)]
    gif, tif = io.BytesIO(), io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    frames[0].save(tif, "TIFF", save_all=True, append_images=frames[1:3])
    context = make_context(
        {**PLAIN, "cat/pages.tif": tif.getvalue(), "dog/moving.gif": gif.getvalue()}
    )
    result = run("KS107", context)
    assert [(f.paths[0], f.value) for f in result.findings] == [
        ("dog/moving.gif", 5.0),
        ("cat/pages.tif", 3.0),
    ]


def test_unusual_pixel_formats(make_context):
    window = np.dstack([scene(5), np.full((120, 160), 255, np.uint8)])
    half = window.copy()
    half[:60, :, 3] = 0
    deep = np.linspace(0, 65535, 120 * 160).reshape(120, 160).astype(np.uint16)
    context = make_context(
        {
            **PLAIN,
            "cat/deep.png": file_of(deep, "png"),
            "cat/half.png": file_of(half, "png"),
            "cat/opaque.png": file_of(window, "png"),
            "dog/inks.jpg": as_mode(scene(6), "CMYK", "JPEG"),
        }
    )
    found = {f.paths[0]: f.message for f in run("KS108", context).findings}
    assert set(found) == {"cat/deep.png", "cat/half.png", "dog/inks.jpg"}
    assert "16 bits" in found["cat/deep.png"]
    assert found["cat/half.png"] == "50% transparent; composited on white."
    assert "CMYK" in found["dog/inks.jpg"]


def as_mode(image, mode, name):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, name)
    return file.getvalue()


def test_images_of_unusual_size(make_context):
    same = {f"cat/{n}.png": scene(n, 60, 80) for n in range(12)}
    context = make_context(
        {**same, "cat/large.png": scene(20, 600, 800), "dog/tiny.png": scene(21, 20, 80)}
    )
    result = run("KS109", context)
    assert paths(result) == [("cat/large.png",), ("dog/tiny.png",)]
    assert result.findings[0].value == pytest.approx(10.0)
    assert "10.0 times larger" in result.findings[0].message


def test_tiny_images_only_pass(make_context):
    context = make_context({f"cat/{n}.png": scene(n, 16, 16) for n in range(8)})
    assert run("KS109", context).state == "passed"


def test_size_outliers_among_images_of_one_size(make_context):
    same = {f"cat/{n}.png": scene(n, 60, 80) for n in range(12)}
    context = make_context({**same, "cat/other.png": scene(20, 100, 130)})
    assert paths(run("KS109", context)) == [("cat/other.png",)]


def test_extreme_aspect_ratios(make_context):
    context = make_context(
        {**PLAIN, "dog/strip.png": scene(4, 40, 200), "cat/wide.png": scene(5, 50, 110)}
    )
    (finding,) = run("KS110", context).findings
    assert finding.paths == ("dog/strip.png",) and finding.value == pytest.approx(5.0)
    assert "centre square is 20% of it" in finding.message


def test_images_rotated_by_exif(make_context):
    tags = Image.Exif()
    tags[274] = 6
    context = make_context(
        {**PLAIN, "dog/turned.jpg": file_of(scene(4), "jpg", exif=tags.tobytes())}
    )
    (finding,) = run("KS111", context).findings
    assert finding.paths == ("dog/turned.jpg",) and "orientation 6" in finding.message
    assert context.measurements.height[finding.rows[0]] == 160  # seen upright


def test_names_that_differ_only_by_case(tmp_path):
    # In memory: a disk may not tell the names apart.
    names = ("cat/a.jpg", "cat/A.jpg", "cat/b.jpg", "dog/a.jpg", "dog/e\u0301.jpg", "dog/\xe9.jpg")
    dataset = ImageDataset(names)
    context = CheckContext(*measure_dataset(dataset, Cache(tmp_path)))
    assert paths(run("KS112", context)) == [
        ("cat/a.jpg", "cat/A.jpg"),
        ("dog/e\u0301.jpg", "dog/\xe9.jpg"),
    ]


def test_class_names_that_differ_only_by_case_or_spaces(tmp_path):
    labels = ("cat", "Cat ", "cat", "great_dane", "great  dane", "11", "1 1")
    dataset = ImageDataset(tuple(f"{n}.jpg" for n in range(7)), label=labels)
    context = CheckContext(*measure_dataset(dataset, Cache(tmp_path)))
    result = run("KS113", context)
    assert [(set(f.paths), f.suggestion) for f in result.findings] == [
        ({"cat", "Cat "}, "cat"),
        ({"great_dane", "great  dane"}, "great  dane"),
    ]
    assert result.findings[0].severity == "error"
    assert "Treated as 2 classes, of 1 and 2 images" in result.findings[0].message


def test_other_files_among_the_images(make_context):
    context = make_context(
        {
            **PLAIN,
            "cat/a.xml": b"<annotation/>",
            "cat/b.xml": b"<annotation/>",
            "dog/notes.txt": b"bad light",
            "dog/README": b"from the garden",
            "readme.md": b"not in a class",
            "docs/paper.pdf": b"not among images",
        }
    )
    assert paths(run("KS114", context)) == [
        ("cat/a.xml", "cat/b.xml"),
        ("dog/README",),
        ("dog/notes.txt",),
    ]


def test_segmentation_masks(make_context):
    mask = np.zeros((120, 160, 3), np.uint8)
    mask[40:80, 50:90] = 255
    context = make_context(
        {
            **PLAIN,
            "cat/img7.jpg": scene(4),
            "cat/img7_mask.png": mask,
            "cat/GT-img7.png": mask,
            "cat/unmasked_hero.png": scene(5),
            "dog/masks/c.png": mask,
            "dog/masks/photo.png": scene(6),
            "dog/black.png": mask,
        }
    )
    assert sorted(paths(run("KS115", context))) == [
        ("cat/GT-img7.png",),
        ("cat/img7_mask.png",),
        ("dog/masks/c.png",),
    ]


def with_thumbnail(image, small):
    """Return a JPEG with a thumbnail in its EXIF data."""
    small = file_of(small, "jpg", quality=80)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 14)
    second = struct.pack("<HHHIIHHII", 2, 513, 4, 1, 44, 514, 4, 1, len(small)) + bytes(4)
    block = (head + second).ljust(44, b"\0") + small
    return file_of(image, "jpg", exif=b"Exif\0\0" + block)


def test_exif_thumbnails_of_another_image(make_context):
    own = scene(4)[::4, ::4]
    boxed = np.zeros((40, 40, 3), np.uint8)  # padded with black, as cameras do
    boxed[5:35] = own
    context = make_context(
        {
            **PLAIN,
            "cat/own.jpg": with_thumbnail(scene(4), own),
            "cat/boxed.jpg": with_thumbnail(scene(4), boxed),
            "dog/other.jpg": with_thumbnail(scene(5), own),
        }
    )
    result = run("KS116", context)
    assert paths(result) == [("dog/other.jpg",)] and result.examined == 3
    assert result.findings[0].value > 0.25


def test_no_exif_thumbnails(make_context):
    assert run("KS116", make_context(PLAIN)).state == "not applicable"


def test_folders_of_thumbnails(make_context):
    context = make_context({**PLAIN, "cat/thumbs/a.jpg": scene(1), "cat/thumbs/b.jpg": scene(2)})
    (finding,) = run("KS117", context).findings
    assert finding.paths == ("cat/thumbs/a.jpg", "cat/thumbs/b.jpg")


def test_a_class_may_be_named_small(make_context):
    context = make_context({"small/a.jpg": scene(1), "large/b.jpg": scene(2)})
    assert run("KS117", context).state == "passed"


def test_unsupported_formats(make_context):
    heic, jxl = b"\0\0\0\x18ftypheic" + bytes(40), b"\xff\x0a" + bytes(40)
    names = {"cat/x.HEIC": heic, "dog/y.heic": heic, "dog/z.jpg": jxl, "dog/n.txt": b"4"}
    result = run("KS118", make_context({**PLAIN, **names}))
    assert paths(result) == [("cat/x.HEIC", "dog/y.heic"), ("dog/z.jpg",)]
    assert "pip install pi-heif" in result.findings[0].message
    assert "JPEG XL" in result.findings[1].message and result.examined == 6


def test_normal_images_pass_all_file_checks(make_context):
    context = make_context(PLAIN)
    for number in range(101, 119):
        assert run(f"KS{number}", context).state in ("passed", "not applicable")
