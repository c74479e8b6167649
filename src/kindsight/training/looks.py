"""How often a fine-tuned network may look at a picture: over as many flips as there is time for."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from kindsight.catalog.store import StoredPictures
from kindsight.runtime import InterpreterPool
from kindsight.threads import map_ordered
from kindsight.training.tune_work import FineTuning

__all__ = ["allow_looks"]

# The share of the time left for training that looks after the first may take.
LOOKING = 0.1
# Pictures by which the backbone's pace is measured: half a second or more.
MEASURED = 96


def allow_looks(work: FineTuning, stored: StoredPictures, most: int) -> FineTuning:
    """Measure how long a look takes, and say over how many flips there is time to answer.

    Parameters
    ----------
    work : FineTuning
        Without a budget it stays as it is: one look.
    stored : StoredPictures
        The pictures.
    most : int
        How many flips there are.
    """
    if work.seconds is None:
        return work
    work = replace(work, look_seconds=_measured(work, stored))
    before = work.decided().get("looks")
    if type(before) is int and 1 <= before <= most:  # the same as before a stop
        return replace(work, looks=before)
    one, left = work.answering(), work.left()
    assert left is not None
    for looks in range(most, 1, -1):
        if (more := replace(work, looks=looks)).answering() - one <= LOOKING * left:
            break
    else:
        more = work
    work.decide(looks=more.looks)
    return more


def _measured(work: FineTuning, stored: StoredPictures) -> float:
    """Return for how many seconds the network that is tuned looks at a picture."""
    pool = InterpreterPool(work.fitted.files.tflite, work.fitted.training.workers)
    pictures = stored.pixels(np.arange(min(MEASURED, len(stored))))
    # The first of each interpreter takes longer.
    list(map_ordered(pool.run, pictures[: pool.workers], pool.workers))
    began = time.monotonic()
    list(map_ordered(pool.run, pictures, pool.workers))
    return max(1e-9, (time.monotonic() - began) / len(pictures))
