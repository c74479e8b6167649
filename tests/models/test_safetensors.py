"""Safetensors files: what the library writes, and hostile ones that must do no harm."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kindsight.errors import WeightsError
from kindsight.models.formats import safetensors
from kindsight.models.formats.safetensors import read_safetensors

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SMALL = (GOLDEN / "small.safetensors").read_bytes()
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "<i1", "U8": "<u1", "BOOL": "?",
}  # fmt: skip


def content(header, numbers=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def tensor(shape=(2,), offsets=(0, 8), kind="F32", **more):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets), **more}


def read(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    return read_safetensors(path)


def test_a_file_of_the_library():
    got = read_safetensors(GOLDEN / "small.safetensors")
    with np.load(GOLDEN / "small_safetensors.npz", allow_pickle=False) as expected:
        assert set(got) == set(expected.files)
        for name, array in got.items():
            assert array.dtype == expected[name].dtype
            assert array.shape == expected[name].shape
            assert array.flags.writeable and array.flags.c_contiguous
            np.testing.assert_array_equal(array, expected[name])


def test_bfloat16_by_hand(tmp_path):
    # sign 1 bit, exponent 8, fraction 7: 1.0 = 0x3f80, -2.5 = 0xc020, infinity = 0x7f80
    numbers = np.array([0x3F80, 0xC020, 0x7F80], "<u2").tobytes()
    got = read(tmp_path, content({"b": tensor([3], (0, 6), "BF16")}, numbers))
    assert got["b"].dtype == np.float32
    assert got["b"].tolist() == [1.0, -2.5, float("inf")]


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.sampled_from(sorted(TYPES)).flatmap(
            lambda kind: arrays.arrays(
                TYPES[kind], arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
            )
        ),
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read(tmp_path_factory, tensors, random):
    tensors.pop("__metadata__", None)
    names = list(tensors)
    header, start = {"__metadata__": {"a": "b"}}, 0
    for name in names:
        stop = start + tensors[name].nbytes
        (kind,) = (key for key, dtype in TYPES.items() if np.dtype(dtype) == tensors[name].dtype)
        header[name] = tensor(tensors[name].shape, (start, stop), kind)
        start = stop
    shuffled = list(header.items())
    random.shuffle(shuffled)  # a header may list tensors in any order
    data = content(dict(shuffled), b"".join(tensors[name].tobytes() for name in names))
    got = read(tmp_path_factory.mktemp("x"), data)
    assert set(got) == set(names)
    for name in names:
        assert got[name].dtype == tensors[name].dtype
        np.testing.assert_array_equal(got[name], tensors[name])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header of 0 bytes in a file of 0"),
        (b"\x01\x00", "in a file of 2"),
        ((2**63).to_bytes(8, "little"), "header of 9,223,372,036,854,775,808 bytes"),
        (content(b"{"), "not JSON"),
        (content(b"\xff\xfe"), "not JSON"),
        (content(b"[]"), "no JSON object"),
        (content(b"[" * 100_000), "not JSON"),
        (content(b'{"a": ' + b"9" * 5_000 + b"}"), "not JSON|not described"),
        (content(b'{"a": 1, "a": 2}'), "occurs twice"),
        (content({"a": []}), "'a' is not described by"),
        (content({"a": {**tensor(), "more": 1}}, bytes(8)), "not described by"),
        (content({"a": tensor(kind="F8_E4M3")}, bytes(8)), "type 'F8_E4M3'.*Save the weights as"),
        (content({"a": tensor(kind=["F32"])}, bytes(8)), "of type"),
        (content({"a": tensor([2.0])}, bytes(8)), "the shape"),
        (content({"a": tensor([True, 2])}, bytes(8)), "the shape"),
        (content({"a": tensor([-2])}, bytes(8)), "the shape"),
        (content({"a": tensor([1] * 17, (0, 4))}, bytes(4)), "the shape"),
        (content({"a": tensor([0, 2**28, 2**28], (0, 0))}), "the shape"),
        (content({"a": tensor([2**70])}, bytes(8)), "the shape"),
        (content({"a": tensor([3])}, bytes(8)), "has 8 bytes"),
        (content({"a": tensor(offsets=(8, 0))}, bytes(8)), "the offsets"),
        (content({"a": tensor(offsets=(0, 8, 8))}, bytes(8)), "the offsets"),
        (content({"a": tensor(offsets=("0", "8"))}, bytes(8)), "the offsets"),
        (content({"a": tensor(offsets=(8, 16))}, bytes(16)), "begins at byte 8, not at 0"),
        (
            content({"a": tensor(), "b": tensor(offsets=(4, 12))}, bytes(12)),
            "'b' begins at byte 4, not at 8",
        ),
        (content({"a": tensor(), "b": tensor()}, bytes(8)), "begins at byte 0, not at 8"),
        (content({"a": tensor()}, bytes(12)), "12 bytes of numbers, not 8"),
        (content({"a": tensor()}, bytes(7)), "7 bytes of numbers, not 8"),
        (b"PK\x03\x04" + bytes(100), "is damaged or is no safetensors file"),
    ],
)
def test_damaged_files_are_rejected(tmp_path, data, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "x.safetensors"))
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@given(st.data())
def test_no_change_of_a_file_does_harm(tmp_path_factory, data):
    changed = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(changed)))
    tracemalloc.start()
    try:
        got = read(tmp_path_factory.mktemp("x"), bytes(changed[:end]))
    except WeightsError:
        got = {}
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20
    assert sum(array.nbytes for array in got.values()) <= 2 * len(SMALL)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "MAX_HEADER_BYTES", 100)
    with pytest.raises(WeightsError, match="more than 100"):
        read(tmp_path, content(b" " * 101))
    monkeypatch.undo()
    monkeypatch.setattr(safetensors, "MAX_TENSORS", 1)
    with pytest.raises(WeightsError, match="2 tensors, more than 1"):
        read(tmp_path, content({"a": tensor(), "b": tensor(offsets=(8, 16))}, bytes(16)))
    large = tmp_path / "large.safetensors"
    with large.open("wb") as file:
        file.truncate(safetensors.MAX_FILE_BYTES + 1)  # a sparse file
    with pytest.raises(WeightsError, match="at most 536,870,912 bytes; got 536,870,913"):
        read_safetensors(large)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(WeightsError, match=r"absent.safetensors: .*No such file"):
        read_safetensors(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match="ordinary file"):
        read_safetensors(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match="ordinary file"):
            read_safetensors(tmp_path / "pipe")
