"""The Keras worker process and its jobs, as methods.

Importing TensorFlow takes seconds and hundreds of megabytes. The worker process starts when it is
first needed, while other work continues, and runs jobs from several threads. Most of kindsight does
not need it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.sqlite_table import LostTableError
from kindsight.errors import (
    CacheError,
    DivergedError,
    KindsightError,
    MissingExtraError,
    ParityError,
    SettingsError,
    WeightsError,
)
from kindsight.models.runtime import CHECKED_IMAGES
from kindsight.models.worker.device import (
    choose_device,
    device_environment,
    unused_note,
    visible_gpus,
)
from kindsight.models.worker.worker_process import WorkerEndedError, WorkerProcess

__all__ = [
    "GPU_TOLERANCE", "KerasProcess", "require_tensorflow", "require_training_packages",
    "worker_environment",
]  # fmt: skip

STOP_SECONDS = 15.0
"""Seconds a worker has to stop a job and save its state after Ctrl-C."""

GPU_TOLERANCE = 1e-4
"""Largest difference of a GPU's features from LiteRT's, as a fraction of the largest value.

Keras on a CPU differs by a millionth, TensorFloat-32 would by a thousandth. Within it, features of
both are cached together.
"""

# With fewer images, the CPU is ready before TensorFlow has started on a GPU.
MIN_GPU_IMAGES = 500
# Jobs that train on the worker's device.
TRAINING_JOBS = ("train", "fine_tune")

WITHOUT_WHEELS = {("Darwin", "x86_64"), ("Windows", "ARM64")}
"""System and machine for which neither current TensorFlow nor LiteRT is published."""

_TYPED_ERRORS = {
    kind.__name__: kind
    for kind in (
        CacheError,
        DivergedError,
        LostTableError,
        ParityError,
        SettingsError,
        WeightsError,
    )
}
# What a job reports of its own arguments or data: the same on any device.
_NOT_OF_A_DEVICE = (CacheError, DivergedError, LostTableError, SettingsError, WeightsError)
Self = TypeVar("Self", bound="KerasProcess")


class KerasProcess:
    """A worker process with Keras. Jobs from several threads run one after the other.

    It starts when first needed, and ends with the ``with`` block, with this object, or with this
    process, whichever comes first, even if that is killed.

    Parameters
    ----------
    timeout : float
        Most seconds that one job, the start of TensorFlow, or the time between two messages may
        take.
    module : str
        The module whose ``main`` the worker runs, where it has more jobs than these.
    name : str
        What error messages call it.
    with_keras : bool
        Whether TensorFlow must be installed; a module without it serves with ``keras=False``.
    device : str
        ``"cpu"``, ``"gpu"``, or ``"auto"``: a GPU if TensorFlow can use one. A GPU that fails is
        replaced by the CPU, with a note, or with ``"gpu"`` by a KindsightError.

    Attributes
    ----------
    versions : mapping of str to str
        Of Keras and TensorFlow, once a job has been run.
    gpu : str
        Name of the GPU that the worker uses, once it is known; else empty.
    notes : list of str
        Sentences for the user, about a GPU.
    interrupted_twice : bool
        Whether a second Ctrl-C came while the worker was stopping after the first.
    """

    def __init__(
        self,
        timeout: float = 600.0,
        *,
        module: str = "kindsight.models.keras_jobs",
        name: str = "Keras worker process",
        with_keras: bool = True,
        device: str = "cpu",
    ) -> None:
        self.timeout = timeout
        self._module, self._name, self._with_keras = module, name, with_keras
        self._device, self.gpu, self._gpu_name = device, "", ""
        self._try_gpu, note = choose_device(device)
        self._trained, self._difference = False, -1.0
        self.notes = [note] if note else []
        self.versions: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._closing: threading.Thread | None = None
        self._waiting = 0
        self._ready = False
        self.interrupted_twice = False

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(kill=kind is not None)

    @property
    def pid(self) -> int | None:
        """The process id of the worker; None when it is not running."""
        worker = self._worker
        return None if worker is None else worker.pid

    def start(self: Self) -> Self:
        """Start the worker and return while it imports TensorFlow; KindsightError if it fails."""
        with self._lock:
            self._started()
        return self

    def run_job(
        self, on_message: Callable[[dict[str, Any]], None] | None = None, **job: Any
    ) -> dict[str, Any]:
        """Run a job and wait for its result; KindsightError when the job or the worker fails.

        `on_message` is called on this thread with each message that the job sends before its
        result. When it raises, or Ctrl-C comes, the worker has :data:`STOP_SECONDS` to stop the
        job. `job` holds the job's name and its arguments, as JSON can hold them.

        A job that fails on a GPU before its first message runs again on the CPU.
        """
        begun = False

        def receive(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            if on_message is not None:
                on_message(message)

        try:
            result = self._run(None if on_message is None else receive, None, job)
            self._trained |= bool(self.gpu) and job["job"] in TRAINING_JOBS
            return result
        except KindsightError as error:
            if not self.gpu or begun or isinstance(error, _NOT_OF_A_DEVICE):
                raise
            self.leave_gpu(error)
        return self._run(on_message, None, job)

    def wants_gpu(self, images: int) -> bool:
        """Return whether a GPU is to compute a number of images, if TensorFlow can use one."""
        enough = bool(self.gpu) or self._device == "gpu" or images >= MIN_GPU_IMAGES
        return self._try_gpu and enough

    def record_difference(self, difference: float) -> None:
        """Record by how much a GPU's features differ from LiteRT's, for :meth:`device_notes`."""
        self._difference = max(self._difference, difference)

    def device_notes(self) -> list[str]:
        """Return sentences on what was computed on a GPU, and on why one was not used."""
        found = []
        if self._difference >= 0:
            found.append(
                f"features (they differ from LiteRT's by {self._difference:.1g} of the largest "
                f"value on {CHECKED_IMAGES} images; {GPU_TOLERANCE:g} is allowed)"
            )
        if self._trained:
            found.append("training")
        computed = (
            [f"Computed on the GPU {self._gpu_name}: {' and '.join(found)}."] if found else []
        )
        return [*computed, *self.notes]

    def find_gpu(self) -> bool:
        """Return whether the worker uses a GPU; start it, if it might.

        KindsightError where the device is ``"gpu"`` and cannot be used.
        """
        if self._try_gpu:
            with self._lock:
                try:
                    self._ready_worker(None)
                except BaseException:
                    self.close(kill=True)
                    raise
        return bool(self.gpu)

    def leave_gpu(self, reason: object) -> None:
        """Let jobs run on the CPU from now on, in another worker, and note the reason.

        KindsightError where the device is ``"gpu"``.
        """
        name, self.gpu = self.gpu, ""
        self.close(kill=True)
        # Of a worker's last output, the last line names the error.
        first, *more = str(reason).splitlines() or [""]
        text = " ".join([first, *more[-1:]])[:400].rstrip(".") + "."
        if self._device == "gpu":
            raise KindsightError(f'The GPU cannot be used: {text} Or use `device="cpu"`.')
        self._try_gpu = False
        self.notes.append(unused_note((name,) if name else visible_gpus(), text))

    def run_network(
        self, model: Path, pixels: NDArray[np.uint8], stage: str = ""
    ) -> NDArray[np.float32]:
        """Return the outputs of a backbone's Keras file for images, on the worker's device.

        Parameters
        ----------
        model : Path
            From pixels to one vector per image.
        pixels : array
            uint8 (n, height, width, 3), n >= 1.
        stage : str
            A layer whose flattened activations are returned instead.

        Returns
        -------
        array
            float32 (n, width).
        """
        with pixels_file(pixels) as file:
            out = file.with_name("out.npy")
            job = {
                "job": "network", "model": str(Path(model).resolve()), "stage": stage,
                "pixels": str(file), "out": str(out),
            }  # fmt: skip
            self._run(None, None, job)
            outputs: NDArray[np.float32] = np.load(out, allow_pickle=False)
        return outputs

    def run_in_background(
        self, pixels: Callable[[], NDArray[Any]] | None = None, **job: Any
    ) -> None:
        """Start a job whose result nobody waits for, and return at once.

        It is dropped when another job is waiting, and its errors are ignored: a later job that
        depends on it reports them. `pixels` returns images, which the job finds in the file
        ``pixels``.
        """
        # Not start(): that would wait for a background job that is running already.
        if (worker := self._worker) is None:
            worker = self.start()._worker
        if worker is None:  # closed by another thread
            return

        def run() -> None:
            with contextlib.suppress(Exception):
                if pixels is None:
                    self._run(None, worker, job)
                else:
                    with pixels_file(pixels()) as file:
                        self._run(None, worker, {**job, "pixels": str(file)})

        threading.Thread(target=run, name="kindsight-background-job", daemon=True).start()

    def load_ahead(self, model: Path) -> None:
        """Load a backbone's Keras file for :meth:`run_ahead`, in the background."""
        self.run_in_background(job="load", model=str(Path(model).resolve()))

    def run_ahead(self, model: Path, pixels: Callable[[], NDArray[Any]]) -> None:
        """Run a backbone's Keras file in the background on the images that `pixels` returns.

        A later :meth:`run` of the same images, with a classifier that contains this backbone,
        reuses the features.
        """
        self.run_in_background(pixels, job="ahead", model=str(Path(model).resolve()))

    def build(
        self,
        name: str,
        size: tuple[int, int],
        *,
        tflite: Path,
        keras: Path,
        weights: str = "imagenet",
        seed: int = 0,
        input_size: tuple[int, int] | None = None,
        fold_batch_norm: bool = True,
        layers: tuple[str, tuple[str | int, ...]] | None = None,
    ) -> dict[str, Any]:
        """Build a backbone's LiteRT and Keras files; see :func:`.build.ensure_backbone`.

        Returns ``"width"``, the number of features; ``"layout"``, as
        :meth:`.FeatureLayout.to_dict`; ``"difference"``, the largest one between the two files'
        features, as a fraction of the largest feature. SettingsError and WeightsError for a name,
        size, layers or weights that no backbone can be built from, ParityError when the two files
        differ, KindsightError when the worker fails.
        """
        return self.run_job(
            job="build", name=str(Path(name).resolve()) if name.endswith(".keras") else name,
            size=list(size), weights=weights, seed=seed,
            input_size=None if input_size is None else list(input_size),
            fold_batch_norm=fold_batch_norm, layers=layers,
            tflite=str(Path(tflite).resolve()), keras=str(Path(keras).resolve()),
        )  # fmt: skip

    def run(
        self, model: Path, pixels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        """Load a saved classifier with plain Keras and run images through it.

        `pixels` are uint8 or float32 (n, height, width, 3) with values 0-255, n >= 1; returned are
        the features, float32 (n, d), the logits, float32 (n, k), and the out-of-distribution
        scores, float32 (n,), or None. SettingsError for pixels of
        another shape; KindsightError when Keras cannot load or run the model, or the worker fails.
        """
        if np.ndim(pixels) != 4 or len(pixels) == 0:
            raise SettingsError(
                "`pixels` must have the shape (n, height, width, 3), n >= 1; "
                f"got {np.shape(pixels)}."
            )
        with pixels_file(pixels) as file:
            out = file.with_name("out.npz")
            self.run_job(
                job="run", model=str(Path(model).resolve()), pixels=str(file), out=str(out)
            )
            with np.load(out, allow_pickle=False) as arrays:
                scores = arrays["scores"]
                return arrays["features"], arrays["logits"], scores if len(scores) else None

    def close_in_background(self) -> None:
        """Let the worker end while other work continues; a later job starts another one."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with contextlib.suppress(KindsightError):
            worker.send({"job": "quit"})
        self._closing = threading.Thread(target=worker.close, name="kindsight-close", daemon=True)
        self._closing.start()

    def close(self, *, kill: bool = False) -> None:
        """End the worker if it was started; the next job starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            if not kill:
                worker.send({"job": "quit"})
            worker.close(kill=kill)
        if self._closing is not None:
            self._closing.join(STOP_SECONDS)
            self._closing = None

    def _started(self) -> WorkerProcess:
        if self._worker is None:
            self._ready = False
            if self._with_keras:
                require_tensorflow()
            environment = {**worker_environment(), **device_environment(self._try_gpu)}
            self._worker = WorkerProcess(self._module, environment, self._name)
        return self._worker

    def _ready_worker(self, background: WorkerProcess | None) -> WorkerProcess:
        """Return the worker once it is ready: another one, on the CPU, if its GPU is not usable."""
        worker = background or self._started()
        if self._ready:
            return worker
        try:
            started = _result("start", worker.receive("start", self.timeout), self._name)
            fault = started.get("gpu_fault", "")
        except WorkerEndedError as error:
            if not self._try_gpu:
                raise
            fault = str(error)
        if fault:
            self.leave_gpu(fault)
            return self._ready_worker(None)
        self.versions, self.gpu = started["versions"], started.get("gpu", "")
        self._gpu_name = self.gpu or self._gpu_name
        self._ready = True
        return worker

    def _run(
        self,
        on_message: Callable[[dict[str, Any]], None] | None,
        background: WorkerProcess | None,
        job: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Run a job; in the background only in the given worker and while no other job waits."""
        self._waiting += background is None
        with self._lock:
            self._waiting -= background is None
            if background is not None and background is not self._worker:
                return {}
            worker = background or self._started()
            try:
                worker = self._ready_worker(background)
                if background is not None and self._waiting:
                    return {}
                worker.send(job)
                message = worker.receive(job["job"], self.timeout)
                while "ok" not in message:
                    if on_message is not None:
                        on_message(message)
                    message = worker.receive(job["job"], self.timeout)
            except BaseException as error:
                if on_message is not None and not isinstance(error, KindsightError):
                    self.interrupted_twice = not _stop_job(worker, job["job"])
                # After an error, Ctrl-C or a timeout, the next message would belong to this job.
                self.close(kill=True)
                raise
        return _result(job["job"], message, self._name)


def require_tensorflow() -> None:
    """Raise an error that says how to install TensorFlow, where it is not installed."""
    _require("tensorflow")


def require_training_packages() -> None:
    """Raise an error that says how to install what training needs, where it is not installed.

    Not TensorFlow, without which a training on cached features works.
    """
    _require("keras")
    _require("h5py")


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is not None:
        return
    system, machine = platform.system(), platform.machine()
    if (system, machine) in WITHOUT_WHEELS:
        raise KindsightError(
            f"Training needs TensorFlow, which has no wheels for {system} on {machine}. Train on "
            "Linux, on a Mac with Apple silicon, or on Windows on x86-64."
        )
    raise MissingExtraError("Training", "train")


def _stop_job(worker: WorkerProcess, job: str) -> bool:
    """Ask a worker to stop and wait for it; return False if the user interrupts that, too."""
    worker.send({"job": "stop"})
    end = time.monotonic() + STOP_SECONDS
    try:
        # The job's result is not needed, and the worker is killed next.
        with contextlib.suppress(KindsightError):
            while "ok" not in worker.receive(job, max(0.0, end - time.monotonic())):
                pass
    except KeyboardInterrupt:
        return False
    return True


def _result(job: str, message: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a job's result, or raise the error that it reports."""
    if message["ok"]:
        return message
    # Seen in a traceback, such as that of --debug.
    cause = RuntimeError(f"in the worker process:\n{message.get('traceback', '')}")
    kind = _TYPED_ERRORS.get(message["error"])
    if kind is not None:
        raise kind(message["message"]) from cause
    reason = next(iter(str(message["message"]).splitlines()), "")[:300]
    raise KindsightError(
        f"The job {job!r} failed in the {name}: {message['error']}: {reason}"
    ) from cause


@contextlib.contextmanager
def pixels_file(pixels: NDArray[Any]) -> Iterator[Path]:
    """Write images to a file in a temporary folder, for a job to read."""
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        file = Path(folder, "pixels.npy")
        np.save(file, pixels, allow_pickle=False)
        yield file


def worker_environment() -> dict[str, str]:
    """Return environment variables for the worker; the user's own take precedence."""
    return {
        "KERAS_BACKEND": "tensorflow",
        # Off by default on some processors, where it makes convolutions twice as fast.
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }
