"""PyTorch checkpoints: real files, and hostile ones that must do no harm.

Hostile files are put together from pickle opcodes. ``tests/golden/small_legacy.pth`` was written
by PyTorch (``tests/golden/make_golden.py``).
"""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.errors import WeightsError
from kindsight.models.backbones.weights import find_imagenet_weights
from kindsight.models.formats import torch_checkpoint
from kindsight.models.formats.torch_checkpoint import read_torch_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SMALL = (GOLDEN / "small_legacy.pth").read_bytes()
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
VERSION = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, protocol=2)
HEADER = MAGIC + VERSION + SYSTEM
KEYS = pickle.dumps(["7"], protocol=2)
NUMBERS = struct.pack("<q6f", 6, *range(6))
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="7", kind="torch\nFloatStorage\n", size=6, word="storage", end=b"N"):
    head = b"".join([b"(", text(word), b"c", kind.encode(), text(key), text("cpu")])
    return head + number(size) + end + b"tQ"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, source=None, hooks=ORDERED_DICT):
    head = b"".join([REBUILD, b"(", source or storage(), number(offset)])
    return b"".join([head, numbers(shape), numbers(strides), b"\x89", hooks, b"tR"])


def state(*items):
    """Return the pickle of a dictionary, from alternating keys and values."""
    return b"\x80\x02}(" + b"".join(items) + b"u."


def checkpoint(program, keys=KEYS, stored=NUMBERS, header=HEADER):
    return header + program + keys + stored


def zipped(program, compression=zipfile.ZIP_STORED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("model/data.pkl", program)
        archive.writestr("model/version", "3\n")
        for name, content in ({"7": NUMBERS[8:]} | members).items():
            archive.writestr(f"model/data/{name}", content)
    return buffer.getvalue()


GOOD = checkpoint(state(text("a"), tensor()))
ZIP_STATE = state(text("a"), tensor(source=storage(end=b"")))


@pytest.fixture
def read(tmp_path):
    def run(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return read_torch_file(path)

    return run


def refused(read, data, word=""):
    with pytest.raises(WeightsError, match=r"weights\.pth: ") as caught:
        read(data)
    assert word in str(caught.value) and len(str(caught.value)) < 500


def test_legacy_file_reads_as_pytorch_reads_it():
    expected = np.load(GOLDEN / "small_legacy.npz", allow_pickle=False)
    got = read_torch_file(GOLDEN / "small_legacy.pth")
    assert list(got) == expected.files
    for name, array in got.items():
        assert array.dtype == expected[name].dtype
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.owndata
        np.testing.assert_array_equal(array, expected[name], strict=True)
    got["table"][...] = -1  # "table.turned" shares its storage in the file
    assert got["table.turned"].max() == 23 / 8


@pytest.mark.parametrize(
    ("number", "count", "parameters"),
    [(0, 296, 4_652_008), (1, 386, 5_416_680), (2, 386, 6_092_072)],
)
def test_published_files_read_as_pytorch_reads_them(number, count, parameters):
    # The paper's table gives 4.7, 5.4 and 6.1 million parameters.
    expected = np.load(GOLDEN / f"efficientnet_lite{number}.npz", allow_pickle=False)
    got = read_torch_file(find_imagenet_weights(f"efficientnet-lite{number}"))
    assert len(got) == count
    assert list(got) == expected["tensor_names"].tolist()
    shapes = ["x".join(map(str, array.shape)) for array in got.values()]
    assert shapes == expected["tensor_shapes"].tolist()
    for array, reference in zip(got.values(), expected["tensor_sums"], strict=True):
        index = np.arange(array.size, dtype=np.int64)
        weights = (index * 7919 % 1009).astype(np.float64) / 1009 - 0.5
        weighted = float(array.astype(np.float64).ravel() @ weights)
        assert weighted == pytest.approx(reference, rel=1e-9, abs=1e-9)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    trained = [array.size for name, array in got.items() if not name.endswith(statistics)]
    assert sum(trained) == parameters


def test_both_formats_are_read(read):
    for data in (GOOD, zipped(ZIP_STATE)):
        assert read(data)["a"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_metadata_of_a_state_dictionary_is_dropped(read):
    program = ORDERED_DICT + b"(" + text("a") + tensor() + b"u}" + text("_metadata")
    assert list(read(checkpoint(b"\x80\x02" + program + ORDERED_DICT + b"sb."))) == ["a"]


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),
        ((2,), (2,), 1, [1, 3]),
        ((1, 2), (2**30, 5), 0, [[0, 5]]),
        ((2, 2), (0, 1), 4, [[4, 5], [4, 5]]),
        ((0, 5), (9, 9), 99, []),
    ],
)
def test_views_by_shape_strides_and_offset(read, shape, strides, offset, expected):
    array = read(checkpoint(state(text("a"), tensor(shape, strides, offset))))["a"]
    assert array.shape == shape
    assert array.tolist() == expected


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_calls_are_refused_and_do_nothing(read, tmp_path, protocol):
    witness = tmp_path / "witness"
    for call in (Call(os.system, f"touch {witness}"), Call(eval, f"open({str(witness)!r}, 'w')")):
        attack = pickle.dumps(call, protocol=protocol)
        good = state(text("a"), tensor())
        for data in (
            checkpoint(pickle.dumps({"a": call}, protocol=protocol)),
            zipped(pickle.dumps({"a": call}, protocol=protocol)),
            attack,
            MAGIC + attack,
            MAGIC + VERSION + attack,
            checkpoint(good, keys=attack),
        ):
            refused(read, data)
    assert not witness.exists()
    # The same bytes are harmful to the standard library, or this test would show nothing.
    pickle.loads(attack)  # noqa: S301 - harmless, and the point of the test
    assert witness.exists()


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (b"cos\nsystem\n", "'os.system'"),
        (b"cbuiltins\neval\n", "'builtins.eval'"),
        (b"ctorch._utils\n_rebuild_parameter\n", "_rebuild_parameter"),
        (b"ctorch\nBFloat16Storage\n", "BFloat16Storage"),
        (b"ccollections\nOrderedDict.fromkeys\n", "OrderedDict.fromkeys"),
        (b"ccollections.OrderedDict\n__reduce__\n", "__reduce__"),
        (REBUILD[:-1] + b".__globals__\n", "__globals__"),
        (b"c\xff\xfe\nx\n", ""),
        (b"c" + b"a" * 5000, ""),
        (text("builtins") + text("eval") + b"\x93", "STACK_GLOBAL"),
        (b"(ios\nsystem\n", "INST"),
        (b"(cos\nsystem\n" + text("true") + b"o", "OBJ"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"\x82\x01", "EXT1"),
        (b"Pid\n", "PERSID"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1), ""),
        (b"L" + b"9" * 200_000 + b"L\n", ""),
        (b"X" + struct.pack("<I", 2**32 - 1), ""),
        (b"\x96" + struct.pack("<Q", 2**40), ""),
        (b"N2", "DUP"),
        (b"\xff", ""),
    ],
)
def test_other_globals_and_opcodes_are_refused(read, code, word):
    refused(read, checkpoint(state(text("a"), code)), word)


@pytest.mark.parametrize(
    "code",
    [
        ORDERED_DICT[:-2] + b"N\x85R",
        b"ctorch\nFloatStorage\n)R",
        text("os.system") + b")R",
        REBUILD + b")R",
        REBUILD + b"}R",
        # State for an object: attributes of a dictionary, of the stand-in of a global, of a tensor.
        ORDERED_DICT + b"}" + text("__class__") + b"Nsb",
        ORDERED_DICT + b"}" + text("_metadata") + b"Ns" + text("x") + b"Nsb",
        ORDERED_DICT + b"N}" + text("__setstate__") + b"Ns\x86b",
        REBUILD + b"}" + text("__call__") + b"Nsb",
        REBUILD + b"N}" + text("__call__") + b"Ns\x86b",
        tensor() + b"}" + text("storage") + b"Nsb",
        tensor() + b"N}" + text("offset") + b"K\x63s\x86b",
        b"]" + text("x") + b"Ns",
        b"h\x05",
        b"Nr" + struct.pack("<I", 2**32 - 1),
        b"tt",
        b"(\x85",
        b"Q",
    ],
)
def test_misused_opcodes_are_refused(read, code):
    refused(read, checkpoint(state(text("a"), code)))
    assert read(GOOD)["a"].shape == (2, 3)  # and leave nothing behind


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 3), (3, 1), 1),
        ((7,), (1,), 0),
        ((), (), 6),
        ((2**31 - 1, 2**31 - 1), (0, 0), 0),
        ((2**31 - 1,), (0,), 0),
        ((1000,), (0,), 0),
        ((0, 2**31 - 1, 2**31 - 1), (1, 1, 1), 0),
        ((2, 3), (3, -1), 2),
        ((-2, -3), (3, 1), 0),
        ((2, 3), (3, 1), -1),
        ((2, 3), (3,), 0),
        ((1,) * 17, (1,) * 17, 0),
    ],
)
def test_tensor_must_lie_within_its_storage(read, shape, strides, offset):
    refused(read, checkpoint(state(text("a"), tensor(shape, strides, offset))))


@pytest.mark.parametrize(
    "value",
    [
        tensor(source=b"N"),
        tensor(source=text("7")),
        tensor(hooks=b"N"),
        tensor(source=storage(size=-6)),
        tensor(source=storage(word="module")),
        tensor(source=storage(kind="collections\nOrderedDict\n")),
        tensor(source=storage(end=numbers((1, 2, 3)))),
        tensor() + text("b") + tensor(source=storage(size=7)),
        tensor() + text("b") + tensor(source=storage(kind="torch\nIntStorage\n")),
        tensor() + text("b") + tensor(source=storage(key="8")),
        b"N",
        storage(),
        b"}" + text("nested") + tensor() + b"s",
        tensor() + text("b") + b"K\x01",
        tensor() + b"K\x01" + tensor(),
    ],
)
def test_values_that_are_no_tensors_are_refused(read, value):
    refused(read, checkpoint(state(text("a"), value)))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        NUMBERS[:7],
        NUMBERS[:-1],
        NUMBERS + b"\0",
        struct.pack("<q6f", 5, *range(6)),
        struct.pack("<q6f", -1, *range(6)),
        struct.pack(">q6f", 6, *range(6)),
    ],
)
def test_storages_must_have_the_described_size(read, stored):
    refused(read, checkpoint(state(text("a"), tensor()), stored=stored))
    refused(read, zipped(ZIP_STATE, **{"7": stored}))


@pytest.mark.parametrize("keys", [[], ["7", "7"], ["8"], ["7", "8"], ("7",), "7", [7], None])
def test_storage_keys_must_agree(read, keys):
    refused(read, checkpoint(state(text("a"), tensor()), keys=pickle.dumps(keys, protocol=2)))


@pytest.mark.parametrize(
    "header",
    [
        pickle.dumps(0x1950A86A20F9469CFC6D, protocol=2) + VERSION + SYSTEM,
        MAGIC + pickle.dumps(1000, protocol=2) + SYSTEM,
        MAGIC + pickle.dumps(True, protocol=2) + SYSTEM,
        MAGIC + VERSION + pickle.dumps([], protocol=2),
        MAGIC + VERSION + SYSTEM.replace(b"\x88", b"\x89"),
    ],
)
def test_header_must_be_pytorchs(read, header):
    refused(read, checkpoint(state(text("a"), tensor()), header=header))


def test_zip_archives_must_be_pytorchs(read):
    refused(read, zipped(ZIP_STATE, zipfile.ZIP_DEFLATED), "compressed")
    refused(read, zipped(b"\0" * 10**7, zipfile.ZIP_DEFLATED), "compressed")
    refused(read, zipped(state(text("a"), tensor(source=storage(key="8", end=b"")))))
    whole = zipped(ZIP_STATE)
    refused(read, whole[:-30])
    refused(read, whole[: len(whole) // 2])
    refused(read, whole.replace(NUMBERS[8:], NUMBERS[8:-1] + b"\1"), "CRC")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    refused(read, buffer.getvalue())


def test_bombs_take_no_memory_and_no_time(read):
    size = 2**31 - 1
    huge = state(text("a"), tensor((size,), (1,), source=storage(size=size)))
    # Each step pairs the value before with itself: 2**200 leaves. As a key it would be hashed.
    pairs = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(200))
    tracemalloc.start()
    for program in (
        huge,
        b"\x80\x02" + ORDERED_DICT + b"}" + text("_metadata") + storage(size=size) + b"sb.",
        state(b"Nq\x00" + pairs, tensor()),
        state(text("a"), b")" + b"\x85" * 500_000),
        state(b")" + b"\x85" * 500_000, tensor()),
        state(text("a"), b"]q\x00h\x00a"),
        b"\x80\x02}q\x00" + text("a") + b"h\x00s.",
    ):
        refused(read, checkpoint(program, stored=struct.pack("<q", size)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_counts_are_bounded(read, tmp_path, monkeypatch):
    many = [item for index in range(20) for item in (text(f"{index}"), tensor((2,), (1,)))]
    assert len(read(checkpoint(state(*many)))) == 20
    monkeypatch.setattr(torch_checkpoint, "MAX_TENSORS", 19)
    refused(read, checkpoint(state(*many)), "20 tensors")
    monkeypatch.setattr(torch_checkpoint, "MAX_OPCODES", 20)
    refused(read, GOOD, "opcode")
    monkeypatch.setattr(torch_checkpoint, "MAX_FILE_BYTES", len(GOOD) - 1)
    refused(read, GOOD, "at most")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth.*cannot be read"):
        read_torch_file(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="ordinary file"):
        read_torch_file(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match="ordinary file"):
            read_torch_file(tmp_path / "pipe")


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04rest", b"\x89HDF\r\n\x1a\n", pickle.dumps({}, protocol=2), MAGIC[:-1]]
)
def test_other_formats_are_refused(read, data):
    refused(read, data)


@pytest.mark.parametrize(("data", "step"), [(GOOD, 1), (SMALL, 37)], ids=["by hand", "by PyTorch"])
def test_truncated_files_are_refused(read, data, step):
    for length in range(0, len(data), step):
        refused(read, data[:length])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("changed") / "weights.pth"


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(0, len(SMALL)),
    removed=st.integers(0, 40),
    added=st.one_of(
        st.binary(max_size=40),
        st.tuples(st.integers(0, len(SMALL)), st.integers(0, 200)).map(
            lambda span: SMALL[span[0] : span[0] + span[1]]
        ),
        st.lists(st.sampled_from(b"(NKJXcQRb)\x85\x86t]ae}suqrhj.")).map(bytes),
    ),
)
def test_changed_files_give_arrays_or_a_typed_error(scratch, start, removed, added):
    data = SMALL[:start] + added + SMALL[start + removed :]
    scratch.write_bytes(data)
    try:
        got = read_torch_file(scratch)
    except WeightsError:
        return
    assert sum(array.nbytes for array in got.values()) <= 4 * len(data)
