"""The parts of the main job's benchmark, each a function from a workshop to a section."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from common import Section
from parts import accuracy, memory, predicting, rivalry, training
from workshop import Workshop

__all__ = ["NEEDS_CATS_DOGS", "PARTS"]

PARTS: Mapping[str, Callable[[Workshop], Section]] = {
    "accuracy": accuracy.measure,
    "train": training.measure,
    "rivals": rivalry.measure,
    "predict": predicting.measure,
    "memory": memory.measure,
}
"""By the names that ``--only`` takes, in the order in which they are run."""

NEEDS_CATS_DOGS = ("train", "rivals", "predict", "memory")
"""The parts that cannot be run without these images."""
