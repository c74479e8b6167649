"""The exported web page, without a browser: joining, packing, policy and texts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import flatbuffers
import numpy as np
import pytest

from kindsight.errors import KindsightError
from kindsight.export.web import library as library_module
from kindsight.export.web.bundling import join_modules
from kindsight.export.web.library import Library, load_library
from kindsight.export.web.packing import pack_bytes, round_weights
from kindsight.export.web.pages import render_file, render_site
from kindsight.models.runtime import schema
from tiny_bundle import tflite_bytes

LIBRARY = Library(
    "9.8.7", 'import { start } from "@litertjs/wasm-utils";\nconst a = 1;\nexport {\n  a\n};\n',
    "function start() {}\nexport {\n  start\n};\n", "var ModuleFactory = 1;", b"\0asm",
)  # fmt: skip


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
    parts = dict(re.findall(r'<script type="text/plain" id="([\w-]+)">(.*?)</script>', page))
    assert base64.b64decode(parts["model-file"]) == model
    assert gzip.decompress(base64.b64decode(parts["wasm-code"])) == LIBRARY.wasm
    worker = gzip.decompress(base64.b64decode(parts["worker-code"])).decode()
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


def test_packed_bytes_are_the_planes_of_float32():
    values = np.array([1.0, -2.5, 3e9], "<f4")
    planes = np.frombuffer(gzip.decompress(pack_bytes(values.tobytes() + b"x")), np.uint8)
    restored = planes.reshape(4, -1).T.tobytes()
    assert restored == values.tobytes() + b"x\0\0\0"


def test_large_weights_are_rounded_to_16_bits_in_place():
    types = schema()
    model = types.ModelT.InitFromPackedBuf(tflite_bytes(400), 0)
    kernel = np.random.default_rng(0).normal(size=1200).astype("<f4")
    kernel[:3] = [0.0, np.finfo(np.float32).max, np.inf]
    (place,) = (
        place
        for place, buffer in enumerate(model.buffers)
        if buffer.data is not None and len(buffer.data) == kernel.nbytes
    )
    model.buffers[place].data = kernel.view(np.uint8)
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    content = bytes(builder.Output())

    rounded = round_weights(content)

    assert len(rounded) == len(content)
    start = content.index(kernel.tobytes())
    found = np.frombuffer(rounded[start : start + kernel.nbytes], "<f4")
    np.testing.assert_array_equal(found[:3], kernel[:3])
    error = np.abs(found[3:] - kernel[3:]) / np.abs(kernel[3:])
    assert 2**-19 < error.max() <= 2**-17
    assert not (found[3:].view("<u4") & 0x7F).any()
    rest = content[:start] + content[start + kernel.nbytes :]
    assert rounded[:start] + rounded[start + kernel.nbytes :] == rest
