"""The worker's side of the protocol: read jobs, run them, write their results.

Jobs come on standard input, one JSON line each. Results go to the original standard output;
descriptor 1 is redirected to standard error, so that no print of a library mixes with the
results. When the parent ends, for whatever reason, standard input ends, and so does the worker.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from kindsight.models.worker.device import start_gpu

__all__ = ["Connection", "Job", "serve"]

# Libraries that Keras imports if they are installed. That takes most of a second and is not needed.
_OPTIONAL_LIBRARIES = ("sklearn", "matplotlib", "pandas", "scipy", "cv2", "PIL", "pygments")


# Most characters of a traceback that the parent can show with --debug.
MAX_TRACEBACK = 20_000


class Connection:
    """A running job's connection to the parent process; `stop` is set when the job should stop."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self.stop = threading.Event()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message before the result; it must not have the key ``"ok"``."""
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()


Job = Callable[[dict[str, Any], Connection], dict[str, Any]]


def serve(
    jobs: Mapping[str, Job], on_start: Callable[[], None] | None = None, *, keras: bool = True
) -> None:
    """Run jobs, by name, until the parent sends ``"quit"`` or ends.

    `on_start` is called once TensorFlow is imported, before it computes anything. Without `keras`,
    neither is imported.
    """
    # Ctrl-C reaches every process of a terminal; the parent decides what happens to this one.
    # So does SIGTERM if a scheduler sends it to all processes of a job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(waiting, connection.stop), daemon=True).start()
    # The first result, which no job asked for, says that the worker is ready.
    connection.send(
        _run(
            lambda job, connection: _import_keras(on_start) if keras else {"versions": {}},
            {}, connection,
        )
    )  # fmt: skip
    while (job := waiting.get())["job"] != "quit":
        connection.stop.clear()
        connection.send(_run(jobs[job["job"]], job, connection))
    # TensorFlow's own shutdown takes longer than the jobs of a small training.
    os._exit(0)


def _read_jobs(waiting: queue.Queue[dict[str, Any]], stop: threading.Event) -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if job["job"] == "stop":
            stop.set()
        else:
            waiting.put(job)
    # The parent has ended: nobody needs the result of the running job.
    os._exit(1)


def _run(task: Job, job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Run a job; return its result, or its error as a result."""
    try:
        return {"ok": True, **task(job, connection)}
    except Exception as error:
        traceback.print_exc()
        return {
            "ok": False,
            "error": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc()[-MAX_TRACEBACK:],
        }


def _import_keras(on_start: Callable[[], None] | None) -> dict[str, Any]:
    """Import Keras quickly, and set the defaults that the models are built with."""
    with _optional_libraries_hidden():
        # A fifth of the import is the garbage collector visiting objects that all stay alive.
        gc.disable()
        import keras
        import tensorflow as tf
    gc.freeze()
    gc.enable()
    device = start_gpu()
    if on_start is not None:
        on_start()
    # The user's keras.json may set other defaults.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    return {"versions": {"keras": keras.__version__, "tensorflow": tf.__version__}, **device}


@contextlib.contextmanager
def _optional_libraries_hidden() -> Iterator[None]:
    """Make imports of Keras's optional libraries fail, so that importing Keras is faster."""
    hidden = [library for library in _OPTIONAL_LIBRARIES if library not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for library in hidden:
            del sys.modules[library]
