"""The sections of the main benchmark: functions that take fixtures and return a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fixtures import Fixtures
from output import Section
from sections import accuracy, memory, prediction, rivals, training

__all__ = ["NEED_CATS_DOGS", "SECTIONS"]

SECTIONS: Mapping[str, Callable[[Fixtures], Section]] = {
    "accuracy": accuracy.measure,
    "train": training.measure,
    "rivals": rivals.measure,
    "predict": prediction.measure,
    "memory": memory.measure,
}
"""By the names of ``--only``, in the order in which they run."""

NEED_CATS_DOGS = ("train", "rivals", "predict", "memory")
"""Sections that need ``--cats-dogs``."""
