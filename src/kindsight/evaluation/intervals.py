"""How far a share that was counted can be relied on."""

from __future__ import annotations

import math
from statistics import NormalDist

from kindsight.errors import UsageError

__all__ = ["wilson_interval"]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give the Wilson score interval of a share, without continuity correction.

    Parameters
    ----------
    successes : int
        How many of the trials succeeded, 0 to `n`.
    n : int
        How many trials there were. With none, nothing is known: the interval is (0, 1).
    confidence : float
        Between 0 and 1, both excluded.

    Returns
    -------
    tuple of float
        The lower and the upper end, within 0-1. The lower end is exactly 0 when nothing
        succeeded, the upper end exactly 1 when everything did.

    Raises
    ------
    UsageError
        If the counts or the confidence are out of range.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not 0 <= successes <= n:
        raise UsageError(
            f"successes must be between 0 and n. Received: successes={successes}, n={n}"
        )
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"confidence must be between 0 and 1. Received: {confidence}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # the ends are exact there; rounding would leave 1e-17 of nothing
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high
