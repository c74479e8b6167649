"""Checkpoints: restored to the bit, atomic, and safe against hostile files."""

import io
import json
import threading
import zipfile

import numpy as np
import pytest

from kindsight.training.engine import checkpoints
from kindsight.training.engine.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    key_of,
    read_checkpoint,
)

ARRAYS = {
    "now/layer/kernel": np.array([[1.5, -0.0], [np.inf, np.nan]], np.float32),
    "best/layer/kernel": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
}
NUMBERS = {"loss": 0.1 + 0.2, "history": [{"epoch": 1, "val_loss": None}], "nan": float("nan")}


def test_checkpoint_is_restored_to_the_bit(tmp_path):
    path = tmp_path / "c.npz"
    Checkpoint("key", NUMBERS, ARRAYS).write(path)
    found = read_checkpoint(path, "key")
    assert json.dumps(found.numbers) == json.dumps(NUMBERS)
    assert found.arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert found.arrays[name].tobytes() == value.tobytes()
        assert found.arrays[name].shape == value.shape
    assert read_checkpoint(path, "another") is None
    assert read_checkpoint(tmp_path / "none.npz", "key") is None


def test_damaged_checkpoint_is_none(tmp_path):
    path = tmp_path / "c.npz"
    Checkpoint("key", {}, {"a": np.arange(1000, dtype=np.float32)}).write(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 131):
        path.write_bytes(whole[:place])
        assert read_checkpoint(path, "key") is None
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        found = read_checkpoint(path, "key")
        assert found is None or (found.arrays["a"] == np.arange(1000)).all()


def test_compressed_checkpoint_is_none(tmp_path):
    path = tmp_path / "c.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(10**6, np.float32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", buffer.getvalue())
    assert read_checkpoint(path, "key") is None


def test_pickles_are_none(tmp_path):
    path = tmp_path / "c.npz"
    text = np.frombuffer(json.dumps({"format": 1, "key": "key", "numbers": {}}).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, state=text, evil=np.array([{}], object))
    assert read_checkpoint(path, "key") is None


def test_checkpoint_of_another_format_is_none(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    Checkpoint("key", {}, {}).write(path)
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    assert read_checkpoint(path, "key") is None


def test_least_time_between_two_checkpoints(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    with CheckpointWriter(tmp_path / "c.npz", 10.0) as writer:
        assert not writer.due
        now[0] += 10
        assert writer.due
        writer.write(Checkpoint("key", {"step": 1}, {}))
        writer._thread.join()
        assert not writer.due
        writer._took = 1.0  # then twenty seconds are to pass
        now[0] += 15
        assert not writer.due
        now[0] += 5
        assert writer.due
    assert read_checkpoint(tmp_path / "c.npz", "key").numbers == {"step": 1}


def test_leaving_waits_for_the_last_checkpoint(tmp_path, monkeypatch):
    gate, real = threading.Event(), Checkpoint.write

    def slow(self, path):
        gate.wait(20)
        real(self, path)

    monkeypatch.setattr(Checkpoint, "write", slow)
    with CheckpointWriter(tmp_path / "c.npz", 0.0) as writer:
        writer.write(Checkpoint("key", {}, {}))
        assert not writer.due
        gate.set()
    assert read_checkpoint(tmp_path / "c.npz", "key") is not None


def test_without_a_path_nothing_is_written():
    with CheckpointWriter(None, 0.0) as writer:
        assert not writer.due
        writer.write(Checkpoint("key", {}, {}))


def test_write_errors_are_raised(tmp_path):
    with CheckpointWriter(tmp_path / "file" / "c.npz", 0.0) as writer:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(OSError):
            writer.write(Checkpoint("key", {}, {}), now=True)


def test_keys_differ_for_different_values():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": 2}), key_of({"a": 1}, {}), key_of({"b": 1})}) == 4
