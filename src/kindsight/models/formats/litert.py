"""LiteRT's interpreter and file schema, from ai-edge-litert or TensorFlow.

``ai-edge-litert`` is small and starts fast. Where it has no build, the same two come from
TensorFlow, which takes seconds to import.
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

_first_interpreter = threading.Lock()
_message_printed = threading.Event()


def make_interpreter(model: Path | bytes, threads: int = 1) -> Any:
    """Return an interpreter of a LiteRT file, or of its content, with its tensors allocated.

    TensorFlow's interpreter has the same methods. WeightsError for a file that is missing, damaged,
    or uses unsupported operators.
    """
    try:
        interpreter_class = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        interpreter_class = importlib.import_module("tensorflow").lite.Interpreter
    try:
        source = {"model_content": model} if isinstance(model, bytes) else _source(model)
        with _delegate_message_hidden():
            interpreter = interpreter_class(num_threads=threads, **source)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        name = "the model" if isinstance(model, bytes) else str(model)
        raise WeightsError(f"LiteRT cannot run {name}: {error}") from None
    return interpreter


def _source(model: Path) -> dict[str, Any]:
    """Return the path of a model, or its content if the path is not Unicode, as LiteRT requires."""
    try:
        return {"model_path": str(model.absolute()).encode().decode()}
    except UnicodeEncodeError:
        with model.open("rb") as file:
            return {"model_content": file.read(MAX_MODEL_BYTES)}


@contextmanager
def _delegate_message_hidden() -> Iterator[None]:
    """Hide "Created XNNPACK delegate", which LiteRT writes once per process to descriptor 2."""
    if _message_printed.is_set():
        yield
        return
    with _first_interpreter:
        try:
            stderr = os.dup(2)
        except OSError:  # a program without a standard error
            yield
            return
        try:
            with open(os.devnull, "wb") as null:  # noqa: PTH123 - devnull is not a path on Windows
                os.dup2(null.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            _message_printed.set()


def schema() -> Any:
    """Return the generated module that reads and writes LiteRT's file format."""
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError:
        return importlib.import_module("tensorflow.lite.python.schema_py_generated")
