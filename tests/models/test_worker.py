"""The Keras worker process: its results, and how it can fail."""

import importlib.util
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from kindsight.errors import KindsightError, SettingsError, WeightsError
from kindsight.models.formats.assemble import write_keras
from kindsight.models.heads import LinearHead
from kindsight.models.worker.process import KerasProcess, worker_environment
from kindsight.models.worker.worker_process import WorkerProcess


def run(process):
    return process.run("model.keras", np.zeros((1, 4, 4, 3), np.uint8))


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("count", [1, 11])
def test_run_gives_features_and_logits_of_every_image(
    built, keras_process, tmp_path, images, count
):
    kernel = np.eye(built.layout.width, 3)
    write_keras(built.keras, LinearHead(kernel, [0, 0, 100]), tmp_path / "model.keras")
    pixels = np.resize(images, (count, *images.shape[1:])).astype(np.uint8)
    features, logits, _ = keras_process.run(tmp_path / "model.keras", pixels)
    assert features.shape == (count, built.layout.width)
    assert features.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(logits, features[:, :3] + [0, 0, 100], rtol=1e-5)
    # Images repeat after four: so do their features, in the batch that is filled up as well.
    again = features[np.arange(count) % 4]
    np.testing.assert_allclose(features, again, atol=1e-4 * np.abs(features).max())


def test_a_job_that_fails_leaves_the_process_usable(built, keras_process, tmp_path, images):
    pid = keras_process.start().pid
    (tmp_path / "no.keras").write_bytes(b"no model")
    for name in ("no.keras", "absent.keras"):
        with pytest.raises(
            KindsightError, match="The job 'run' failed in the Keras worker process: ValueError"
        ):
            keras_process.run(tmp_path / name, images)
    with pytest.raises(WeightsError, match=r"no\.pth") as caught:
        (tmp_path / "no.pth").write_bytes(b"no weights")
        keras_process.build(
            "efficientnet-lite0",
            (64, 48),
            tflite=tmp_path / "a.tflite",
            keras=tmp_path / "a.keras",
            weights=str(tmp_path / "no.pth"),
        )
    # --debug shows the worker's traceback.
    assert "load_state" in str(caught.value.__cause__)
    assert keras_process.pid == pid
    assert sorted(keras_process.versions) == ["keras", "tensorflow"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_worker_leaves_signals_to_its_parent(keras_process, tmp_path, images, number):
    # A terminal sends Ctrl-C, and a scheduler SIGTERM, to every process of a job.
    for _ in range(2):
        with pytest.raises(KindsightError, match="failed in the Keras worker process: ValueError"):
            keras_process.run(tmp_path / "absent.keras", images)
        pid = keras_process.pid
        os.kill(pid, number)
    assert is_alive(pid) and keras_process.start().pid == pid


@pytest.mark.parametrize("shape", [(4, 4, 3), (0, 4, 4, 3), ()])
def test_pixels_of_another_shape_are_refused_at_once(shape):
    process = KerasProcess()
    with pytest.raises(SettingsError, match="pixels"):
        process.run("model.keras", np.zeros(shape))
    assert process.pid is None


def test_prints_do_not_mix_with_results(make_process):
    # As the real worker does first: results go to a copy of standard output.
    process = make_process(
        """
        def main():
            output = os.fdopen(os.dup(1), "w")
            os.dup2(2, 1)
            print("Saved artifact", flush=True)
            os.system("echo noise")
            print(json.dumps({"ok": True, "versions": {"a": "1"}}), file=output, flush=True)
            for job in jobs():
                print("noise", flush=True)
                print(json.dumps({"ok": True, "width": 7}), file=output, flush=True)
        """
    )
    result = process.build("a", (1, 1), tflite="a", keras="b")
    assert result["width"] == 7
    assert process.versions == {"a": "1"}


@pytest.mark.parametrize(
    ("system", "machine", "advice"),
    [
        ("Linux", "x86_64", r"pip install 'kindsight\[train\]'"),
        ("Darwin", "arm64", r"pip install 'kindsight\[train\]'"),
        ("Darwin", "x86_64", "no wheels for Darwin on x86_64"),
        ("Windows", "ARM64", "no wheels for Windows on ARM64"),
    ],
)
def test_without_tensorflow_the_error_names_the_install_command(
    monkeypatch, system, machine, advice
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(KindsightError, match=advice), KerasProcess() as keras:
        keras.start()


def test_a_worker_that_fails_at_the_start(make_process):
    process = make_process("def main(): raise ImportError('libtensorflow is broken')")
    with pytest.raises(KindsightError, match=r"(?s)'start'.*exit code 1.*libtensorflow is broken"):
        run(process)


def test_a_worker_that_fails_in_a_job_is_replaced(make_process):
    process = make_process(
        """
        def main():
            reply(versions={})
            for job in jobs():
                print("out of luck", file=sys.stderr)
                os._exit(3)
        """
    )
    for _ in range(2):
        with pytest.raises(KindsightError, match=r"(?s)job 'run'.*exit code 3.*out of luck"):
            run(process)
        assert process.pid is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_worker_is_reported_with_its_signal(make_process):
    process = make_process(
        "def main():\n reply(versions={})\n for job in jobs(): os.kill(os.getpid(), 9)"
    )
    with pytest.raises(KindsightError, match="signal 9, as when memory runs out"):
        run(process)


def test_a_worker_that_hangs_is_killed(make_process):
    process = make_process(
        """
        def main():
            reply(versions={})
            for job in jobs():
                if job["job"] == "run":
                    time.sleep(600)
                reply(width=1)
        """
    )
    process.build("a", (1, 1), tflite="a", keras="b")
    pid = process.pid
    process.timeout = 0.2
    with pytest.raises(KindsightError, match=r"job 'run'.*within 0\.2 seconds"):
        run(process)
    assert not is_alive(pid)


def test_an_unknown_error_is_reported_with_its_type(make_process):
    process = make_process(
        """
        def main():
            reply(versions={})
            for job in jobs():
                print(json.dumps({"ok": False, "error": "OddError", "message": "m"}), flush=True)
        """
    )
    with pytest.raises(KindsightError, match="OddError: m"):
        run(process)
    assert process.pid is not None


def test_harmful_environment_variables_are_not_inherited(make_process, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONINSPECT", "1")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    process = make_process(
        """
        import numpy
        def main():
            found = {name: os.environ.get(name, "unset") for name in (
                "PYTHONWARNINGS", "PYTHONINSPECT", "KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS")}
            reply(versions=found)
            for job in jobs():
                reply(width=1)
        """
    )
    assert process.build("a", (1, 1), tflite="a", keras="b")["width"] == 1
    assert process.versions == {
        "PYTHONWARNINGS": "unset",
        "PYTHONINSPECT": "unset",
        "KERAS_BACKEND": "tensorflow",
        "TF_ENABLE_ONEDNN_OPTS": "1",
    }


def test_the_users_onednn_setting_takes_precedence(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert worker_environment()["TF_ENABLE_ONEDNN_OPTS"] == "0"


def test_closing_ends_the_worker(make_process):
    process = make_process("def main():\n reply(versions={})\n for job in jobs(): pass")
    with process.start():
        pid = process.pid
        assert is_alive(pid)
    assert not is_alive(pid)


def test_the_worker_ends_with_its_killed_parent():
    code = (
        "import sys, time; from kindsight.models.worker.process import KerasProcess; "
        "process = KerasProcess().start(); print(process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("second", [KeyboardInterrupt, KindsightError])
def test_a_second_ctrl_c_is_recorded(make_process, monkeypatch, second):
    process = make_process(
        "def main():\n reply(versions={})\n for job in jobs(): print('{}', flush=True)"
    )
    received = []

    def on_message(message):
        def receive(job, timeout):
            received.append(job)
            raise second

        monkeypatch.setattr(process._worker, "receive", receive)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run_job(on_message, job="tune")
    assert received == ["tune"] and process.interrupted_twice == (second is KeyboardInterrupt)
    assert process._worker is None


def test_a_process_that_cannot_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(KindsightError, match="/nowhere/python"):
        WorkerProcess("stand_in", {})


# Background jobs --------------------------------------------------------------------------------

JOBS = """
    import pathlib
    def main():
        reply(versions={})
        for job in jobs():
            if job["job"] == "quit":
                while os.path.exists("LOG.wait"):
                    time.sleep(0.01)
                os._exit(0)
            with open("LOG", "a") as log:
                log.write(job["job"] + "\\n")
            while os.path.basename(job["model"]) == "slow" and os.path.exists("LOG.wait"):
                time.sleep(0.01)
            reply(width=1)
"""


@pytest.fixture
def waiting(tmp_path):
    """A file: while it exists, the process goes on loading "slow", and does not end."""
    file = tmp_path / "log.wait"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture
def logged(make_process, tmp_path):
    log = tmp_path / "log"
    process = make_process(JOBS.replace("LOG", str(log)))
    return process, lambda: log.read_text().split() if log.exists() else []


def job(process):
    return process.run_job(job="run", model="real")


def test_background_job_runs_before_a_later_job(logged):
    process, jobs_run = logged
    process.run_ahead("backbone", lambda: np.zeros((1, 2, 2, 3), np.uint8))
    assert wait_until(lambda: jobs_run() == ["ahead"])
    assert job(process)["width"] == 1
    assert jobs_run() == ["ahead", "run"]


def test_background_job_returns_at_once(logged, waiting):
    process, jobs_run = logged
    process.load_ahead("slow")
    assert wait_until(lambda: jobs_run() == ["load"])
    process.run_ahead("backbone", lambda: np.zeros((1, 2, 2, 3), np.uint8))
    assert jobs_run() == ["load"] and process._lock.locked()  # it is still loading
    waiting.unlink()
    assert wait_until(lambda: jobs_run() == ["load", "ahead"])


def test_no_background_job_after_the_end(logged, monkeypatch):
    process, jobs_run = logged
    real, gate = process._run, threading.Event()
    monkeypatch.setattr(process, "_run", lambda *job: (gate.wait(30), real(*job))[1])
    process.run_ahead("backbone", lambda: np.zeros((1, 2, 2, 3), np.uint8))
    worker = process._worker
    process.close(kill=True)
    gate.set()
    time.sleep(0.3)
    assert jobs_run() == [] and process._worker is None
    assert not is_alive(worker._process.pid)


def test_closing_in_the_background(logged, waiting):
    process, _ = logged
    job(process)
    old = process._worker
    process.close_in_background()
    assert process._worker is None and is_alive(old._process.pid)
    waiting.unlink()
    assert job(process)["width"] == 1 and process._worker is not old
    process.close()
    assert not is_alive(old._process.pid)
    process.close_in_background()  # nothing to close
