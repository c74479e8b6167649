"""Whatever a file holds, it is measured or set aside: no crash, nothing printed, bounded sizes.

Valid files of each format are mutated: bytes changed, cut, repeated, exchanged between files. In
the suite for some seconds; for minutes with ``KINDSIGHT_FUZZ_SECONDS=300 pytest -k minutes``.
"""

from __future__ import annotations

import functools
import io
import os
import time
import tracemalloc

import numpy as np
import pytest
from check_images import scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kindsight.checks.measure import NUMERIC, TEXT, measure_image
from kindsight.errors import ImageError

FORMATS = ("JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
SECONDS = float(os.environ.get("KINDSIGHT_FUZZ_SECONDS", "0"))


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Return valid files: each format, also with EXIF data, frames, alpha and 16 bits."""
    pixels = Image.fromarray(scene(1, 40, 56))
    tags = Image.Exif()
    tags[274], tags[271] = 6, "Maker"
    tags.get_ifd(0x8769)[36867] = "2021:03:04 05:06:07"
    variants = [(name, pixels, {}) for name in FORMATS]
    variants += [(name, pixels, {"exif": tags.tobytes()}) for name in ("JPEG", "PNG", "TIFF")]
    frames = {"save_all": True, "append_images": [pixels.rotate(90)]}
    variants += [(name, pixels, frames) for name in ("GIF", "PNG", "TIFF", "WebP")]
    variants += [("PNG", pixels.convert("LA"), {}), ("PNG", pixels.quantize(8), {})]
    variants += [("JPEG", pixels.convert("CMYK"), {}), ("JPEG", pixels, {"progressive": True})]
    deep = Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29)
    variants += [("PNG", deep, {}), ("TIFF", deep, {})]
    made = []
    for name, image, options in variants:
        file = io.BytesIO()
        image.save(file, name, **options)
        made.append(file.getvalue())
    return tuple(made)


def mutate(data: bytes, chance: np.random.Generator) -> bytes:
    """Return a file changed in a few places."""
    changed = bytearray(data)
    for _ in range(int(chance.integers(1, 6))):
        at = int(chance.integers(0, max(1, len(changed))))
        length = int(chance.integers(1, 40))
        kind = chance.integers(0, 6)
        if kind == 0 and changed:
            changed[at] ^= 1 << int(chance.integers(0, 8))
        elif kind == 1:
            changed[at : at + 4] = bytes(chance.choice([0, 1, 127, 128, 255], 4).tolist())
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            del changed[at : at + length]
        else:
            other = seeds()[int(chance.integers(0, len(seeds())))]
            start = int(chance.integers(0, len(other)))
            changed[at : at + length] = other[start : start + length]
    return bytes(changed)


def hold(data: bytes) -> None:
    """Assert what holds of every file."""
    found = measure_image(data)
    assert found.numbers.dtype == NUMERIC and set(found.words) == set(TEXT)
    assert found.numbers["bytes"] == len(data)
    assert all(isinstance(text, str) and len(text) <= 400 for text in found.words.values())
    if not found.readable:
        assert found.words["code"] in ImageError.CODES and found.words["reason"]
        return
    assert found.numbers["height"] > 0 and found.numbers["width"] > 0
    assert 1 <= found.numbers["orientation"] <= 8 and found.numbers["frames"] >= 1
    for name in ("brightness", "contrast", "entropy", "plain", "sharpness", "softness", "smear"):
        assert np.isfinite(found.numbers[name]), name
    assert found.small.shape == (64, 64)


def test_every_seed_is_a_image() -> None:
    assert all(measure_image(data).readable for data in seeds())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.integers(0, 10**6), st.integers(0, 2**32 - 1))
def test_mutated_files_are_measured_or_set_aside(which: int, seed: int) -> None:
    hold(mutate(seeds()[which % len(seeds())], np.random.default_rng(seed)))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_set_aside(data: bytes) -> None:
    hold(data)


@pytest.mark.parametrize("shape", [(1, 3_000_000, 3), (3_000_000, 1, 3), (2, 400_000, 3)])
def test_a_strip_of_any_length_takes_little_memory(shape: tuple[int, int, int]) -> None:
    strip = np.zeros(shape, np.uint8)
    strip[:, ::2] = 200
    tracemalloc.start()
    try:
        found = measure_image(strip, "digest")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= 4 * strip.nbytes
    assert np.isfinite(found.numbers["colourfulness"])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    chance = np.random.default_rng(7)
    for data in seeds():
        hold(mutate(data, chance))
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.skipif(SECONDS <= 0, reason="set KINDSIGHT_FUZZ_SECONDS to fuzz for minutes")
@pytest.mark.timeout(0)
def test_mutating_for_minutes() -> None:
    chance = np.random.default_rng(int(time.time()))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        data = seeds()[int(chance.integers(0, len(seeds())))]
        changed = mutate(data, chance)
        try:
            hold(changed)
        except BaseException:
            print(f"the file that did it: {changed!r}")
            raise
