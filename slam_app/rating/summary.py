"""What the finished sets of a study say of each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from slam_app.stats.intervals import clustered_mean_interval


def by_model(
    rows: Sequence[Mapping[str, Any]], incumbent_id: int | None, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, str | None]:
    """The ratings that count, a table of means, and the incumbent's label if it was rated.

    Args:
        rows: those of `store.studies.ratings`; unfinished sets are left out here.
        seed: of the bootstrap, so that a page shows the same interval twice.

    Returns:
        ratings with columns model, value, slot; means with columns model, role, mean, low, high
        (95 % of 1,000 resamples of raters), ratings, raters: the incumbent first, then by mean.
        Both are empty when no set is complete.
    """
    rows = [row for row in rows if row["complete"]]
    if not rows:
        return pd.DataFrame(), pd.DataFrame(), None
    ratings = pd.DataFrame(rows)
    labels = _labels(rows)
    ratings["model"] = ratings["model_id"].map(labels)
    incumbent = labels.get(incumbent_id) if incumbent_id is not None else None
    means = pd.DataFrame(
        [_summary(str(model), group, incumbent, seed) for model, group in ratings.groupby("model")]
    )
    means = means.sort_values("mean", ascending=False)
    means = means.sort_values("role", key=lambda role: role != "incumbent", kind="stable")
    return ratings[["model", "value", "slot"]], means.reset_index(drop=True), incumbent


def _labels(rows: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Names of models by id; with the connection where two share a name."""
    models = {row["model_id"]: (row["model"], row["connection"]) for row in rows}
    times = Counter(name for name, _ in models.values())
    return {
        model_id: f"{name} ({connection})" if times[name] > 1 else name
        for model_id, (name, connection) in models.items()
    }


def _summary(model: str, group: pd.DataFrame, incumbent: str | None, seed: int) -> dict[str, Any]:
    interval = clustered_mean_interval(group["value"].tolist(), group["slot"].tolist(), seed=seed)
    return {
        "model": model,
        "role": "incumbent" if model == incumbent else "candidate",
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "ratings": interval.n,
        "raters": interval.clusters,
    }
