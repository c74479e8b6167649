"""Any file is measured or reported as unreadable: no crash, no output, bounded memory.

Valid files of each format are mutated: bytes changed, cut, repeated, exchanged between files. Run
for minutes with ``KINDSIGHT_FUZZ_SECONDS=300 pytest -k minutes``.
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
from work_limit import seconds_of_work

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


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file changed in a few places."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 6))):
        at = int(random.integers(0, max(1, len(changed))))
        length = int(random.integers(1, 40))
        kind = random.integers(0, 6)
        if kind == 0 and changed:
            changed[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            changed[at : at + 4] = bytes(random.choice([0, 1, 127, 128, 255], 4).tolist())
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            del changed[at : at + length]
        else:
            other = seeds()[int(random.integers(0, len(seeds())))]
            start = int(random.integers(0, len(other)))
            changed[at : at + length] = other[start : start + length]
    return bytes(changed)


def assert_measured(data: bytes) -> None:
    """Assert that a file is measured or has an error code, within a second of work."""
    with seconds_of_work(1):
        found = measure_image(data)
    assert found.numeric.dtype == NUMERIC and set(found.text) == set(TEXT)
    assert found.numeric["bytes"] == len(data)
    assert all(isinstance(text, str) and len(text) <= 400 for text in found.text.values())
    if not found.readable:
        assert found.text["code"] in ImageError.CODES and found.text["reason"]
        return
    assert found.numeric["height"] > 0 and found.numeric["width"] > 0
    assert 1 <= found.numeric["orientation"] <= 8 and found.numeric["frames"] >= 1
    for name in (
        "brightness",
        "contrast",
        "entropy",
        "uniformity",
        "sharpness",
        "softness",
        "blur",
    ):
        assert np.isfinite(found.numeric[name]), name
    assert found.small.shape == (64, 64)


def test_all_seed_files_are_readable() -> None:
    assert all(measure_image(data).readable for data in seeds())


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.integers(0, 10**6), st.integers(0, 2**32 - 1))
def test_mutated_files_are_measured_or_unreadable(which: int, seed: int) -> None:
    assert_measured(mutate(seeds()[which % len(seeds())], np.random.default_rng(seed)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(
        [b"", b"<", b"<!--", b"P5", b"P2 9 9 9", b"RIFF", b"BM", b"II*\0", b"\xff\xd8\xff"]
    ),
    st.binary(min_size=1, max_size=12),
    st.integers(1, 4000),
    st.binary(max_size=12),
)
def test_repeated_bytes_take_no_time(start: bytes, middle: bytes, times: int, end: bytes) -> None:
    assert_measured(start + middle * times + end)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_unreadable(data: bytes) -> None:
    assert_measured(data)


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
    assert np.isfinite(found.numeric["colourfulness"])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(7)
    for data in seeds():
        assert_measured(mutate(data, random))
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.skipif(SECONDS <= 0, reason="set KINDSIGHT_FUZZ_SECONDS to fuzz for minutes")
@pytest.mark.timeout(0)
def test_mutating_for_minutes() -> None:
    random = np.random.default_rng(int(time.time()))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        data = seeds()[int(random.integers(0, len(seeds())))]
        changed = mutate(data, random)
        try:
            assert_measured(changed)
        except BaseException:
            print(f"failing file: {changed!r}")
            raise
