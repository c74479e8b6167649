"""Checks of content, each with images made for it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from check_images import run, scene

GOOD = {f"cat/{n}.png": scene(n, 200, 260) for n in range(6)}


def named(result):
    return [finding.paths[0] for finding in result.findings]


def test_blank_images(look):
    noise = np.random.default_rng(0).normal(200, 1.5, (90, 90, 3)).round().astype(np.uint8)
    stamp = np.full((90, 90, 3), 30, np.uint8)
    stamp[:9, :9] = 255  # 1% of the area
    context = look({**GOOD, "dog/noise.png": noise, "dog/stamp.png": stamp})
    result = run("KS201", context)
    assert sorted(named(result)) == ["dog/noise.png", "dog/stamp.png"]
    assert result.findings[0].message.endswith("of it has one tone.")


def test_blurred_images(look):
    sharp = scene(9, 200, 260)
    moved = cv2.filter2D(sharp, -1, np.ones((1, 21)) / 21)
    enlarged = cv2.resize(scene(8, 40, 52), (260, 200), interpolation=cv2.INTER_CUBIC)
    context = look(
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


def test_dark_images(look):
    lamp = scene(9) // 12
    lamp[5:20, 5:20] = 255  # 1.2% of the area
    context = look({**GOOD, "dog/dark.png": scene(8) // 5, "dog/lamp.png": lamp})
    assert set(named(run("KS203", context))) == {"dog/dark.png", "dog/lamp.png"}


def test_bright_images(look):
    washed = 205 + scene(8) // 6
    over = np.minimum(scene(9).astype(int) * 2 + 120, 255).astype(np.uint8)
    context = look({**GOOD, "dog/washed.png": washed, "dog/over.png": over})
    assert set(named(run("KS204", context))) == {"dog/washed.png", "dog/over.png"}


def test_images_of_low_contrast(look):
    fog = (scene(8).astype(float) * 0.25 + 95).round().astype(np.uint8)
    flat = np.full((90, 90, 3), 128, np.uint8)  # blank, and said to be so by another check
    context = look({**GOOD, "dog/fog.png": fog, "dog/flat.png": flat})
    assert named(run("KS205", context)) == ["dog/fog.png"]


def grey(seed):
    return cv2.cvtColor(scene(seed), cv2.COLOR_RGB2GRAY)


def test_grey_images_among_coloured_ones(look):
    context = look({**GOOD, "dog/grey.jpg": np.repeat(grey(8)[..., None], 3, 2)})
    assert named(run("KS206", context)) == ["dog/grey.jpg"]
    assert run("KS207", context).state == "not applicable"


def test_coloured_images_among_grey_ones(look):
    files = {f"cat/{n}.jpg": grey(n) for n in range(6)}
    context = look({**files, "dog/coloured.jpg": scene(8)})
    assert named(run("KS207", context)) == ["dog/coloured.jpg"]
    assert run("KS206", context).state == "not applicable"


def test_where_all_are_grey_none_is_odd(look):
    context = look({"cat/a.png": grey(1), "dog/b.png": grey(2)})
    assert run("KS206", context).reason == "All images are grey."
    assert run("KS207", context).state == "passed"


def test_images_of_few_tones(look):
    drawing = np.full((120, 160, 3), 255, np.uint8)
    drawing[30:60, 20:140] = 0
    drawing[80:100, 20:140] = (0, 128, 0)
    context = look({**GOOD, "dog/drawing.png": drawing})
    assert named(run("KS208", context)) == ["dog/drawing.png"]


def test_what_is_so_for_many_is_said_once(look):
    dark = {f"cat/{n}.png": scene(n) // 5 for n in range(9)}
    light = {f"dog/{n}.png": scene(30 + n) for n in range(12)}
    result = run("KS203", look({**dark, **light}))
    (finding,) = result.findings
    assert len(finding.rows) == 9
    assert finding.message == "9 of 21 images are dark; it may be how these data are."


@pytest.mark.parametrize("number", range(201, 209))
def test_good_images_pass_every_check_of_content(look, number):
    assert run(f"KS{number}", look(GOOD)).state in ("passed", "not applicable")
