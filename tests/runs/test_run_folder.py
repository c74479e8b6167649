"""The folder of a run: numbers, names, locks, and interrupted runs."""

import os
import threading
from pathlib import Path

import pytest

from kindsight.errors import SettingsError, UsageError, WeightsError
from kindsight.runs import folder as runfolder
from kindsight.runs.folder import claim_run
from kindsight.runs.settings import TrainSettings


@pytest.fixture
def settings(tmp_path):
    def settings(data="photos", **given):
        return TrainSettings(str(tmp_path / data), runs=str(tmp_path / "runs"), **given)

    return settings


def finish(settings):
    """Train as fast as can be."""
    with claim_run(settings) as folder:
        (folder / "bundle.json").write_text("{}")
    return folder


def interrupt(settings):
    """Train for a while, and fail."""
    with pytest.raises(ZeroDivisionError), claim_run(settings) as folder:
        (folder / "checkpoint.npz").write_bytes(b"an hour's work")
        raise ZeroDivisionError
    return folder


def fail(settings, *files, error=WeightsError):
    """Fail before anything is trained."""
    with pytest.raises(error), claim_run(settings) as folder:
        for name in files:
            (folder / name).write_text("path,label\n")
        raise error("Give the file as `weights`.")
    return folder


def test_finished_runs_are_numbered(settings):
    folders = [finish(settings()) for _ in range(12)]
    assert [folder.name for folder in folders] == [f"photos-{n}" for n in range(1, 13)]
    assert {folder.parent.name for folder in folders} == {"runs"}
    assert sorted(path.name for path in folders[0].iterdir()) == ["bundle.json", "settings.toml"]
    assert TrainSettings.from_toml(folders[0] / "settings.toml") == settings()


def test_other_data_other_numbers(settings):
    assert finish(settings()).name == "photos-1"
    assert finish(settings("a+b (1).x")).name == "a+b (1).x-1"
    assert finish(settings("a+b (1).x")).name == "a+b (1).x-2"
    assert finish(settings("photo")).name == "photo-1"


def test_a_folder_named_by_dots(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with claim_run(TrainSettings(".", runs="../runs")) as folder:
        assert folder.resolve() == tmp_path / "runs" / "here-1"


def test_a_gap_is_not_filled(settings, tmp_path):
    finish(settings())
    (tmp_path / "runs" / "photos-7").mkdir()
    (tmp_path / "runs" / "photos-7" / "notes.txt").write_text("mine")
    (tmp_path / "runs" / "photos-x").mkdir()
    (tmp_path / "runs" / "photos-9-copy").mkdir()
    (tmp_path / "runs" / "photos-8").write_text("a file")
    assert finish(settings()).name == "photos-9"
    assert (tmp_path / "runs" / "photos-7" / "notes.txt").read_text() == "mine"


def test_an_interrupted_run_is_continued_by_the_same_settings(settings):
    finish(settings())
    stopped = interrupt(settings())
    assert stopped.name == "photos-2"
    assert finish(settings(seed=1)).name == "photos-3"
    assert finish(settings()) == stopped
    assert finish(settings()).name == "photos-4"


def test_the_newest_of_several_interrupted_runs_is_continued(settings):
    first = interrupt(settings(seed=1))
    with claim_run(settings(seed=1)) as held, claim_run(settings(seed=1)) as other:
        assert held == first and other != first
    assert finish(settings(seed=1)) == other


@pytest.mark.parametrize("content", [None, ".lock", ".settings-abc.part.toml"])
def test_a_run_killed_at_its_start_is_continued(settings, tmp_path, content):
    folder = tmp_path / "runs" / "photos-1"
    folder.mkdir(parents=True)
    if content:
        (folder / content).write_bytes(b"")
    assert finish(settings()) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "settings.toml"]


def test_a_run_whose_settings_are_damaged_is_left_alone(settings, tmp_path):
    folder = interrupt(settings())
    (folder / "settings.toml").write_bytes(b"\0\xff")
    assert finish(settings()).name == "photos-2"
    assert (folder / "settings.toml").read_bytes() == b"\0\xff"


def test_leftovers_of_a_killed_process_are_cleared(settings):
    folder = interrupt(settings())
    (folder / ".model-x1y2.part.keras").write_bytes(b"half")
    (folder / ".hidden").write_bytes(b"the user's own")
    finish(settings())
    assert not (folder / ".model-x1y2.part.keras").exists() and (folder / ".hidden").exists()


def test_two_at_once_get_folders_of_their_own(settings):
    with claim_run(settings()) as one, claim_run(settings()) as two:
        assert (one.name, two.name) == ("photos-1", "photos-2")


def test_many_at_once_get_folders_of_their_own(settings):
    barrier, folders = threading.Barrier(8), []

    def claim():
        barrier.wait()
        with claim_run(settings()) as folder:
            folders.append(folder)
            barrier.wait()

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(folders)) == 8


def test_a_named_run(settings, tmp_path):
    folder = finish(settings(run="best"))
    assert folder == tmp_path / "runs" / "best"
    with pytest.raises(
        UsageError, match=r"best is a finished run, which is never overwritten.*another `run`"
    ):
        finish(settings(run="best"))
    # A path is used as it is.
    assert finish(settings(run=str(tmp_path / "x" / "y"))) == tmp_path / "x" / "y"


@pytest.mark.parametrize("run", ["deep/er", "./out", "../beside"])
def test_a_path_is_relative_to_the_working_directory(settings, tmp_path, monkeypatch, run):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert finish(settings(run=run)) == Path(run)
    assert (tmp_path / "here" / run / "bundle.json").exists()


@pytest.mark.parametrize("run", [None, "best", "deep/er"])
@pytest.mark.parametrize("files", [(), ("problems.csv", "split.csv", "trained_on.npz")])
@pytest.mark.parametrize("error", [WeightsError, SettingsError, OSError])
def test_a_failed_start_leaves_nothing(settings, tmp_path, monkeypatch, run, files, error):
    monkeypatch.chdir(tmp_path)
    fail(settings(run=run), *files, error=error)
    assert list(tmp_path.iterdir()) == []
    # The cure, another setting, goes into the same folder.
    folder = finish(settings(run=run, seed=1))
    assert folder.name == Path(run or "photos-1").name


def test_only_what_the_run_made_is_removed(settings, tmp_path):
    folder = tmp_path / "runs" / "best"
    folder.mkdir(parents=True)
    (folder / ".hidden").write_text("the user's own")
    fail(settings(run="best"), "split.csv")
    assert {path.name for path in folder.iterdir()} == {".hidden", ".lock"}
    fail(settings(run="best"), "notes.txt")
    assert (folder / "notes.txt").exists()


@pytest.mark.parametrize("files", [("problems.csv",), ("model.tflite", "validation.csv")])
def test_a_killed_start_takes_other_settings(settings, files):
    with pytest.raises(KeyboardInterrupt), claim_run(settings(run="best")) as folder:
        for name in files:
            (folder / name).write_text("of seed 0")
        raise KeyboardInterrupt
    assert finish(settings(run="best", seed=1)) == folder
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "settings.toml"}
    assert TrainSettings.from_toml(folder / "settings.toml").seed == 1


def test_the_reasons_for_skipped_images_stay(settings):
    with pytest.raises(WeightsError), claim_run(settings(run="best")) as folder:
        (folder / "problems.csv").write_text("path,label\na.jpg,a\n")
        raise WeightsError("unreadable")
    assert "a.jpg" in (folder / "problems.csv").read_text()
    assert finish(settings(run="best", seed=1)) == folder


def test_settings_written_by_hand_are_not_replaced(settings, tmp_path):
    folder = tmp_path / "runs" / "best"
    settings().write(folder / "settings.toml")
    with pytest.raises(UsageError, match="files that do not belong to a run"):
        finish(settings(run="best", seed=1))
    assert TrainSettings.from_toml(folder / "settings.toml") == settings()


def test_a_named_run_is_continued(settings):
    stopped = interrupt(settings(run="best"))
    with pytest.raises(
        UsageError, match=r"interrupted training with other settings.*as `settings`"
    ):
        finish(settings(run="best", seed=1))
    assert finish(settings(run="best")) == stopped


def test_a_named_run_in_use(settings):
    with (
        claim_run(settings(run="best")),
        pytest.raises(UsageError, match="in use by another process"),
        claim_run(settings(run="best")),
    ):
        pass


def test_a_name_of_something_else(settings, tmp_path):
    (tmp_path / "runs" / "best").mkdir(parents=True)
    (tmp_path / "runs" / "best" / "thesis.doc").write_text("x")
    with pytest.raises(UsageError, match="files that do not belong to a run"):
        finish(settings(run="best"))
    (tmp_path / "runs" / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file, not a run folder"):
        finish(settings(run="file"))
    assert sorted(path.name for path in (tmp_path / "runs" / "best").iterdir()) == ["thesis.doc"]


@pytest.mark.parametrize("run", [None, "best"])
def test_a_run_finished_just_before_it_was_locked(settings, monkeypatch, run):
    stopped = interrupt(settings(run=run))
    real = runfolder._lock

    def lock(folder, *option):
        # The other process finishes its training between the first check and the lock.
        if folder == stopped:
            (folder / "bundle.json").write_text("the other's")
        return real(folder, *option)

    monkeypatch.setattr(runfolder, "_lock", lock)
    if run is None:
        assert finish(settings()).name == "photos-2"
    else:
        with pytest.raises(UsageError, match="never overwritten"):
            finish(settings(run=run))
    assert (stopped / "bundle.json").read_text() == "the other's"
    # The lock was released.
    lock = real(stopped)
    assert lock is not None
    lock.release()


def test_a_folder_that_cannot_be_created(settings, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UsageError, match="Cannot write to the folder of runs"):
        finish(settings())
    with pytest.raises(UsageError, match=r"Cannot write to the folder of runs|is a file"):
        finish(settings(run="best"))


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_data_whose_name_is_not_unicode(settings):
    name = os.fsdecode(b"caf\xe9")
    stopped = interrupt(settings(name))
    assert stopped.name == name + "-1"
    assert finish(settings(name)) == stopped
