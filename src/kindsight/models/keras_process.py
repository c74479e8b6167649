"""Keras in a process of its own.

Importing TensorFlow takes seconds and a few hundred megabytes, and most of what kindsight does
needs none of it. What does (building a backbone once, proving that a written Keras file loads
and answers) is handed to a child process, which can start while other work goes on.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import (
    KindsightError,
    SettingsError,
)
from kindsight.models.child_process import ChildProcess
from kindsight.models.feature_maps import MAX_LAYERS, MAX_MAPS, LayerMaps, read_maps
from kindsight.models.keras_messages import absolute, accept, handed_over, settings

__all__ = ["KerasProcess"]

STOP_SECONDS = 15.0

_MODULE = "kindsight.models.keras_child"


class KerasProcess:
    """A child process with Keras, started when first needed; a context manager.

    Parameters
    ----------
    timeout : float
        Most seconds that one job may take, and the start of TensorFlow; where a job sends news,
        most seconds from one piece of news to the next.
    module : str, optional
        The module whose ``main`` the child runs, where it knows more jobs than this one's.

    Attributes
    ----------
    versions : mapping of str to str
        Of Keras and TensorFlow, once a job has been done.
    ran_ahead : bool
        Whether the last :meth:`run` found the pictures' features known from :meth:`run_ahead`.

    Notes
    -----
    Jobs of several threads are done one after the other. The child ends with the ``with`` block,
    with this object, or with this process, whichever comes first, even if that is killed.
    """

    def __init__(self, timeout: float = 600.0, *, module: str | None = None) -> None:
        self.timeout = timeout
        self._module = module or _MODULE
        self.versions: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._leaving: threading.Thread | None = None
        self._waiting = 0
        self._ready = False
        self.ran_ahead = False

    def __enter__(self) -> KerasProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(kill=kind is not None)

    def start(self) -> KerasProcess:
        """Start the child and return at once; TensorFlow's import goes on meanwhile.

        Raises
        ------
        KindsightError
            Where no process can be started.
        """
        with self._lock:
            self._started()
        return self

    def load_ahead(self, model: Path) -> None:
        """Have a frozen network loaded for :meth:`run_ahead`, and return at once.

        Parameters
        ----------
        model : Path
            A backbone's Keras file.
        """
        self._ahead(job="load", model=str(Path(model).resolve()))

    def run_ahead(self, model: Path, pixels: Callable[[], NDArray[Any]]) -> None:
        """Have a frozen network run on pictures, and return at once.

        When :meth:`run` is asked for the same pictures later, with a network that holds this one,
        its features are known. What goes wrong is of no matter: that job will say so.

        Parameters
        ----------
        model : Path
            A backbone's Keras file.
        pixels : callable
            Gives the pictures as :meth:`run` takes them.
        """
        self._ahead(pixels, job="ahead", model=str(Path(model).resolve()))

    def _ahead(self, pixels: Callable[[], NDArray[Any]] | None = None, **job: Any) -> None:
        """Have a job done that nobody waits for."""
        # Not start(): that would wait for what is being done ahead already.
        if (child := self._child) is None:
            child = self.start()._child
        if child is None:  # closed meanwhile
            return

        def work() -> None:
            # Whatever it is: the job that needs what was to be done ahead says so.
            with contextlib.suppress(Exception):
                if pixels is None:
                    self._request(child=child, **job)
                else:
                    with handed_over(pixels()) as given:
                        self._request(child=child, **job, pixels=str(given))

        threading.Thread(target=work, name="kindsight-ahead", daemon=True).start()

    def dismiss(self) -> None:
        """Let the child end while other work goes on; a later job starts another one."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(KindsightError):
            child.send({"job": "quit"})
        self._leaving = threading.Thread(target=child.close, name="kindsight-dismiss", daemon=True)
        self._leaving.start()

    def build(
        self,
        name: str,
        size: tuple[int, int],
        *,
        tflite: Path,
        keras: Path,
        weights: str | Path | None = None,
        seed: int = 0,
        given: tuple[int, int] | None = None,
        folded: bool = True,
    ) -> dict[str, Any]:
        """Build a backbone's LiteRT and Keras files; see :func:`.build.ensure_backbone`.

        Returns
        -------
        dict
            ``"width"``: how many features; ``"layout"``: which they are, as
            :meth:`.FeatureLayout.to_dict` gives it; ``"difference"``: the largest between the two
            files' features, as a share of the largest.

        Raises
        ------
        SettingsError, WeightsError
            As :func:`.backbones.get_backbone` and :func:`.weights.load_state`.
        AgreementError
            Where the two files do not give the same features.
        KindsightError
            Where the child fails.
        """
        return self._request(
            job="build",
            name=str(Path(name).resolve()) if name.endswith(".keras") else name,
            size=list(size),
            weights=absolute(weights),
            seed=seed,
            given=None if given is None else list(given),
            folded=folded,
            tflite=str(Path(tflite).resolve()),
            keras=str(Path(keras).resolve()),
        )

    def run(
        self, model: Path, pixels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Load a saved classifier with plain Keras and run pictures through it.

        Parameters
        ----------
        model : Path
            As :func:`.assemble.write_keras` writes it.
        pixels : uint8 or float32 array (n, height, width, 3)
            Values 0-255; n is at least 1.

        Returns
        -------
        features : float32 array (n, d)
        logits : float32 array (n, k)

        Raises
        ------
        SettingsError
            For pixels of another shape.
        KindsightError
            Where Keras cannot load or run the model, or the child fails.
        """
        if np.ndim(pixels) != 4 or len(pixels) == 0:
            raise SettingsError(
                "The pixels must be of shape (n, height, width, 3), with n of 1 or more. "
                f"Received: {np.shape(pixels)}."
            )
        with handed_over(pixels) as given:
            out = given.with_name("out.npz")
            answer = self._request(
                job="run", model=str(Path(model).resolve()), pixels=str(given), out=str(out)
            )
            self.ran_ahead = bool(answer.get("ahead"))
            with np.load(out, allow_pickle=False) as arrays:
                return arrays["features"], arrays["logits"]

    def maps(
        self,
        model: Path,
        pixels: NDArray[np.uint8],
        *,
        max_layers: int = MAX_LAYERS,
        max_maps: int = MAX_MAPS,
    ) -> tuple[list[LayerMaps], list[str]]:
        """Run one picture through a saved network; see :func:`.feature_maps.collect_maps`.

        Raises
        ------
        SettingsError
            For pixels of another shape.
        KindsightError
            Where Keras cannot load or run the model, the model has no layers with maps, or the
            child fails.
        """
        if np.ndim(pixels) != 3 or not np.size(pixels):
            raise SettingsError(
                "The pixels must be of one picture, (height, width, 3). "
                f"Received: {np.shape(pixels)}."
            )
        with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
            given, out = Path(folder, "pixels.npy"), Path(folder, "out.npz")
            np.save(given, pixels, allow_pickle=False)
            answer = self._request(
                job="maps",
                model=str(Path(model).resolve()),
                pixels=str(given),
                out=str(out),
                max_layers=max_layers,
                max_maps=max_maps,
            )
            return read_maps(answer["layers"], out), answer["left_out"]

    def follow(self, hear: Callable[[dict[str, Any]], None], **job: Any) -> dict[str, Any]:
        """Have a job done that sends news before its answer.

        Parameters
        ----------
        hear : callable
            Given each piece of news, on this thread. When it raises, or Ctrl-C comes, the child is
            asked to stop and has :data:`STOP_SECONDS` to leave its work in order.
        **job
            ``job``, the job's name, and what JSON can hold.

        Raises
        ------
        KindsightError
            Where the child fails.
        """
        return self._request(hear, **job)

    def close(self, *, kill: bool = False) -> None:
        """End the child, if it was started; the next job starts another."""
        child, self._child = self._child, None
        if child is not None:
            if not kill:
                child.send({"job": "quit"})
            child.close(kill=kill)
        if self._leaving is not None:
            self._leaving.join(STOP_SECONDS)
            self._leaving = None

    def _started(self) -> ChildProcess:
        if self._child is None:
            self._ready = False
            self._child = ChildProcess(self._module, settings())
        return self._child

    def _request(
        self,
        hear: Callable[[dict[str, Any]], None] | None = None,
        child: ChildProcess | None = None,
        **job: Any,
    ) -> dict[str, Any]:
        """Send one job and wait for its answer.

        With `child`, the job is for that one alone, and only while no other job waits for it.
        """
        ahead = child
        self._waiting += ahead is None
        with self._lock:
            self._waiting -= ahead is None
            if ahead is not None and ahead is not self._child:
                return {}
            child = ahead or self._started()
            try:
                if not self._ready:
                    self.versions = accept("start", child.receive("start", self.timeout))[
                        "versions"
                    ]
                    self._ready = True
                if ahead is not None and self._waiting:
                    return {}
                child.send(job)
                answer = child.receive(job["job"], self.timeout)
                while "ok" not in answer:
                    if hear is not None:
                        hear(answer)
                    answer = child.receive(job["job"], self.timeout)
            except BaseException as error:
                if hear is not None and not isinstance(error, KindsightError):
                    _let_stop(child, job["job"])
                # Whatever stopped the wait (its end, Ctrl-C, the time), the next answer to come
                # would belong to this job.
                self.close(kill=True)
                raise
        return accept(job["job"], answer)


def _let_stop(child: ChildProcess, job: str) -> None:
    """Ask the child to stop, and give it the time to."""
    child.send({"job": "stop"})
    end = time.monotonic() + STOP_SECONDS
    # A second Ctrl-C ends the waiting, too.
    with contextlib.suppress(KindsightError, KeyboardInterrupt):
        while "ok" not in child.receive(job, max(0.0, end - time.monotonic())):
            pass
