from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slam_app.stats import intervals
from slam_app.stats.intervals import Interval, clustered_mean_interval


def plain_bootstrap(values: list[float], clusters: list[str], draws: int, seed: int) -> tuple[float, float]:
    """The same method in plain Python: draw raters with replacement, average all their ratings."""
    by_rater = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        by_rater[cluster].append(value)
    raters = sorted(by_rater)
    rng = random.Random(seed)
    means = []
    for _ in range(draws):
        ratings = [v for _ in raters for v in by_rater[rng.choice(raters)]]
        means.append(sum(ratings) / len(ratings))
    means.sort()
    return means[round(0.025 * (draws - 1))], means[round(0.975 * (draws - 1))]


def study(rng: np.random.Generator, raters: int, each: int, spread: float) -> tuple[list[float], list[str]]:
    """Ratings around 6 whose raters differ by `spread` (standard deviation), noise 1."""
    leanings = np.repeat(rng.normal(0, spread, raters), each)
    values = 6 + leanings + rng.normal(0, 1, raters * each)
    return values.tolist(), [f"rater {i // each}" for i in range(raters * each)]


def test_it_agrees_with_a_plain_loop_on_raters_of_unequal_diligence() -> None:
    values, clusters = study(np.random.default_rng(7), raters=12, each=10, spread=0.8)
    del values[3:40:3], clusters[3:40:3]

    interval = clustered_mean_interval(values, clusters, resamples=20_000, seed=1)

    low, high = plain_bootstrap(values, clusters, draws=20_000, seed=2)
    assert (interval.n, interval.clusters) == (len(values), 12)
    assert interval.mean == pytest.approx(sum(values) / len(values))
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def covers(interval: Interval) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= 6 <= interval.high


def test_drawing_raters_covers_the_truth_where_drawing_rows_does_not() -> None:
    # 20 raters of 15 ratings; the spread gives an intraclass correlation of 0.11.
    rng = np.random.default_rng(3)
    by_rater = by_row = 0
    for seed in range(300):
        values, clusters = study(rng, raters=20, each=15, spread=0.35)
        by_rater += covers(clustered_mean_interval(values, clusters, resamples=400, seed=seed))
        by_row += covers(clustered_mean_interval(values, range(300), resamples=400, seed=seed))
    assert 0.89 <= by_rater / 300 <= 0.97
    assert by_row / 300 <= 0.84


def test_the_same_seed_gives_the_same_interval_however_the_draws_are_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, clusters = study(np.random.default_rng(5), raters=9, each=4, spread=1)
    whole = clustered_mean_interval(values, clusters, seed=11)
    assert clustered_mean_interval(values, clusters, seed=11) == whole
    assert clustered_mean_interval(values, clusters, seed=12) != whole
    monkeypatch.setattr(intervals, "_BLOCK", 100)
    assert clustered_mean_interval(values, clusters, seed=11) == whole


def test_one_rater_gives_a_mean_but_no_interval() -> None:
    assert clustered_mean_interval([4, 8], ["a", "a"], seed=1) == Interval(
        n=2, clusters=1, mean=6, low=None, high=None, reason="All ratings are by one rater; ask at least two."
    )


def test_a_higher_level_gives_a_wider_interval() -> None:
    values, clusters = study(np.random.default_rng(5), raters=15, each=4, spread=1)
    wide = clustered_mean_interval(values, clusters, seed=1, level=0.99)
    narrow = clustered_mean_interval(values, clusters, seed=1, level=0.8)
    assert (wide.level, narrow.level) == (0.99, 0.8)
    assert wide.low is not None and narrow.low is not None
    assert wide.high is not None and narrow.high is not None
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "clusters", "options", "message"),
    [
        ([], [], {}, "0 values"),
        ([1.0, 2.0], ["a"], {}, "2 values for 1 clusters"),
        ([1.0, float("nan")], ["a", "b"], {}, "finite"),
        ([1.0, float("inf")], ["a", "b"], {}, "finite"),
        ([1.0, 2.0], ["a", "b"], {"level": 95}, "between 0 and 1"),
    ],
)
def test_input_that_has_no_mean_is_refused(
    values: list[float], clusters: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        clustered_mean_interval(values, clusters, seed=1, **options)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.sampled_from("abcde")), min_size=2, max_size=40),
    st.randoms(use_true_random=False),
)
def test_the_interval_lies_within_the_raters_means(rows: list[tuple[int, str]], rng: random.Random) -> None:
    values, raters = zip(*rows, strict=True)
    interval = clustered_mean_interval(values, raters, seed=rng.randrange(1000), resamples=100)
    by_rater = [np.mean([v for v, r in rows if r == rater]) for rater in set(raters)]
    assert (interval.n, interval.clusters) == (len(rows), len(by_rater))
    if interval.low is not None and interval.high is not None:
        assert min(by_rater) - 1e-9 <= interval.low <= interval.high <= max(by_rater) + 1e-9
