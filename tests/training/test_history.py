"""The history of a training: best epoch by hand, and CSV files to the bit."""

from __future__ import annotations

import copy
import math
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight.errors import BundleError, UsageError
from kindsight.training.engine.history import COLUMNS, EpochRow, History, load_history

HEADER = "epoch,phase,seconds,learning_rate,loss,accuracy,val_loss,val_accuracy"


def row(epoch: int, loss=0.5, accuracy=0.8, val_loss=0.6, val_accuracy=0.7, **changes) -> EpochRow:
    values = {"phase": "train", "seconds": 2.0, "learning_rate": 1e-3, **changes}
    return EpochRow(
        epoch,
        loss=loss,
        accuracy=accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        **values,
    )


def bare(epoch: int, loss: float) -> EpochRow:
    return EpochRow(epoch, "train", 1.0, 0.1, loss, 0.5)


def test_csv_file_by_hand(tmp_path):
    history = History(
        [
            EpochRow(1, "head", 1.25, 0.001, 0.7, 0.5, 0.69, 0.55),
            EpochRow(2, "all, of it", 0.1 + 0.2, 1e-05, 1 / 3, 1.0, 0.5, 0.0),
        ]
    )
    history.write_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text("utf-8") == (
        f"{HEADER}\n"
        "1,head,1.25,0.001,0.7,0.5,0.69,0.55\n"
        '2,"all, of it",0.30000000000000004,1e-05,0.3333333333333333,1.0,0.5,0.0\n'
    )
    assert History.read_csv(tmp_path / "history.csv") == history
    assert load_history(tmp_path) == history


def test_without_validation_the_cells_are_empty(tmp_path):
    history = History([bare(1, 0.5)])
    history.write_csv(tmp_path / "history.csv")
    assert (tmp_path / "history.csv").read_text("utf-8") == f"{HEADER}\n1,train,1.0,0.1,0.5,0.5,,\n"
    (again,) = History.read_csv(tmp_path / "history.csv").rows()
    assert (again.val_loss, again.val_accuracy) == (None, None)
    assert not again.validated


def test_a_folder_without_a_history_has_none(tmp_path):
    assert load_history(tmp_path) is None
    History().write_csv(tmp_path / "history.csv")
    assert load_history(tmp_path) == History()
    assert len(History()) == 0


shares = st.floats(0, 1)
losses = st.floats(allow_nan=True, allow_infinity=True)
sizes = st.floats(0, 1e308)
phases = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=80).filter(
    str.isprintable
)


@given(
    st.lists(st.tuples(phases, sizes, sizes, losses, shares, losses, shares), max_size=5),
    st.booleans(),
)
def test_any_history_is_restored_to_the_bit(tmp_path_factory, values, validated):
    cut = None if validated else -2
    history = History(EpochRow(i, *each[:cut]) for i, each in enumerate(values, 1))
    path = tmp_path_factory.mktemp("csv") / "history.csv"
    history.write_csv(path)
    again = History.read_csv(path)
    assert again == history
    for old, new in zip(history, again, strict=True):
        assert old.phase == new.phase
        for name in COLUMNS[2:]:
            one, other = getattr(old, name), getattr(new, name)
            if one is None or math.isnan(one):
                assert str(one) == str(other)
            else:
                assert struct.pack("d", one) == struct.pack("d", other)


def test_numpy_numbers_become_floats(tmp_path):
    given_by_numpy = EpochRow(
        np.int64(1), "train", np.float64(1), np.float32(0.1), np.float32(0.5), np.float32(1)
    )
    # 0.1 as float32 is 13421773 / 2**27
    assert given_by_numpy.cells() == ("1", "train", "1.0", "0.10000000149011612", "0.5", "1.0",
                                      "", "")  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.9, 0.3), (0.95, 0.4), (0.93, 0.1)], 2),  # the highest accuracy
        ([(0.9, 0.3), (0.9, 0.2), (0.9, 0.25)], 2),  # the lowest loss among equals
        ([(0.8, 0.1), (0.9, 0.2), (0.9, 0.2)], 2),  # the first among equals
        ([(0.9, math.nan), (0.9, math.inf), (0.9, 9.0)], 3),
        ([(0.9, math.nan), (0.9, math.nan)], 1),
    ],
)
def test_the_best_epoch(scores, best):
    rows = [row(i, val_accuracy=a, val_loss=loss) for i, (a, loss) in enumerate(scores, 1)]
    assert History(rows).best_epoch == best


def test_monitor_is_preserved(tmp_path):
    rows = [row(1, val_accuracy=0.9, val_loss=0.3), row(2, val_accuracy=0.8, val_loss=0.2)]
    history = History(rows[:1], "loss").with_row(rows[1])
    assert history.best_epoch == 2 and History(rows).best_epoch == 1
    history.write_csv(tmp_path / "history.csv")
    assert load_history(tmp_path, "loss") == history != load_history(tmp_path)
    broken = row(3, loss=math.inf, val_accuracy=0.9, val_loss=0.1)
    assert history.with_row(broken).best_epoch == 2


def test_best_epoch_without_validation_has_the_lowest_loss():
    assert History([bare(1, math.nan), bare(2, 0.3), bare(3, 0.2), bare(4, 0.2)]).best_epoch == 3
    assert History().best_epoch is None


def test_columns_and_frame():
    history = History([row(1, phase="head"), row(2, loss=0.25)])
    assert history.column("loss").tolist() == [0.5, 0.25]
    frame = history.frame()
    assert list(frame) == list(COLUMNS) == HEADER.split(",")
    assert frame["epoch"].dtype == np.int64
    assert frame["phase"].tolist() == ["head", "train"]
    assert frame["val_accuracy"].dtype == np.float64
    assert np.isnan(History([bare(1, 0.5)]).column("val_loss")).all()
    assert history.phases == ("head", "train")
    with pytest.raises(UsageError, match=r"one of epoch, .*got 'acc'"):
        history.column("acc")


def test_a_history_is_immutable():
    one = History([row(1)])
    two = one.with_row(row(2))
    assert (len(one), len(two)) == (1, 2)
    with pytest.raises(AttributeError):
        one._rows = ()
    with pytest.raises(AttributeError):
        one.rows()[0].loss = 0.1
    assert copy.deepcopy(two) == two == pickle.loads(pickle.dumps(two))  # noqa: S301
    assert hash(copy.deepcopy(two)) == hash(two)
    assert repr(two) == "History(2 epochs, best epoch 1)"
    assert repr(History()) == "History(0 epochs)"


def test_rows_are_compared_bit_by_bit_and_nan_equals_nan():
    assert row(1, loss=math.nan) == row(1, loss=float("nan"))
    assert row(1, loss=0.3) != row(1, loss=0.1 + 0.2)


@pytest.mark.parametrize("rows", [[row(2)], [row(1), row(1)], [row(1), row(3)]])
def test_epochs_are_consecutive(rows):
    with pytest.raises(UsageError, match="must be numbered 1, 2, 3"):
        History(rows)


def test_all_epochs_are_validated_or_none():
    with pytest.raises(UsageError, match="epoch 2 is without"):
        History([row(1), bare(2, 0.5)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 0}, "epoch must be"),
        ({"phase": ""}, "phase must be"),
        ({"phase": "a\nb"}, "phase must be"),
        ({"phase": "x" * 81}, "phase must be"),
        ({"seconds": -1.0}, "seconds must be"),
        ({"seconds": math.nan}, "seconds must be"),
        ({"learning_rate": math.inf}, "learning_rate must be"),
        ({"accuracy": 1.01}, "accuracy must be a number"),
        ({"val_accuracy": math.nan}, "val_accuracy must be a number"),
        ({"val_loss": None}, "both be given, or neither"),
    ],
)
def test_invalid_values_raise(changes, message):
    with pytest.raises(UsageError, match=message):
        row(**{"epoch": 1, **changes})


GOOD = "1,train,1.0,0.1,0.5,0.5,0.5,0.5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first line is '' instead of epoch,phase"),
        (b"a,b\n1,2\n", "first line is 'a,b'"),
        (f"{HEADER},more\n{GOOD},1\n".encode(), "first line"),
        (f"{HEADER}\n{GOOD},1\n".encode(), "Epoch 1 has 9 cells instead of 8"),
        (f"{HEADER}\n1,train,1.0\n".encode(), "3 cells instead of 8"),
        (f"{HEADER}\n{GOOD}\n{GOOD}\n".encode(), "epoch is '1' where 2 is expected"),
        (f"{HEADER}\n{GOOD}\n\n".encode(), "Epoch 2 has 0 cells"),
        (f"{HEADER}\n{GOOD.replace('1.0', '1_0')}\n".encode(), "seconds of epoch 1 is not a numb"),
        (f"{HEADER}\n{GOOD.replace('1.0', ' 1')}\n".encode(), "seconds of epoch 1"),
        (f"{HEADER}\n{GOOD.replace('1.0', '')}\n".encode(), "seconds of epoch 1"),
        (f"{HEADER}\n{GOOD.replace('1.0', '=1+1')}\n".encode(), "not a number: '=1\\+1'"),
        (f"{HEADER}\n{GOOD.replace('0.1', '1e999')}\n".encode(), "learning_rate must be a finite"),
        (f"{HEADER}\n{GOOD.replace('train', '')}\n".encode(), "phase must be"),
        (f'{HEADER}\n1,"train\n2,x\n'.encode(), "not the history of a training"),
        (
            f"{HEADER}\n1,tr\x00ain,1.0,0.1,0.5,0.5,0.5,0.5\n".encode(),
            "not the history of a training",
        ),
        (HEADER.encode() + b"\n1,\xff\xfe,1.0,0.1,0.5,0.5,0.5,0.5\n", "not UTF-8"),
        (f"{HEADER}\n1,{'x' * 200_000},1.0\n".encode(), "not the history of a training"),
        (b" " * (16 * 2**20 + 1), "larger than 16 MB"),
    ],
)
def test_damaged_files_raise(tmp_path, content, message):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as raised:
        History.read_csv(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_unreadable_files_raise(tmp_path):
    with pytest.raises(BundleError, match="Cannot read"):
        History.read_csv(tmp_path)
    with pytest.raises(BundleError, match="Cannot read"):
        History.read_csv(tmp_path / "absent.csv")


def test_reads_a_file_saved_by_a_spreadsheet(tmp_path):
    text = f"\ufeff{HEADER}\r\n1,train,1,0.1,5E-1,1,0.5,.5\r\n"
    (tmp_path / "history.csv").write_bytes(text.encode())
    assert load_history(tmp_path) == History([EpochRow(1, "train", 1.0, 0.1, 0.5, 1.0, 0.5, 0.5)])


@given(st.one_of(st.binary(max_size=200), st.lists(st.text('0123,.e-nainf"\n\r', max_size=60))))
def test_any_file_is_read_or_raises_bundle_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("csv") / "history.csv"
    if isinstance(content, list):
        content = "\n".join([HEADER, *content]).encode()
    path.write_bytes(content)
    try:
        history = History.read_csv(path)
    except BundleError:
        return
    history.write_csv(path)
    assert History.read_csv(path) == history
