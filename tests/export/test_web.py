"""The exported web page, without a browser: joining, packing, policy and texts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import struct
import unicodedata

import numpy as np
import pytest

from kindsight.bundle import load_bundle
from kindsight.errors import KindsightError
from kindsight.export.web import target
from kindsight.export.web.packing import (
    PRECISIONS,
    as_text,
    gzip_sections,
    pack_model,
    round_weights,
)
from kindsight.export.web.pages import render_file, render_site
from kindsight.export.web.target import choose_precision
from kindsight.models.formats.tflite import compact
from kindsight.models.runtime import run_litert
from kindsight.web import library as library_module
from kindsight.web.library import Library, join_modules, load_library
from tiny_bundle import SIDE, tflite_bytes, write_bundle

LIBRARY = Library(
    "9.8.7", 'import { start } from "@litertjs/wasm-utils";\nconst a = 1;\nexport {\n  a\n};\n',
    "function start() {}\nexport {\n  start\n};\n", "var ModuleFactory = 1;", b"\0asm",
)  # fmt: skip


def from_text(text: str, size: int) -> bytes:
    """Return the first bytes of a text of the page."""
    bits = "".join(f"{ord(character) - 0x5000:015b}" for character in text)
    return bytes(int(bits[8 * at : 8 * at + 8], 2) for at in range(size))


def info(*classes: str) -> dict:
    return {
        "classes": list(classes), "backbone": "tiny", "outputs": ["probabilities"],
        "input": {"shape": [None, 8, 8, 3], "resize": {"height": 8, "width": 8}},
        "thresholds": {"unsure": None, "unknown": None},
    }  # fmt: skip


def test_modules_are_joined_once_each_in_the_order_of_their_imports():
    joined = join_modules(
        {
            "a.js": 'import { two } from "./b.js";\nimport { three } from "./inner/c.js";\n'
            "export const sum = two + three;\n",
            "b.js": 'import { three } from "./c.js";\nconst own = 1;\n'
            "export const two = three - own;\n",
            "c.js": "const own = 3;\nexport const three = own;\nexport async function f() {}\n",
        },
        "a.js",
        name="result",
    )
    assert joined.count("const own = 3") == 1
    assert joined.index("const own = 3") < joined.index("const own = 1") < joined.index("sum =")
    assert "return { three, f };" in joined
    assert not re.search(r"^(import|export)\b", joined, re.M)
    assert joined.rstrip().endswith("const result = module2;")


def test_every_script_and_style_of_the_file_is_allowed_by_its_digest_and_nothing_else():
    page = render_file(info("a", "b"), b"model", LIBRARY, "A page")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    run = re.findall(r"<script>(.*?)</script>", page, re.S)
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert len(run) == len(styles) == 1
    for text in (*run, *styles):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert not re.search(r"\s(style|on\w+)=", page.split("<script", 1)[0])


def test_the_folder_has_no_inline_script_or_style():
    files = render_site(info("a", "b"), b"model", LIBRARY, "A page")
    page = files["index.html"].decode()
    assert re.findall(r"<script(?! src| type=\"application/json\")", page) == []
    assert "<style" not in page
    assert "unsafe-inline" not in page
    policy = re.search(r'content="(default-src [^"]*)"', page)[1]
    assert policy in files["_headers"].decode()


def test_the_parts_of_the_file_are_those_given():
    model = bytes(range(200))
    page = render_file(info("a", "b"), model, LIBRARY, "A page")
    pattern = r'<script type="text/plain" id="([\w-]+)" data-size="(\d+)">(.*?)</script>'
    found = re.findall(pattern, page)
    parts = {name: from_text(text, int(size)) for name, size, text in found}
    assert parts["model-file"] == model
    assert gzip.decompress(parts["wasm-code"]) == LIBRARY.wasm
    worker = gzip.decompress(parts["worker-code"]).decode()
    assert worker.startswith("var ModuleFactory = 1;\nconst litert = (() => {")


def test_names_are_texts_of_the_page():
    name, label = "</title><script>alert(1)</script>", "</script><img src=x>{{script}}"
    page = render_file(info(label, "b\u202e"), b"", LIBRARY, name)
    assert "<img" not in page.split("<main>")[0]
    assert "alert(1)<" not in page
    assert page.count("<script") == 5
    assert "\u202e" not in page
    stored = re.search(r'id="model-info">(.*?)</script>', page)[1]
    assert json.loads(stored)["classes"] == [label, "b\u202e"]


def test_many_classes_are_counted():
    page = render_file(info(*(f"class {n}" for n in range(100))), b"", LIBRARY, "x")
    assert "100 classes: class 0, " in page
    assert "class 11 and 88 more." in page


def test_a_missing_library_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    with pytest.raises(KindsightError, match=r"lacks\. Run: make -C .* web$"):
        load_library(tmp_path)
    monkeypatch.setattr(library_module, "_CLONE", tmp_path)
    with pytest.raises(KindsightError, match=r"lacks\. Run: pip install .* kindsight$"):
        load_library(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 13, 14, 15, 16, 29, 30, 31, 1000])
def test_a_text_holds_15_bits_in_a_character(size):
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    text = as_text(content)
    assert len(text) == -(-8 * size // 15)
    assert from_text(text, size) == content
    # Chinese characters to Hangul: no surrogate, control or combining character.
    assert all(0x5000 <= ord(character) < 0xD000 for character in text)
    assert unicodedata.is_normalized("NFC", text)


def test_a_long_text_is_made_in_pieces():
    content = np.random.default_rng(0).integers(0, 256, 1_500_001, np.uint8).tobytes()
    text = as_text(content)
    codes = np.frombuffer(text.encode("utf-16-be"), ">u2") - 0x5000
    bits = np.unpackbits(codes.astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 1:]
    assert np.packbits(bits)[: len(content)].tobytes() == content


def test_sections_are_one_gzip_file():
    random = np.random.default_rng(0)
    sections = [b"", b"abc" * 1000, random.integers(0, 256, 5000, np.uint8).tobytes(), b"x"]
    assert gzip.decompress(gzip_sections(*sections)) == b"".join(sections)
    assert gzip_sections(*sections) == gzip_sections(*sections)
    # Numbers with few values: codes alone are shorter than references to what is alike by chance.
    values = random.choice([0, 64, 128, 192], 100_000).astype(np.uint8).tobytes()
    assert len(gzip_sections(values)) < 28_500 < len(gzip.compress(values, 9))


def with_kernel(kernel: np.ndarray) -> bytes:
    """Return a LiteRT file with a constant of this content."""
    return compact(tflite_bytes(len(kernel) // 3, kernel.reshape(-1, 3)))


def test_large_weights_are_rounded_to_multiples_of_a_power_of_two():
    kernel = np.random.default_rng(0).normal(size=4098).astype("<f4")
    kernel[1024:2048] *= 1e-3
    kernel[2048:2176] = 0
    kernel[3000] = 1e30
    content = with_kernel(kernel)
    rounded = round_weights(content, 12)
    start = content.index(kernel.tobytes())
    found = np.frombuffer(rounded[start : start + kernel.nbytes], "<f4")
    # Four times 1,024 weights: one bit less.
    for part, scale in ((slice(0, 1024), 1.0), (slice(1024, 2048), 2.0**-10)):
        multiples = found[part].astype(np.float64) / scale * 2**11
        np.testing.assert_array_equal(multiples, np.round(multiples))
        error = np.abs(found[part] - kernel[part]) / scale
        assert 2**-12.2 < error.max() <= 2**-12
    assert not found[2048:2176].any()
    assert found[3000] == pytest.approx(1e30, rel=1e-4)
    assert rounded[:start] + rounded[start + kernel.nbytes :] == (
        content[:start] + content[start + kernel.nbytes :]
    )


@pytest.mark.parametrize("kernel", [
    np.random.default_rng(1).normal(size=3072), np.full(1200, np.nan), np.zeros(300),
])  # fmt: skip
def test_a_packed_model_is_the_rounded_one(kernel):
    content = with_kernel(kernel.astype("<f4"))
    assert restored(gzip.decompress(pack_model(content, 10))) == round_weights(content, 10)


def restored(packed: bytes) -> bytes:
    """Return the LiteRT file of a packed one, as its description says."""
    fields = int(np.frombuffer(packed, "<u4", 1)[0])
    size, weights, blocks, *places = np.frombuffer(packed, "<u4", fields, 4).tolist()
    begin = 4 + 4 * fields
    powers = np.frombuffer(packed, np.int8, blocks, begin)
    rest = packed[begin + blocks : len(packed) - 3 * weights]
    high, middle, low = (
        np.frombuffer(packed, np.uint8, 3 * weights, len(packed) - 3 * weights)
        .reshape(3, -1)
        .astype(int)
    )
    multiples = (high * 65536 + middle * 256 + low - 2**23).tolist()
    result, block, at = bytearray(), 0, 0
    for start, count in zip(places[::2], places[1::2], strict=True):
        taken = 4 * start - len(result)
        result += rest[:taken]
        rest = rest[taken:]
        for row in range(count):
            value = multiples[at + row] * 2.0 ** int(powers[block + row // 128])
            result += struct.pack("<f", value)
        at, block = at + count, block - (-count // 128)
    assert (at, block) == (weights, blocks)
    return bytes(result + rest)[:size]


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    return run_litert(content, images.astype(np.float32))


def test_the_precision_is_the_lowest_that_changes_predictions_little_enough():
    images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    kernel = np.random.default_rng(1).normal(size=3072).astype("<f4")
    found = []
    for scale in (3e-4, 3e-2, 3e-1, 30.0):
        content = with_kernel(kernel * np.float32(scale))
        found.append(choose_precision(content, images))
        exact, rounded = (
            run(each, images) for each in (content, round_weights(content, found[-1]))
        )
        if found[-1] < PRECISIONS[-1]:
            assert np.abs(rounded - exact).max() <= 5e-4
    assert found == sorted(found)
    assert (found[0], found[-1]) == (PRECISIONS[0], PRECISIONS[-1])
    assert 2 < len({*found}) <= 4


def test_the_tried_images_are_drawings_and_training_images(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(
        target, "choose_precision", lambda content, images: tried.append(images) or 14
    )
    bundle = load_bundle(write_bundle(tmp_path / "tiny"))
    (tmp_path / "out").mkdir()
    training = np.full((40, SIDE, SIDE, 3), 7, np.uint8)
    target.Web().convert(bundle, tmp_path / "out", lambda: training)
    (images,) = tried
    assert images.shape == (60, SIDE, SIDE, 3)
    assert (images[20:] == 7).all()
    page = (tmp_path / "out" / target.PAGE_FILE).read_bytes()
    assert page.startswith(b"\xff\xfe<\0!\0")
