"""The page of layers: every map where its numbers say, nothing from outside but escaped."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from test_report_page import HOSTILE, Page

from kindsight.explain.page import LayersData, LayerView, render_layers, sheet_png


def view(**changes) -> LayerView:
    maps = np.zeros((5, 2, 3), np.uint8)
    maps[:, 0, 0] = [0, 60, 120, 180, 240]
    facts = {
        "name": "conv_1",
        "kind": "Conv2D",
        "size": (2, 3),
        "channels": 9,
        "shown": [0, 2, 4, 6, 8],
        "maps": maps,
        "low": -1.25,
        "high": 3.5,
        "silent": 1,
    }
    return LayerView(**(facts | changes))


def data(**changes) -> LayersData:
    facts = {
        "path": "a/b.jpg",
        "image": np.full((20, 30, 3), 77, np.uint8),
        "run": "photos-1",
        "answers": [("cat", 0.875), ("dog", 0.125)],
        "layers": [view(), view(name="pool", channels=5, shown=[0, 1, 2, 3, 4], silent=0)],
        "left_out": ["conv_2"],
    }
    return LayersData(**(facts | changes))


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_a_sheet_holds_the_maps_row_by_row_from_dark_to_bright():
    sheet = pixels(sheet_png(view().maps, 3))
    assert sheet.shape == (4, 9, 3)
    dark = [16, 13, 52]
    assert sheet[1, 1].tolist() == dark
    # the last place stays empty
    assert sheet[2, 6].tolist() == dark
    corners = [sheet[0, 0], sheet[0, 3], sheet[0, 6], sheet[2, 0], sheet[2, 3]]
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in corners]
    assert light == sorted(light)
    assert len(set(light)) == 5


def test_the_palette_grows_evenly_brighter():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 1, 256)[:, :, ::4]
    sheet = pixels(sheet_png(ramp, 1))[0]
    light = (sheet * [0.2126, 0.7152, 0.0722]).sum(axis=1)
    assert (np.diff(light) > 0).all()
    assert sheet[0].tolist() == [16, 13, 52]


def test_large_maps_are_made_smaller_and_small_ones_stay():
    assert pixels(sheet_png(np.zeros((1, 720, 360), np.uint8), 1)).shape == (72, 36, 3)
    assert pixels(sheet_png(np.zeros((1, 9, 9), np.uint8), 1)).shape == (9, 9, 3)
    half = np.zeros((1, 144, 144), np.uint8)
    half[0, :, 1::2] = 200
    # the mean of 0 and 200 everywhere
    assert len(np.unique(pixels(sheet_png(half, 1)).reshape(-1, 3), axis=0)) == 1


def test_the_page_says_what_the_layers_are():
    text = render_layers(data())
    page = Page(text)
    assert page.unbalanced == []
    assert page.open == []
    said = " ".join(page.text_of("p").split())
    assert "9 maps of 2 \u00d7 3, 5 of them shown, evenly chosen; values from -1.25 to 3.5." in said
    assert "1 of the 9 is the same everywhere." in said
    assert "5 maps of 2 \u00d7 3; values" in said
    assert "has 3 layers with maps; 2 are shown, evenly chosen. The others:conv_2" in said
    assert page.text_of("strong") == "cat"
    assert "87.5% sure" in text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "i"]
    assert labels[:5] == ["Map 0", "Map 2", "Map 4", "Map 6", "Map 8"]
    # three columns and two rows
    places = re.findall(r"background-position:([^\"]*)", text)
    assert places[:5] == ["0% 0%", "50% 0%", "100% 0%", "0% 100%", "50% 100%"]
    sheets = re.findall(
        r"url\(data:image/png;base64,([^)]*)\); background-size: (\S+) (\S+);", text
    )
    assert [sheet[1:] for sheet in sheets] == [("300%", "200%")] * 2
    assert base64.b64decode(sheets[0][0]) == sheet_png(view().maps, 3)


def test_the_page_fetches_nothing_and_runs_nothing():
    text = render_layers(data())
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.names)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert set(re.findall(r"url\(([^)]{15})", text)) == {"data:image/png;"}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    policies = [a["content"] for _, a in page.tags if "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    wanted = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert wanted == {"l1", "l2"} <= {a.get("id") for _, a in page.tags}


def test_everything_from_outside_is_escaped():
    text = render_layers(
        data(
            path=HOSTILE + "\x00\u202e",
            run=HOSTILE,
            answers=[(HOSTILE, 0.5), ("b", 0.5)],
            layers=[view(name=HOSTILE, kind=HOSTILE)],
            left_out=[HOSTILE],
        )
    )
    page = Page(text)
    assert "<script" not in text.lower()
    assert page.names.count("img") == 1
    assert page.names.count("style") == page.names.count("title") == 1
    assert page.unbalanced == []
    assert "\x00" not in text and "\u202e" not in text
    assert text.encode("utf-8")


@pytest.mark.parametrize("count", [1, 2, 64])
def test_any_number_of_maps_has_its_place(count):
    maps = np.zeros((count, 4, 4), np.uint8)
    text = render_layers(data(layers=[view(channels=count, shown=range(count), maps=maps)]))
    places = re.findall(r"background-position:([^\"]*)", text)
    assert len(set(places)) == len(places) == count
    assert "Not shown" not in render_layers(data(left_out=[]))


def test_a_network_within_another_is_said_to_be_one():
    said = "several networks together"
    assert said in render_layers(data(within=True)) and said not in render_layers(data())
