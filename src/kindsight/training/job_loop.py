"""A training as a job of the process with Keras: its checkpoint, and its loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kindsight.models.keras_child import Line
from kindsight.training.checkpoints import Checkpoint, CheckpointWriter, read_checkpoint
from kindsight.training.learner import Learner, Lessons
from kindsight.training.loop import Loop
from kindsight.training.plan import Plan

__all__ = ["checkpoint_of", "run_loop", "shards_of"]


def checkpoint_of(job: dict[str, Any]) -> Checkpoint | None:
    """Return where a job is to go on from; None for its beginning."""
    path = _path(job)
    return None if path is None else read_checkpoint(path, job["key"])


def shards_of(checkpoint: Checkpoint | None, cores: int) -> int:
    """Return in how many shards batches are computed: as before a stop, whatever cores there are.

    Sums are rounded differently with another number.
    """
    known = 0 if checkpoint is None else int(checkpoint.numbers.get("shards", 0))
    return known if known > 0 else cores


def run_loop(
    job: dict[str, Any],
    line: Line,
    plan: Plan,
    lessons: Lessons | Sequence[Lessons],
    learner: Learner,
    *,
    extra: dict[str, Any],
    checkpoint: Checkpoint | None,
    until: float | None = None,
) -> None:
    """Train, and say that what was learned is being written.

    Parameters
    ----------
    job : dict
        As the parent told it.
    line : Line
        Where news go, and the wish to stop comes from.
    plan, lessons, learner, extra
        As :class:`.loop.Loop` takes them.
    checkpoint, until
        As :meth:`.loop.Loop.run` takes them.
    """
    with CheckpointWriter(_path(job), job["checkpoint_seconds"]) as writer:
        Loop(
            plan,
            lessons,
            learner,
            seed=job["seed"],
            key=job["key"],
            writer=writer,
            tell=line.tell,
            stop=line.stop,
            workers=job["workers"],
            extra=extra,
        ).run(checkpoint, until)
    line.tell({"event": "saving"})


def _path(job: dict[str, Any]) -> Path | None:
    return None if job["checkpoint"] is None else Path(job["checkpoint"])
