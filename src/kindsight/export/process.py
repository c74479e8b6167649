"""The processes that run converters and runtimes.

A converter may end its process, print, or change settings of a library: never in the user's own.
"""

from __future__ import annotations

from kindsight.models.worker.process import KerasProcess

__all__ = ["converter_process"]

TIMEOUT = 3600.0
"""Most seconds of one job: large networks on slow machines take minutes."""


def converter_process(*, with_keras: bool = False) -> KerasProcess:
    """Return a process with the jobs of :mod:`.converters`, or those of :mod:`.keras_jobs`."""
    module = "keras_jobs" if with_keras else "converters"
    return KerasProcess(
        TIMEOUT, module=f"kindsight.export.{module}", name="converter process",
        with_keras=with_keras,
    )  # fmt: skip
