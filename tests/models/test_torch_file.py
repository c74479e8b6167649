"""The reader of PyTorch's older format: real files, and files made to do harm.

Hostile files are put together from pickles written here by hand or by the standard library. The
good small one, ``tests/golden/small_legacy.pth``, was written by PyTorch itself; the command is
in ``tests/golden/make_golden.py``.
"""

import ast
import os
import pickle
import pickletools
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.errors import WeightsError
from kindsight.models.backbones.weights import find_imagenet_weights
from kindsight.models.formats import (
    torch_checkpoint as torch_file,
)
from kindsight.models.formats import (
    torch_checkpoint as torch_opcodes,
)
from kindsight.models.formats.torch_checkpoint import read_torch_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SMALL = (GOLDEN / "small_legacy.pth").read_bytes()
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
VERSION = pickle.dumps(1001, protocol=2)
SYSTEM = pickle.dumps(
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, protocol=2
)
HEADER = MAGIC + VERSION + SYSTEM
KEYS = pickle.dumps(["7"], protocol=2)
NUMBERS = struct.pack("<q6f", 6, *range(6))
HOOKS = b"ccollections\nOrderedDict\n)R"
PLAIN = {0x80, ord("."), ord("q"), ord("r"), ord("h"), ord("j")}


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="7", kind="torch\nFloatStorage\n", size=6, word="storage", view=b"N"):
    parts = [b"(", text(word), b"c", kind.encode(), text(key), text("cpu")]
    return b"".join([*parts, number(size), view, b"tQ"])


def tensor(shape=(2, 3), strides=(3, 1), offset=0, source=None, gradient=b"\x89", hooks=HOOKS):
    parts = [b"ctorch._utils\n_rebuild_tensor_v2\n(", source or storage(), number(offset)]
    return b"".join([*parts, numbers(shape), numbers(strides), gradient, hooks, b"tR"])


def state(*items):
    """The pickle of a dictionary, from key and value opcodes that alternate."""
    return b"\x80\x02}(" + b"".join(items) + b"u."


def whole(main, keys=KEYS, stored=NUMBERS, header=HEADER):
    return header + main + keys + stored


GOOD = whole(state(text("a"), tensor()))


@pytest.fixture
def read(tmp_path):
    def run(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return read_torch_file(path)

    return run


def refused(read, data, *words):
    with pytest.raises(WeightsError) as caught:
        read(data)
    message = str(caught.value)
    assert "weights.pth: " in message
    assert "Received: " in message
    assert len(message) < 3_000
    for word in words:
        assert word in message


# ---------------------------------------------------------------- files that are as they should be


def test_small_file_of_pytorch_is_read_as_pytorch_reads_it():
    expected = np.load(GOLDEN / "small_legacy.npz", allow_pickle=False)
    got = read_torch_file(GOLDEN / "small_legacy.pth")
    assert list(got) == expected.files
    for name, array in got.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert array.flags.c_contiguous and array.flags.writeable and array.flags.owndata
        np.testing.assert_array_equal(array, expected[name])
    assert got["table.part"].tolist() == [[[0.5, 0.75], [1.0, 1.25]], [[2.0, 2.25], [2.5, 2.75]]]
    assert got["long"].shape == () and got["long"] == -5
    assert got["empty"].shape == (0, 3)


def test_views_of_one_storage_become_arrays_of_their_own():
    got = read_torch_file(GOLDEN / "small_legacy.pth")
    got["table"][...] = -1
    assert got["table.turned"].max() == 23 / 8


def test_file_made_by_hand_is_read(read):
    assert read(GOOD)["a"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_metadata_of_a_state_dictionary_is_dropped(read):
    built = HOOKS + b"(" + text("a") + tensor() + b"u}" + text("_metadata") + HOOKS + b"sb"
    assert list(read(whole(b"\x80\x02" + built + b"."))) == ["a"]


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
    array = read(whole(state(text("a"), tensor(shape, strides, offset))))["a"]
    assert array.shape == shape
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("number", "count", "parameters"),
    [(0, 296, 4_652_008), (1, 386, 5_416_680), (2, 386, 6_092_072)],
)
def test_published_files_are_read_as_pytorch_reads_them(number, count, parameters):
    # The papers' table gives 4.7, 5.4 and 6.1 million parameters.
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


def test_published_tensors_have_the_networks_shapes():
    got = read_torch_file(find_imagenet_weights("efficientnet-lite0"))
    assert got["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert got["_blocks.1._expand_conv.weight"].shape == (96, 16, 1, 1)
    assert got["_blocks.3._depthwise_conv.weight"].shape == (144, 1, 5, 5)
    assert got["_fc.weight"].shape == (1000, 1280)
    assert got["_bn0.num_batches_tracked"].shape == ()


# ---------------------------------------------------------------------------- code in disguise


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickled_calls_are_refused_and_do_nothing(read, tmp_path, protocol):
    witness = tmp_path / "witness"
    for call in (Call(os.system, f"touch {witness}"), Call(eval, f"open({str(witness)!r}, 'w')")):
        refused(read, whole(pickle.dumps({"a": call}, protocol=protocol)))
        refused(read, pickle.dumps(call, protocol=protocol))
        refused(read, MAGIC + pickle.dumps(call, protocol=protocol))
        refused(read, MAGIC + VERSION + pickle.dumps(call, protocol=protocol))
        main = state(text("a"), tensor())
        refused(read, whole(main, keys=pickle.dumps([call], protocol=protocol)))
    assert not witness.exists()
    # The same bytes are harmful to the standard library, or this test would show nothing.
    pickle.loads(pickle.dumps(call, protocol=protocol))  # noqa: S301
    assert witness.exists()


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (b"cos\nsystem\n", "'os.system'"),
        (b"cposix\nsystem\n", "'posix.system'"),
        (b"cbuiltins\neval\n", "'builtins.eval'"),
        (b"ctorch._utils\n_rebuild_parameter\n", "_rebuild_parameter"),
        (b"ctorch\nload\n", "'torch.load'"),
        (b"ctorch\nBFloat16Storage\n", "BFloat16Storage"),
        (b"ccollections\nOrderedDict.fromkeys\n", "OrderedDict.fromkeys"),
        (b"ccollections.OrderedDict\n__reduce__\n", "__reduce__"),
        (b"ctorch._utils._rebuild_tensor_v2\n__globals__\n", "__globals__"),
        (b"c\xff\xfe\nx\n", "UTF-8"),
        (b"c" + b"a" * 5000, "without a name"),
        (b"c" + b"a" * 900 + b"\nb\n", "the global 'aaa"),
        (text("builtins") + text("eval") + b"\x93", "STACK_GLOBAL"),
        (b"(ios\nsystem\n", "INST"),
        (b"(cos\nsystem\n" + text("true") + b"o", "os.system"),
        (b"(" + text("true") + b"o", "OBJ"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"ccollections\nOrderedDict\n)}\x92", "NEWOBJ_EX"),
        (b"\x82\x01", "EXT1"),
        (b"Pid\n", "PERSID"),
        (b"\x8a\xff" + b"\x7f" * 255, "LONG1"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1), "LONG4"),
        (b"L" + b"9" * 200_000 + b"L\n", "LONG"),
        (b"I" + b"9" * 200_000 + b"\n", "INT"),
        (b"\x8d" + struct.pack("<Q", 2**63), "BINUNICODE8"),
        (b"X" + struct.pack("<I", 2**32 - 1), "4,294,967,295 bytes"),
        (b"X" + struct.pack("<I", 2) + b"\xff\xfe", "UTF-8"),
        (b"N2", "DUP"),
        (b"N0", "POP"),
        (b"\x80\x02", "PROTO"),
        (b"\x95" + struct.pack("<Q", 8), "FRAME"),
        (b"\xff", "0xff"),
        (b"\x97", "NEXT_BUFFER"),
    ],
)
def test_other_opcodes_and_globals_are_named_and_refused(read, code, word):
    refused(read, whole(state(text("a"), code)), word)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (HOOKS[:-2] + b"N\x85R", "call of collections.OrderedDict with 1"),
        (b"ctorch\nFloatStorage\n)R", "call of torch.FloatStorage"),
        (text("os.system") + b")R", "str in the place of Symbol"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "six values"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}R", "dict in the place of tuple"),
        (HOOKS + b"}" + text("__class__") + b"Nsb", "BUILD"),
        (HOOKS + b"}" + text("_metadata") + b"Ns" + text("x") + b"Nsb", "BUILD"),
        (HOOKS + b"}b", "BUILD"),
        (tensor() + b"}" + text("_metadata") + b"Nsb", "Tensor in the place of dict"),
        (b"ctorch\nFloatStorage\n}" + text("_metadata") + b"Nsb", "Symbol in the place of dict"),
        (b"}NNs", "keys"),
        (b"}()Nu", "keys"),
        (b"}(" + text("x") + b"u", "keys"),
        (b"]" + text("x") + b"Ns", "list in the place of dict"),
        (b"}Na", "dict in the place of list"),
        (b"h\x05", "never written"),
        (b"Nq\x09", "out of order"),
        (b"Nr" + struct.pack("<I", 2**32 - 1), "out of order"),
        (b"tt", "mark"),
        (b"(\x85", "empty stack"),
        (b"Q", "str in the place of tuple"),
    ],
)
def test_misused_opcodes_are_refused(read, code, word):
    refused(read, whole(state(text("a"), code)), word)


def test_the_reader_imports_nothing_that_could_run_a_pickle():
    forbidden = {"pickle", "pickletools", "_pickle", "marshal", "importlib", "torch", "builtins"}
    names = {"eval", "exec", "__import__", "getattr", "setattr", "compile"}
    files = sorted(Path(torch_file.__file__).parent.glob("torch_*.py"))
    assert len(files) == 3
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] not in forbidden
            if isinstance(node, ast.Name):
                assert node.id not in names


def test_opcodes_are_those_of_the_standard_librarys_table():
    table = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    known = set(torch_opcodes.ACTIONS) | {torch_opcodes.STOP}
    assert set(table) == known | set(torch_opcodes.REFUSED)
    assert not known & set(torch_opcodes.REFUSED)
    assert all(table[code] == name for code, name in torch_opcodes.REFUSED.items())


# ------------------------------------------------------------------------- numbers that lie


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 3), (3, 1), 1),
        ((7,), (1,), 0),
        ((2,), (6,), 0),
        ((), (), 6),
        ((1,), (1,), 2**31 - 1),
        ((2**31 - 1,), (1,), 0),
        ((2**31 - 1, 2**31 - 1), (0, 0), 0),
        ((2**31 - 1,), (0,), 0),
        ((0, 2**31 - 1, 2**31 - 1), (1, 1, 1), 0),
        ((2, 3), (3, -1), 2),
        ((2, 3), (-3, 1), 3),
        ((-2, 3), (3, 1), 0),
        ((-2, -3), (3, 1), 0),
        ((2, 3), (3, 1), -1),
        ((2, 3), (3,), 0),
        ((1,) * 17, (1,) * 17, 0),
        ((1,) * 5000, (1,) * 5000, 0),
    ],
)
def test_tensor_must_lie_within_its_storage(read, shape, strides, offset):
    refused(read, whole(state(text("a"), tensor(shape, strides, offset))))


@pytest.mark.parametrize(
    "value",
    [
        tensor(source=b"N"),
        tensor(source=text("7")),
        tensor(gradient=b"N"),
        tensor(hooks=b"N"),
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"\x88K\x01\x85K\x01\x85\x89}tR",
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"K\x00\x88\x85K\x01\x85\x89}tR",
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"K\x00]]\x89}tR",
        tensor(source=storage(size=-6)),
        tensor(source=storage(word="module")),
        tensor(source=storage(kind="collections\nOrderedDict\n")),
        tensor(source=storage(view=numbers((1, 2, 3)))),
        tensor(source=storage(kind="torch._utils\n_rebuild_tensor_v2\n")),
        tensor() + text("b") + tensor(source=storage(size=7)),
        tensor() + text("b") + tensor(source=storage(kind="torch\nIntStorage\n")),
        tensor() + text("b") + tensor(source=storage(key="8")),
        b"N",
        text("numbers"),
        storage(),
        b"}",
        b"}" + text("nested") + tensor() + b"s",
        tensor() + text("b") + b"K\x01",
        b"c" + b"torch\nFloatStorage\n",
    ],
)
def test_wrong_descriptions_are_refused(read, value):
    refused(read, whole(state(text("a"), value)))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        NUMBERS[:7],
        NUMBERS[:-1],
        NUMBERS + b"\0",
        struct.pack("<q6f", 5, *range(6)),
        struct.pack("<q6f", 7, *range(6)),
        struct.pack("<q6f", -1, *range(6)),
        struct.pack("<Q6f", 2**64 - 1, *range(6)),
        struct.pack(">q6f", 6, *range(6)),
    ],
)
def test_storages_must_be_as_announced(read, stored):
    refused(read, whole(state(text("a"), tensor()), stored=stored))


def test_storage_larger_than_the_file_is_not_allocated(read):
    size = 2**31 - 1
    main = state(text("a"), tensor((size,), (1,), source=storage(size=size)))
    tracemalloc.start()
    refused(read, whole(main, stored=struct.pack("<q", size)))
    # Named but used by no tensor: in what a state dictionary carries beside its tensors.
    unused = HOOKS + b"}" + text("_metadata") + storage(size=size) + b"sb."
    refused(read, whole(b"\x80\x02" + unused, stored=struct.pack("<q", size)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["7", "7"],
        ["8"],
        ["7", "8"],
        ("7",),
        "7",
        [7],
        [["7"]],
        None,
    ],
)
def test_list_of_storages_must_agree(read, keys):
    refused(read, whole(state(text("a"), tensor()), keys=pickle.dumps(keys, protocol=2)))


@pytest.mark.parametrize(
    "header",
    [
        pickle.dumps(0x1950A86A20F9469CFC6D, protocol=2) + VERSION + SYSTEM,
        MAGIC + pickle.dumps(1000, protocol=2) + SYSTEM,
        MAGIC + pickle.dumps("1001", protocol=2) + SYSTEM,
        MAGIC + pickle.dumps(True, protocol=2) + SYSTEM,
        MAGIC + VERSION + pickle.dumps([], protocol=2),
        MAGIC + VERSION + pickle.dumps({}, protocol=2),
        MAGIC + VERSION + pickle.dumps({"protocol_version": 1001}, protocol=2),
        MAGIC + VERSION + pickle.dumps({"little_endian": True}, protocol=2),
        MAGIC + VERSION + SYSTEM.replace(b"\x88", b"\x89"),
        MAGIC + SYSTEM + VERSION,
    ],
)
def test_header_must_be_right(read, header):
    refused(read, whole(state(text("a"), tensor()), header=header))


# -------------------------------------------------------------------------------- bombs


def test_doubling_tuples_and_lists_take_no_time_and_no_room(read):
    # Each step pairs the value of the step before with itself, read again from the memo:
    # 2**30,000 leaves, were it ever walked through.
    pairs = b"".join(
        b"h" + bytes([step]) + b"\x86q" + bytes([step + 1])
        if step < 255
        else b"j" + struct.pack("<I", step) + b"\x86r" + struct.pack("<I", step + 1)
        for step in range(30_000)
    )
    refused(read, whole(state(text("a"), b"Nq\x00" + pairs)), "not a flat dictionary")
    nested = b"]q\x00(" + b"h\x00" * 1000 + b"e"
    refused(read, whole(state(text("a"), nested)), "not a flat dictionary")


def test_values_that_contain_themselves_are_refused(read):
    for value in (b"]q\x00h\x00a", b"}q\x00" + text("a") + b"h\x00s", b"]q\x00h\x00\x85a"):
        refused(read, whole(state(text("a"), value)), "not a flat dictionary")
        refused(read, whole(b"\x80\x02" + value + b"."))
        refused(read, whole(state(text("a"), tensor()), keys=b"\x80\x02" + value + b"."))


def test_deep_nesting_does_not_exhaust_the_stack(read):
    refused(read, whole(state(text("a"), b")" + b"\x85" * 500_000)), "not a flat dictionary")


def test_opcodes_and_waiting_values_are_bounded(read, monkeypatch):
    refused(read, whole(state(text("a"), b"N" * 20_001)), "values at a time")
    refused(read, whole(state(text("a"), b"(" * 20_001)), "values at a time")
    # In all pickles of the file together.
    monkeypatch.setattr(torch_opcodes, "MAX_STEPS", 40)
    refused(read, GOOD, "more than 40 opcodes")


def test_sharing_and_number_of_tensors_are_bounded(read, monkeypatch):
    refused(read, whole(state(text("a"), tensor((1000,), (0,)))), "4 times the file")
    many = [part for index in range(200) for part in (text(f"{index}"), tensor((2,), (1,)))]
    assert len(read(whole(state(*many)))) == 200
    monkeypatch.setattr(torch_file, "MAX_TENSORS", 199)
    refused(read, whole(state(*many)), "at most 199")


def test_large_files_and_odd_kinds_are_refused(read, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"absent\.pth.*there and readable"):
        read_torch_file(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="ordinary file"):
        read_torch_file(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WeightsError, match="ordinary file"):
            read_torch_file(tmp_path / "pipe")
    monkeypatch.setattr(torch_file, "MAX_FILE_BYTES", len(GOOD) - 1)
    refused(read, GOOD, "at most")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "some other kind"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (struct.pack("<Q", 16) + b'{"a": {}}       ', "some other kind"),
        (pickle.dumps(OrderedDict(), protocol=2), "some other pickle"),
        (MAGIC[:-1], "some other pickle"),
    ],
)
def test_other_formats_are_told_apart(read, data, word):
    refused(read, data, "_use_new_zipfile_serialization=False", word)


# ---------------------------------------------------------------------------- damage


@pytest.mark.parametrize(("data", "step"), [(GOOD, 1), (SMALL, 7)], ids=["by hand", "by PyTorch"])
def test_file_cut_off_anywhere_is_refused(read, data, step):
    for length in range(0, len(data), step):
        refused(read, data[:length])


def accepts(path, data):
    """Read data that was changed: arrays of bounded size or a WeightsError, and nothing else."""
    path.write_bytes(data)
    try:
        got = read_torch_file(path)
    except WeightsError:
        return False
    assert all(type(array) is np.ndarray for array in got.values())
    assert sum(array.nbytes for array in got.values()) <= 4 * len(data)
    return True


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("changed") / "weights.pth"


@settings(max_examples=400, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6
    )
)
def test_changed_bytes_give_arrays_or_an_error(scratch, changes):
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    assert accepts(scratch, bytes(data)) in (True, False)


@settings(max_examples=400, deadline=None)
@given(
    start=st.integers(0, len(SMALL)),
    removed=st.integers(0, 40),
    added=st.one_of(
        st.binary(max_size=40),
        st.lists(st.sampled_from(sorted(torch_opcodes.ACTIONS)), max_size=40).map(bytes),
        st.tuples(st.integers(0, len(SMALL)), st.integers(0, 200)).map(
            lambda span: SMALL[span[0] : span[0] + span[1]]
        ),
    ),
)
def test_bytes_taken_out_and_put_in_give_arrays_or_an_error(scratch, start, removed, added):
    data = SMALL[:start] + added + SMALL[start + removed :]
    assert accepts(scratch, data) in (True, False)


@settings(max_examples=300, deadline=None)
@given(program=st.lists(st.sampled_from(sorted(torch_opcodes.ACTIONS)), max_size=60).map(bytes))
def test_any_program_of_known_opcodes_gives_arrays_or_an_error(scratch, program):
    assert not accepts(scratch, HEADER + b"\x80\x02" + program + b".")


def test_unchanged_file_passes_the_same_check(scratch):
    assert accepts(scratch, SMALL)
