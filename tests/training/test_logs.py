"""Logs of a training: read by TensorBoard's own reader, each epoch exactly once."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

import pytest

from kindsight.errors import KindsightError, MissingExtraError, UsageError
from kindsight.files import FileHeldError
from kindsight.training.engine.callbacks import check_mlflow, open_logs
from kindsight.training.engine.history import EpochRow, History, load_history
from kindsight.training.engine.tensorboard import (
    EVENT_FILE,
    TensorBoardLog,
    crc32c,
    read_records,
    record,
    scalar_event,
)
from mlflow_store import use_store

ROWS = [
    EpochRow(1, "head", 2.0, 0.125, 0.75, 0.5, 0.5, 0.25),
    EpochRow(2, "head", 3.0, 0.125, 0.5, 0.625, 0.25, 0.75),
    EpochRow(3, "all", 4.0, 0.0625, math.nan, 0.75, 1e99, 0.875),
]


def train(callback, first: int, last: int) -> None:
    """Train the epochs after `first` up to `last`, after those before were told of."""
    callback.on_start(3, first)
    for row in ROWS[:last]:
        if row.epoch > first:
            callback.on_step(row.phase, row.epoch, 1, 2, 0.9, 0.1, 100.0)
        callback.on_epoch(row)


def read_events(path: Path) -> list:
    """Read a file with the pure Python reader and the message that TensorBoard brings."""
    wrap = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub import errors

    reader, events = wrap.PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return events
        events.append(Event.FromString(reader.record()))


def scalars(folder: Path, part: str) -> list[tuple[int, dict[str, float]]]:
    first, *events = read_events(folder / part / EVENT_FILE)
    assert first.file_version == "brain.Event:2"
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events]


def test_crc32c():
    # the check value of the polynomial in every datasetue, and those of RFC 3720, B.4
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_tensorboard_reads_the_log(tmp_path):
    train(TensorBoardLog(tmp_path, "a run"), 0, 3)
    inf = float("inf")
    found = scalars(tmp_path, "train")
    assert found[:2] == [
        (1, {"epoch_loss": 0.75, "epoch_accuracy": 0.5, "epoch_learning_rate": 0.125}),
        (2, {"epoch_loss": 0.5, "epoch_accuracy": 0.625, "epoch_learning_rate": 0.125}),
    ]
    assert math.isnan(found[2][1]["epoch_loss"])
    # 1e99 is too large for float32
    assert scalars(tmp_path, "validation") == [
        (1, {"epoch_loss": 0.5, "epoch_accuracy": 0.25}),
        (2, {"epoch_loss": 0.25, "epoch_accuracy": 0.75}),
        (3, {"epoch_loss": inf, "epoch_accuracy": 0.875}),
    ]
    (first, *_) = read_events(tmp_path / "train" / EVENT_FILE)
    assert first.source_metadata.writer == "a run"


def test_tensorboard_reads_long_numbers_and_texts(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(record(scalar_event(1.5, 300_000, {"t" * 300: 0.5})))
    (event,) = read_events(path)
    assert (event.wall_time, event.step) == (1.5, 300_000)
    assert [(v.tag, v.simple_value) for v in event.summary.value] == [("t" * 300, 0.5)]


def test_a_start_without_an_epoch_does_not_take_the_name(tmp_path):
    TensorBoardLog(tmp_path, "a failed start")
    train(TensorBoardLog(tmp_path, "the next run"), 0, 2)


def test_without_validation_there_is_no_validation_folder(tmp_path):
    log = TensorBoardLog(tmp_path, "run")
    log.on_start(1, 0)
    log.on_epoch(EpochRow(1, "train", 1.0, 0.1, 0.5, 0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("logged", [0, 1, 2, 3])
@pytest.mark.parametrize("done", [0, 1, 2, 3])
@pytest.mark.parametrize("torn", [False, True])
def test_a_continued_training_logs_each_epoch_once(tmp_path, logged, done, torn):
    """Killed with `logged` epochs in the log, continued from `done`; maybe killed while writing."""
    clock = iter(range(1000, 2000)).__next__
    train(TensorBoardLog(tmp_path, "run", clock), 0, logged)
    if torn:
        for path in tmp_path.glob("*/*"):
            with path.open("ab") as file:
                file.write(record(b"\x09 half a record")[:-5])
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*")}
    train(TensorBoardLog(tmp_path, "run", clock), done, 3)
    for part in ("train", "validation"):
        assert [step for step, _ in scalars(tmp_path, part)] == [1, 2, 3]
        # what was there and counts was not written again
        path = tmp_path / part / EVENT_FILE
        old = read_records(before.get(path, b""))[: 1 + min(logged, done)]
        assert read_records(path.read_bytes())[: len(old)] == old


def test_earlier_epochs_have_their_own_wall_times(tmp_path):
    log = TensorBoardLog(tmp_path, "run", lambda: 5000.0)
    log.on_start(3, 3)
    for row in ROWS:
        log.on_epoch(row)
    times = [event.wall_time for event in read_events(tmp_path / "train" / EVENT_FILE)[1:]]
    assert times == [5000 - 3 - 4, 5000 - 4, 5000]


def test_the_log_of_another_run_is_not_changed(tmp_path):
    train(TensorBoardLog(tmp_path, "one run"), 0, 2)
    before = (tmp_path / "train" / EVENT_FILE).read_bytes()
    with pytest.raises(UsageError, match="is the log of another training"):
        TensorBoardLog(tmp_path, "another run")
    (tmp_path / "train" / EVENT_FILE).write_bytes(b"something else altogether")
    with pytest.raises(UsageError, match="log of another training"):
        TensorBoardLog(tmp_path, "one run")
    assert (tmp_path / "train" / EVENT_FILE).read_bytes() == b"something else altogether"
    assert len(before) > 100


def test_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="Cannot write to the TensorBoard folder"):
        TensorBoardLog(tmp_path / "file", "run")


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\0" * 15, b"\xff" * 8 + bytes(100)])
def test_records_end_at_damaged_data(content):
    good = record(b"good")
    assert read_records(good + content) == [b"good"]
    assert read_records(content) == []


def test_history_file_is_complete_after_every_epoch(tmp_path):
    with open_logs(tmp_path) as log:
        log.on_start(3, 0)
        for k, row in enumerate(ROWS, 1):
            log.on_epoch(row)
            assert load_history(tmp_path) == History(ROWS[:k])
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


@pytest.mark.parametrize("free_at", [2, 3, None])
def test_a_history_that_a_viewer_holds_is_written_later(tmp_path, monkeypatch, free_at):
    real, epochs = History.write_csv, []

    def write(history, path):
        if free_at is None or len(epochs) < free_at:
            raise FileHeldError(13, "Another program has a file open", str(path))
        real(history, path)

    monkeypatch.setattr(History, "write_csv", write)
    late = contextlib.nullcontext() if free_at else pytest.warns(UserWarning, match="last epochs")
    with late, open_logs(tmp_path) as log:
        log.on_start(3, 0)
        for row in ROWS:
            log.on_epoch(row)
            epochs.append(row)
    assert len(epochs) == 3
    if free_at:
        assert load_history(tmp_path) == History(ROWS)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_history_of_a_resumed_training(tmp_path, done):
    with open_logs(tmp_path) as log:
        train(log, 0, 2)
    with open_logs(tmp_path) as log:
        log.on_start(3, done)
        for row in ROWS[: max(done - 1, 0)]:
            log.on_epoch(row)
        # killed while earlier epochs were replayed: the file still has all of them
        assert load_history(tmp_path) == History(ROWS[:2])
    with open_logs(tmp_path) as log:
        train(log, done, 3)
    assert load_history(tmp_path) == History(ROWS)


def test_tensorboard_gets_a_folder_of_the_run_s_name(tmp_path):
    run = tmp_path / "runs" / "photos-1"
    for done in (0, 2):
        with open_logs(run, tensorboard=str(tmp_path / "board")) as log:
            train(log, done, 3 if done else 2)
    assert [step for step, _ in scalars(tmp_path / "board" / "photos-1", "train")] == [1, 2, 3]
    assert list(json.loads((run / "logs.json").read_text("utf-8"))) == ["tensorboard"]
    other = tmp_path / "elsewhere" / "photos-1"
    with (
        pytest.raises(UsageError, match="log of another training"),
        open_logs(other, tensorboard=str(tmp_path / "board")),
    ):
        pass


@pytest.mark.parametrize("notes", [b"", b"[1]", b'{"tensorboard": 1}', b"\xff", b"[" * 10_000])
def test_damaged_logs_file_is_ignored(tmp_path, notes):
    (tmp_path / "logs.json").write_bytes(notes)
    with open_logs(tmp_path, tensorboard=str(tmp_path / "board")) as log:
        train(log, 0, 1)
    assert len(json.loads((tmp_path / "logs.json").read_text("utf-8"))["tensorboard"]) == 32


@pytest.fixture
def store(monkeypatch):
    return use_store(monkeypatch)


def test_mlflow_gets_settings_and_epochs(tmp_path, store):
    run = tmp_path / "photos-1"
    with open_logs(run, mlflow=True, parameters={"epochs": 3, "note": "x" * 999}) as log:
        train(log, 0, 2)
    (logged,) = store.runs.values()
    assert (logged.name, logged.status) == ("photos-1", "FINISHED")
    assert logged.params == {"epochs": "3", "note": "x" * 250}
    assert [(m.key, m.value) for m in logged.metrics if m.step == 2] == [
        ("seconds", 3.0),
        ("learning_rate", 0.125),
        ("loss", 0.5),
        ("accuracy", 0.625),
        ("val_loss", 0.25),
        ("val_accuracy", 0.75),
    ]
    assert list(store.experiments) == ["kindsight"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize(("logged", "done"), [(2, 0), (2, 1), (2, 2), (1, 2), (0, 2)])
def test_mlflow_gets_each_epoch_of_a_continued_training_once(tmp_path, store, logged, done):
    with pytest.raises(KeyboardInterrupt), open_logs(tmp_path, mlflow=True) as log:
        train(log, 0, logged)
        raise KeyboardInterrupt
    assert store.runs["id0"].status == "KILLED"
    with open_logs(tmp_path, mlflow=True) as log:
        assert store.runs["id0"].status == "RUNNING"
        train(log, done, 3)
    assert list(store.runs) == ["id0"]
    assert [m.step for m in store.runs["id0"].metrics if m.key == "loss"] == [1, 2, 3]


def test_a_deleted_mlflow_run_is_replaced(tmp_path, store):
    with pytest.raises(ValueError, match="x"), open_logs(tmp_path, mlflow=True):
        raise ValueError("x")
    assert store.runs["id0"].status == "FAILED"
    store.runs["id0"].info.lifecycle_stage = "deleted"
    with open_logs(tmp_path, mlflow=True):
        pass
    store.runs["id5"] = store.runs.pop("id1")
    with open_logs(tmp_path, mlflow=True):
        pass
    assert len(store.runs) == 3


def test_logging_is_retried_when_the_store_is_back(tmp_path, store):
    with open_logs(tmp_path, mlflow=True) as log:
        log.on_start(3, 0)
        log.on_epoch(ROWS[0])
        store.broken = True
        log.on_epoch(ROWS[1])
        store.broken = False
        log.on_epoch(ROWS[2])
    assert [m.step for m in store.runs["id0"].metrics if m.key == "loss"] == [1, 2, 3]


def test_warns_of_a_store_that_stays_unreachable(tmp_path, store):
    with (
        pytest.warns(
            UserWarning, match=r"missing there: epoch 2, epoch 3, metrics, report\. ConnectionError"
        ),
        open_logs(tmp_path, mlflow=True) as log,
    ):
        log.on_start(3, 0)
        log.on_epoch(ROWS[0])
        store.broken = True
        log.on_epoch(ROWS[1])
        log.on_epoch(ROWS[2])
        log.on_result({"validation_accuracy": 0.5}, tmp_path / "report.html")
    assert load_history(tmp_path) == History(ROWS)


def test_mlflow_gets_the_final_metrics_and_the_report(tmp_path, store):
    report = tmp_path / "report.html"
    report.write_text("a page")
    with open_logs(tmp_path, mlflow=True, parameters={"head": "rbf"}) as log:
        log.on_result({"validation_accuracy": 0.5, "temperature": 2.0}, report)
    (logged,) = store.runs.values()
    assert (logged.status, logged.params) == ("FINISHED", {"head": "rbf"})
    metrics = [(m.key, m.value, m.step) for m in logged.metrics]
    assert metrics == [("validation_accuracy", 0.5, 0), ("temperature", 2.0, 0)]
    assert logged.files == {"report.html": b"a page"}


def test_tensorboard_gets_settings_final_metrics_and_the_report(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = tmp_path / "report.html"
    report.write_text("a page")
    settings = {"head": "rbf", "data": "a|b\n" + "x" * 999}
    for accuracy in (0.25, 0.5):  # killed and run again
        with open_logs(tmp_path / "run", tensorboard=str(tmp_path), parameters=settings) as log:
            log.on_result({"validation_accuracy": accuracy}, report)
    found = EventAccumulator(str(tmp_path / "run" / "result"))
    found.Reload()
    (scalar,) = found.Scalars("validation_accuracy")
    assert (scalar.step, scalar.value) == (0, 0.5)
    (text,) = found.Tensors("settings")
    assert found.SummaryMetadata("settings").plugin_data.plugin_name == "text"
    (table,) = text.tensor_proto.string_val
    lines = table.decode().splitlines()
    assert lines[:3] == ["| setting | value |", "|---|---|", "| head | rbf |"]
    assert lines[3].startswith("| data | a\\|b xxx") and len(lines[3]) < 280
    assert (tmp_path / "run" / "report.html").read_text() == "a page"


def test_store_unreachable_at_the_start_raises(tmp_path, store):
    store.broken = True
    with (
        pytest.raises(
            KindsightError, match=r"Could not start an MLflow run: ConnectionError: no server"
        ),
        open_logs(tmp_path, mlflow=True),
    ):
        pass


def test_without_mlflow_the_error_names_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kindsight\[mlflow\]'"):
        check_mlflow()
    with pytest.raises(MissingExtraError), open_logs(tmp_path, mlflow=True):
        pass
