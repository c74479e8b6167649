"""LiteRT: its interpreter and the schema of its files, wherever this machine has them.

``ai-edge-litert`` is small and starts fast. Where there is no build of it, TensorFlow carries the
same two things; taking them from there costs the start of TensorFlow.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError

__all__ = ["MAX_MODEL_BYTES", "make_interpreter", "schema"]

MAX_MODEL_BYTES = 2**30

_first = threading.Lock()
_greeted = threading.Event()


def make_interpreter(model: Path | bytes, threads: int = 1) -> Any:
    """Open a model file of LiteRT, its tensors allocated.

    Parameters
    ----------
    model : Path or bytes
        A file, or what is in it. A file is mapped into memory, not copied.
    threads : int
        How many threads one image may use.

    Returns
    -------
    ai_edge_litert.interpreter.Interpreter
        Or TensorFlow's own, of the same methods.

    Raises
    ------
    WeightsError
        For a file that is absent, damaged, or uses what LiteRT does not have.
    """
    try:
        interpreter_class = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        interpreter_class = importlib.import_module("tensorflow").lite.Interpreter
    try:
        source = {"model_content": model} if isinstance(model, bytes) else _source(model)
        with _greeting_hidden():
            interpreter = interpreter_class(num_threads=threads, **source)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        what = "These bytes" if isinstance(model, bytes) else str(model)
        raise WeightsError(
            f"{what}: A model file must be one that LiteRT can run. Received: {error}"
        ) from None
    return interpreter


def _source(model: Path) -> dict[str, Any]:
    """Name a file for LiteRT, which takes names of Unicode only: others it is given the content."""
    try:
        return {"model_path": str(model.absolute()).encode().decode()}
    except UnicodeEncodeError:
        with model.open("rb") as file:
            return {"model_content": file.read(MAX_MODEL_BYTES)}


@contextmanager
def _greeting_hidden() -> Iterator[None]:
    """Keep LiteRT's "Created XNNPACK delegate" off the terminal, which no setting of it does.

    It is written once in a process, straight to the file descriptor of standard error.
    """
    if _greeted.is_set():
        yield
        return
    with _first:
        try:
            kept = os.dup(2)
        except OSError:  # No standard error: a program without a terminal.
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (devnull is no Path's)
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            _greeted.set()


def schema() -> Any:
    """Return the module that reads and writes the parts of LiteRT's files."""
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError:
        return importlib.import_module("tensorflow.lite.python.schema_py_generated")
