"""KS201 to KS208 on synthetic images."""

from __future__ import annotations

import cv2
import numpy as np
from check_images import run, scene

GOOD = {f"cat/{n}.png": scene(n, 200, 260) for n in range(6)}


def named(result):
    return [finding.paths[0] for finding in result.findings]


def test_blank_images(make_context):
    noise = np.random.default_rng(0).normal(200, 1.5, (90, 90, 3)).round().astype(np.uint8)
    stamp = np.full((90, 90, 3), 30, np.uint8)
    stamp[:9, :9] = 255  # 1% of the area
    context = make_context({**GOOD, "dog/noise.png": noise, "dog/stamp.png": stamp})
    result = run("KS201", context)
    assert sorted(named(result)) == ["dog/noise.png", "dog/stamp.png"]
    assert result.findings[0].message.endswith("of the pixels have one tone.")


def test_blurred_images(make_context):
    sharp = scene(9, 200, 260)
    moved = cv2.filter2D(sharp, -1, np.ones((1, 21)) / 21)
    enlarged = cv2.resize(scene(8, 40, 52), (260, 200), interpolation=cv2.INTER_CUBIC)
    context = make_context(
        {
            **GOOD,
            "dog/soft.png": cv2.GaussianBlur(sharp, (0, 0), 3.0),
            "dog/moved.png": moved,
            "dog/enlarged.png": enlarged,
            "dog/sharp.png": sharp,
            "dog/dark.png": sharp // 4,
        }
    )
    assert set(named(run("KS202", context))) == {
        "dog/soft.png",
        "dog/moved.png",
        "dog/enlarged.png",
    }


def test_dark_images(make_context):
    lamp = scene(9) // 12
    lamp[5:20, 5:20] = 255  # 1.2% of the area
    context = make_context({**GOOD, "dog/dark.png": scene(8) // 5, "dog/lamp.png": lamp})
    assert set(named(run("KS203", context))) == {"dog/dark.png", "dog/lamp.png"}


def test_bright_images(make_context):
    washed = 205 + scene(8) // 6
    over = np.minimum(scene(9).astype(int) * 2 + 120, 255).astype(np.uint8)
    context = make_context({**GOOD, "dog/washed.png": washed, "dog/over.png": over})
    assert set(named(run("KS204", context))) == {"dog/washed.png", "dog/over.png"}


def test_low_contrast_images(make_context):
    fog = (scene(8).astype(float) * 0.25 + 95).round().astype(np.uint8)
    flat = np.full((90, 90, 3), 128, np.uint8)  # blank, which KS201 reports
    context = make_context({**GOOD, "dog/fog.png": fog, "dog/flat.png": flat})
    assert named(run("KS205", context)) == ["dog/fog.png"]


def grey(seed):
    return cv2.cvtColor(scene(seed), cv2.COLOR_RGB2GRAY)


def test_grey_among_colour(make_context):
    context = make_context({**GOOD, "dog/grey.jpg": np.repeat(grey(8)[..., None], 3, 2)})
    assert named(run("KS206", context)) == ["dog/grey.jpg"]
    assert run("KS207", context).state == "not applicable"


def test_colour_among_grey(make_context):
    files = {f"cat/{n}.jpg": grey(n) for n in range(6)}
    context = make_context({**files, "dog/coloured.jpg": scene(8)})
    assert named(run("KS207", context)) == ["dog/coloured.jpg"]
    assert run("KS206", context).state == "not applicable"


def test_only_grey_images(make_context):
    context = make_context({"cat/a.png": grey(1), "dog/b.png": grey(2)})
    assert run("KS206", context).reason == "All images are grey images."
    assert run("KS207", context).state == "passed"


def test_images_with_few_grey_levels(make_context):
    drawing = np.full((120, 160, 3), 255, np.uint8)
    drawing[30:60, 20:140] = 0
    drawing[80:100, 20:140] = (0, 128, 0)
    context = make_context({**GOOD, "dog/drawing.png": drawing})
    assert named(run("KS208", context)) == ["dog/drawing.png"]


def test_a_frequent_property_is_summarised(make_context):
    dark = {f"cat/{n}.png": scene(n) // 5 for n in range(9)}
    light = {f"dog/{n}.png": scene(30 + n) for n in range(12)}
    result = run("KS203", make_context({**dark, **light}))
    (finding,) = result.findings
    assert len(finding.rows) == 9
    assert finding.message == "9 of 21 images are dark; this may be typical of the dataset."


def test_normal_images_pass_all_content_checks(make_context):
    context = make_context(GOOD)
    for number in range(201, 209):
        assert run(f"KS{number}", context).state in ("passed", "not applicable")
