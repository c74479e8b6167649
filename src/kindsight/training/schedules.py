"""The learning rate, step by step."""

from __future__ import annotations

import math

__all__ = ["SCHEDULES", "learning_rate"]

SCHEDULES = ("constant", "cosine", "one-cycle")
"""``cosine``: falls to 0 on half a cosine (Loshchilov & Hutter 2017). ``one-cycle``: rises from a
25th, then falls to a 10,000th, both on half a cosine (Smith & Topin 2018)."""

RISE = 0.3
START, END = 1 / 25, 1e-4


def learning_rate(schedule: str, highest: float, warmup: float, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    schedule : str
        One of :data:`SCHEDULES`.
    highest : float
        The rate that is meant by a phase's learning rate.
    warmup : float
        How many of the steps the rate takes to rise: from nothing in a straight line, or as
        ``one-cycle`` rises, where 0 stands for three tenths of all steps.
    step : int
        From 0.
    steps : int
        How many the phase has.

    Returns
    -------
    float
        Above 0, and at most `highest`.
    """
    if schedule == "one-cycle":
        warmup = warmup or RISE * steps
        if step < warmup:
            return highest * _cosine(START, 1.0, step / warmup)
        return highest * _cosine(1.0, END, (step - warmup) / max(1.0, steps - warmup))
    if step < warmup:
        return highest * (step + 1) / (warmup + 1)
    if schedule == "cosine":
        # The last step is the last that changes anything: 0 is reached after it.
        return highest * _cosine(1.0, 0.0, (step - warmup) / max(1.0, steps - warmup))
    return highest


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
