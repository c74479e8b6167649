"""Paths: what is read, what is refused, and how errors name the file."""

from __future__ import annotations

import os

import numpy as np
import pytest
from image_makers import encode, noise

from kindsight.errors import ImageError
from kindsight.images import MAX_BYTES, MAX_PIXELS, read_bytes, read_image


def code_of_path(path, **options):
    with pytest.raises(ImageError) as caught:
        read_bytes(path, **options)
    assert caught.value.path == os.fspath(path)
    return caught.value.code


def test_reading_bytes(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    assert read_bytes(path) == b"12345"
    assert read_bytes(str(path), max_bytes=5) == b"12345"
    assert code_of_path(path, max_bytes=4) == "too-large"
    path.write_bytes(b"")
    assert code_of_path(path) == "empty"
    assert code_of_path(tmp_path) == "not-an-image"
    assert code_of_path(tmp_path / "absent.jpg") == "missing"
    assert code_of_path(path / "below-a-file.jpg") == "missing"
    assert code_of_path(str(tmp_path / "a\0b")) == "missing"
    assert (MAX_BYTES, MAX_PIXELS) == (536_870_912, 178_956_970)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert code_of_path(tmp_path / "pipe.jpg") == "not-an-image"


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError(13, "x"), "no-permission"), (OSError(5, "x"), "corrupt")],
)
def test_errors_of_the_disk(tmp_path, monkeypatch, error, code):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert code_of_path(path) == code


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("This is a text.")
    with pytest.raises(ImageError, match=r"notes\.jpg: The file is not an image") as caught:
        read_image(path)
    assert (caught.value.code, caught.value.path) == ("not-an-image", str(path))
    with pytest.raises(ImageError, match=r"^The file is empty\.$") as caught:
        read_image(b"")
    assert (caught.value.code, caught.value.path) == ("empty", None)


def test_bytes_bytearray_and_memoryview_are_accepted():
    pixels = noise(2, 2)
    data = encode(pixels, "PNG")
    for kind in (bytes, bytearray, memoryview):
        assert np.array_equal(read_image(kind(data)), pixels)
