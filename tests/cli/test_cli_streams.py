"""What only shows in a process of its own: pipes, signals, encodings, and what is imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from typer.core import TyperOption

from tiny_bundle import COLOURS, write_image

posix = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


def test_a_row_is_out_before_the_next_name_is_in(start, tiny, colours):
    process = start("predict", tiny, "-", "--json")
    for name in ("red", "blue", "green"):
        process.stdin.write(f"new/{name}.png\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["label"] == name
    process.stdin.close()
    assert process.wait(200) == 0
    assert process.stdout.read() == b""


def test_the_reader_may_leave_early(start, tiny, colours):
    names = "\n".join(["new/red.png"] * 5000).encode()
    process = start("predict", tiny, "-", "--json")
    feeder = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({names!r})"],
        stdout=process.stdin,
    )
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(200) == 0
    assert process.stderr.read() == b""
    feeder.kill()
    feeder.wait()


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_one_line_and_an_exit_code(start, tiny, colours, number, code):
    process = start("predict", tiny, "-", "--json")
    process.stdin.write(b"new/red.png\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(number)
    assert process.wait(200) == code
    assert process.stderr.read() == b"kindsight: stopped.\n"
    process.stdin.close()


@posix
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_of_the_terminal_makes_a_name_crash(start, tiny, colours, encoding):
    write_image(colours / "écrit.png", COLOURS["red"])
    write_image(colours / "写.png", COLOURS["red"])
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    process = start("predict", tiny, "écrit.png", "写.png", environment=environment)
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, b"")
    names = [line.split()[-1] for line in out.splitlines()[1:]]
    assert names == [name.encode(encoding, "backslashreplace") for name in ("écrit.png", "写.png")]
    process = start("predict", tiny, "écrit.png", "--json", environment=environment)
    # what programs read is UTF-8 wherever it is written
    assert json.loads(process.communicate(timeout=200)[0].decode("utf-8"))["path"] == "écrit.png"


def test_predict_imports_nothing_that_it_does_not_need(start, tiny, colours):
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    process = start("predict", tiny, "new/red.png", environment=environment)
    _, err = process.communicate(timeout=200)
    imported = {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}
    heavy = {
        "tensorflow", "keras", "sklearn", "scipy", "pandas", "matplotlib",
        "jinja2", "h5py", "flatbuffers",
    }  # fmt: skip
    if hasattr(TyperOption, "get_runtime_param"):  # older Typers import Rich with themselves
        heavy |= {"rich", "pydantic"}
    assert "kindsight.predictor" in imported
    assert not heavy & imported


def test_help_imports_no_numbers(start):
    process = start("--help", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    out, err = process.communicate(timeout=200)
    imported = {line.rpartition("|")[2].strip() for line in err.decode().splitlines()}
    assert b"Start with: kindsight train photos/" in out
    assert not {"numpy", "cv2", "tensorflow", "keras"} & imported


def test_results_and_the_rest_go_to_different_streams(start, tiny, colours):
    process = start("evaluate", tiny, "new", "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert out == b""
    assert err.startswith(b"kindsight: There are no class folders in")


@posix
def test_closed_streams_are_no_bug(tiny, colours):
    command = f'"{sys.executable}" -m kindsight predict "{tiny}" new/red.png --json'
    assert subprocess.run(f"{command} >&-", shell=True, check=False).returncode == 0
    listed = command.replace("new/red.png", "-")
    done = subprocess.run(f"{listed} <&-", shell=True, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"bug" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_under_standard_output_is_said_once(tiny, colours):
    command = f'"{sys.executable}" -m kindsight predict "{tiny}" new/red.png --json > /dev/full'
    done = subprocess.run(command, shell=True, check=False, capture_output=True)
    assert done.returncode == 1
    advice = b"Free some space, or choose a folder on another disk."
    assert done.stderr == b"kindsight: No space left on device. " + advice + b"\n"
