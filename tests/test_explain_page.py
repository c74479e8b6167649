"""The page of feature maps."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from html_page import HOSTILE, Page
from kindsight.explain.feature_maps import render_feature_maps, sheet_png
from kindsight.models.networks.feature_maps import LayerMaps, brightness


def layer_maps(**changes) -> LayerMaps:
    maps = np.zeros((5, 2, 3), np.float32)
    maps[:, 0, 0] = [0, 60, 120, 180, 240]
    facts = {
        "name": "conv_1",
        "kind": "Conv2D",
        "channels": 9,
        "shown": np.array([0, 2, 4, 6, 8]),
        "maps": maps,
        "low": -1.25,
        "high": 3.5,
        "silent": 1,
    }
    return LayerMaps(**(facts | changes))


def rendered(**changes) -> str:
    facts = {
        "path": "a/b.jpg",
        "image": np.full((20, 30, 3), 77, np.uint8),
        "run": "photos-1",
        "top_classes": [("cat", 0.875), ("dog", 0.125)],
        "layers": [layer_maps(), layer_maps(name="pool", channels=5, shown=np.arange(5), silent=0)],
        "not_shown": ["conv_2"],
    }
    return render_feature_maps(**(facts | changes))


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_sheet_contains_the_maps_row_by_row():
    sheet = pixels(sheet_png(layer_maps().maps.astype(np.uint8), 3))
    assert sheet.shape == (4, 9, 3)
    dark = [16, 13, 52]
    assert sheet[1, 1].tolist() == dark
    # the last position is empty
    assert sheet[2, 6].tolist() == dark
    corners = [sheet[0, 0], sheet[0, 3], sheet[0, 6], sheet[2, 0], sheet[2, 3]]
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in corners]
    assert light == sorted(light)
    assert len(set(light)) == 5


def test_palette_increases_in_luminance():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)[:, :, ::4]
    sheet = pixels(sheet_png(ramp, 1))[0]
    light = (sheet * [0.2126, 0.7152, 0.0722]).sum(axis=1)
    assert (np.diff(light) > 0).all()
    assert sheet[0].tolist() == [16, 13, 52]


def test_large_maps_are_scaled_down():
    assert pixels(sheet_png(np.zeros((1, 720, 360), np.uint8), 1)).shape == (72, 36, 3)
    assert pixels(sheet_png(np.zeros((1, 9, 9), np.uint8), 1)).shape == (9, 9, 3)
    half = np.zeros((1, 144, 144), np.uint8)
    half[0, :, 1::2] = 200
    # the mean of 0 and 200 everywhere
    assert len(np.unique(pixels(sheet_png(half, 1)).reshape(-1, 3), axis=0)) == 1


def test_page_describes_the_layers():
    text = rendered()
    page = Page(text)
    assert page.unbalanced == []
    assert page.open == []
    text_of_page = " ".join(page.text_of("p").split())
    assert "9 maps of 2 \u00d7 3, 5 of them shown; values from -1.25 to 3.5." in text_of_page
    assert "1 of the 9 is constant." in text_of_page
    assert "5 maps of 2 \u00d7 3; values" in text_of_page
    assert "has 3 layers with feature maps; 2 are shown. The others:conv_2" in text_of_page
    assert page.text_of("strong") == "cat"
    assert "confidence 87.5%" in text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "i"]
    assert labels[:5] == ["Map 0", "Map 2", "Map 4", "Map 6", "Map 8"]
    # three columns and two rows
    places = re.findall(r"background-position:([^\"]*)", text)
    assert places[:5] == ["0% 0%", "50% 0%", "100% 0%", "0% 100%", "50% 100%"]
    sheets = re.findall(
        r"url\(data:image/png;base64,([^)]*)\); background-size: (\S+) (\S+);", text
    )
    assert [sheet[1:] for sheet in sheets] == [("300%", "200%")] * 2
    assert base64.b64decode(sheets[0][0]) == sheet_png(brightness(layer_maps().maps), 3)


def test_page_is_self_contained():
    text = rendered()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.names)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert set(re.findall(r"url\(([^)]{15})", text)) == {"data:image/png;"}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    policies = [a["content"] for _, a in page.tags if "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    wanted = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert wanted == {"l1", "l2"} <= {a.get("id") for _, a in page.tags}


def test_text_from_outside_is_escaped():
    text = rendered(
        path=HOSTILE + "\x00\u202e",
        run=HOSTILE,
        top_classes=[(HOSTILE, 0.5), ("b", 0.5)],
        layers=[layer_maps(name=HOSTILE, kind=HOSTILE)],
        not_shown=[HOSTILE],
    )
    page = Page(text)
    assert "<script" not in text.lower()
    assert page.names.count("img") == 1
    assert page.names.count("style") == page.names.count("title") == 1
    assert page.unbalanced == []
    assert "\x00" not in text and "\u202e" not in text
    assert text.encode("utf-8")


@pytest.mark.parametrize("count", [1, 2, 64])
def test_every_map_has_its_own_position(count):
    maps = np.zeros((count, 4, 4), np.float32)
    text = rendered(layers=[layer_maps(channels=count, shown=np.arange(count), maps=maps)])
    places = re.findall(r"background-position:([^\"]*)", text)
    assert len(set(places)) == len(places) == count
    assert "Not shown" not in rendered(not_shown=[])


def test_page_says_that_the_layers_belong_to_a_submodel():
    phrase = "averages several networks"
    assert phrase in rendered(is_submodel=True) and phrase not in rendered()
