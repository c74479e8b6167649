"""What goes between the process with Keras and its parent: settings, images, answers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import (
    CacheError,
    KindsightError,
    ParityError,
    SettingsError,
    WeightsError,
)
from kindsight.models.backbones.weights import WEIGHTS

__all__ = ["absolute", "accept", "handed_over", "settings"]

_RAISED_AS_THEY_WERE = {
    kind.__name__: kind for kind in (ParityError, CacheError, SettingsError, WeightsError)
}


@contextlib.contextmanager
def handed_over(pixels: NDArray[Any]) -> Iterator[Path]:
    """Write images to a folder that goes again."""
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        given = Path(folder, "pixels.npy")
        np.save(given, pixels, allow_pickle=False)
        yield given


def absolute(weights: str | Path | None) -> str:
    """Name weights so that the child finds them, whatever folder it is in."""
    text = "imagenet" if weights is None else str(weights)
    return text if text in WEIGHTS else str(Path(text).resolve())


def settings() -> dict[str, str]:
    """Return environment variables for the child; the user's own win where both would do."""
    return {
        "KERAS_BACKEND": "tensorflow",
        # Off by default on some processors, where it makes convolutions twice as fast.
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }


def accept(job: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer, or raise the error that it tells of."""
    if answer["ok"]:
        return answer
    kind = _RAISED_AS_THEY_WERE.get(answer["error"])
    if kind is not None:
        raise kind(answer["message"])
    raise KindsightError(
        f"The process with Keras must be able to do its job {job!r}. Received: "
        f"{answer['error']}: {answer['message']}"
    )
