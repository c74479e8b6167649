"""Confidence intervals of proportions."""

from __future__ import annotations

import math
from statistics import NormalDist

from kindsight.errors import UsageError

__all__ = ["wilson_interval"]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends, 0-1, of the Wilson score interval of a proportion.

    There is no continuity correction. The lower end is exactly 0 without successes, the upper one
    exactly 1 without failures; with `n` = 0 the interval is (0, 1). Raises `UsageError` if the
    counts are out of range or `confidence` is not above 0 and below 1.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not 0 <= successes <= n:
        raise UsageError(
            f"`successes` must be between 0 and `n`; got successes={successes}, n={n}."
        )
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"`confidence` must be above 0 and below 1; got {confidence}.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    proportion = successes / n
    centre = proportion + z * z / (2 * n)
    half = z * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # These ends are exact; rounding would leave 1e-17.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high
