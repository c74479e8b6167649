"""The process with Keras of a fine-tuning.

Started by :class:`kindsight.models.keras_process.KerasProcess` with this module, never by hand. All
that it computes is computed in shards, each on a core of its own: a seventh more pictures a second
than with each operation on all cores, one after the other.
"""

from __future__ import annotations

from kindsight.models.keras_child import serve
from kindsight.models.trainer import set_threads
from kindsight.threads import count_cores
from kindsight.training.tune_job import TUNE_JOBS

__all__ = ["main"]


def main() -> None:
    """Answer jobs until told to quit."""
    serve(TUNE_JOBS, lambda: set_threads(count_cores(), sharded=True))
