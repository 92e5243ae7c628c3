"""Figures from tables. No text or background colours here: the page (or the report) brings its theme."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

MAX_POINTS = 30
"""Up to this many scores per model, each is drawn as a point beside being summed up in the box."""

MAX_WRAPPED = 8
"""With more models than this, labels have one line: on a phone, turned lines would run into each other."""

_LINE = 16
_ONE_LINE = 28

# Okabe and Ito's palette, whose hues colour-blind people can tell apart; these three have a contrast of
# at least 3:1 on white and on near-black.
_CANDIDATE = "#0072B2"
_INCUMBENT = "#D55E00"
_MEAN = "#009E73"
_GRID = "rgba(128, 128, 128, 0.3)"
_TRANSPARENT = "rgba(0, 0, 0, 0)"


def score_boxes(
    ratings: pd.DataFrame, means: pd.DataFrame, incumbent: str | None, scale_max: int
) -> go.Figure:
    """One box of human scores per model, and a line of their means with intervals (figure 8 of the paper).

    The box spans the middle half of the scores with the median inside, its whiskers all of them.

    Args:
        ratings: one row per score; columns `model`, `value`.
        means: one row per model; columns `model`, `mean`, `low`, `high` (both missing: no interval).
        incumbent: the model drawn first; the others follow by falling mean.
        scale_max: top of the scale, which starts at 0.

    Raises ValueError when a model stands in one table only.
    """
    scores = {str(model): group.to_numpy(dtype=float) for model, group in ratings.groupby("model")["value"]}
    table = means.set_index("model").sort_values("mean", ascending=False, kind="stable")
    if lonely := set(scores) ^ set(table.index):
        raise ValueError(f"models with scores or a mean, but not both: {', '.join(sorted(lonely))}")
    order = sorted(table.index, key=lambda model: model != incumbent)  # stable: keeps the means' order

    figure = go.Figure()
    shown: set[str] = set()
    for model in order:
        group = "Incumbent" if model == incumbent else "Candidates"
        colour = _INCUMBENT if model == incumbent else _CANDIDATE
        values = scores[model]
        # The statistics are computed here, so that a chart of a million scores stays small.
        low, q1, median, q3, high = pd.Series(values).quantile([0, 0.25, 0.5, 0.75, 1])
        few = len(values) <= MAX_POINTS
        figure.add_box(
            x=[model],
            name=group,
            legendgroup=group,
            showlegend=group not in shown,
            lowerfence=[low],
            q1=[q1],
            median=[median],
            q3=[q3],
            upperfence=[high],
            y=[values.tolist()] if few else None,
            boxpoints="all" if few else False,
            pointpos=0,
            jitter=0.5,
            marker={"color": colour, "size": 5, "opacity": 0.6},
            line={"color": colour},
            hoverinfo="y",
        )
        shown.add(group)
    if order:
        figure.add_scatter(**_mean_line(table.loc[order], {model: len(scores[model]) for model in order}))
    else:
        figure.add_annotation(text="No scores yet", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")

    labels = [_label(model, len(scores[model]), narrow=len(order) > MAX_WRAPPED) for model in order]
    return _styled(figure, order, labels, f"Score, 0 to {scale_max}", (0.0, float(scale_max)))


def _mean_line(table: pd.DataFrame, n: dict[str, int]) -> dict[str, Any]:
    hover = []
    models = [str(model) for model in table.index]
    mean, low, high = (table[column].astype(float) for column in ("mean", "low", "high"))
    for model, centre, bottom, top in zip(models, mean, low, high, strict=True):
        interval = "no interval" if pd.isna(bottom) else f"{bottom:.2f} to {top:.2f}"
        hover.append(f"{html.escape(model)}<br>mean {centre:.2f} ({interval})<br>n = {n[model]:,}")
    return {
        "x": models,
        "y": mean.tolist(),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": (high - mean).fillna(0.0).tolist(),
            "arrayminus": (mean - low).fillna(0.0).tolist(),
            "thickness": 2,
        },
        "mode": "lines+markers",
        "name": "Mean with interval",
        "marker": {"symbol": "diamond", "size": 10, "color": _MEAN},
        "line": {"color": _MEAN, "width": 2},
        "hovertext": hover,
        "hoverinfo": "text",
    }


def _styled(
    figure: go.Figure, order: Sequence[str], labels: Sequence[str], y_title: str, y_range: tuple[float, float]
) -> go.Figure:
    """What all charts by model share: a legend on top, thin margins, and room for the labels."""
    bottom, top = y_range
    air = (top - bottom) * 0.04  # so that points and whiskers at the ends of the scale are not cut
    figure.update_layout(
        paper_bgcolor=_TRANSPARENT,
        plot_bgcolor=_TRANSPARENT,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        height=440,
    )
    figure.update_xaxes(
        type="category",
        categoryorder="array",
        categoryarray=list(order),
        tickmode="array",
        tickvals=list(order),
        ticktext=list(labels),
        # Level while they fit, else upright: slanted lines of text run into each other.
        autotickangles=[0, 90],
        automargin=True,
        showgrid=False,
    )
    figure.update_yaxes(
        title={"text": y_title},
        range=[bottom - air, top + air],
        automargin=True,
        gridcolor=_GRID,
        zeroline=False,
    )
    return figure


def _label(name: str, n: int, *, narrow: bool) -> str:
    """A tick label: the name in at most two short lines (one when there is little room), then n.

    A long name loses its middle: the start says the model, the end its size and quantisation.
    """
    if narrow:
        name = name if len(name) <= _ONE_LINE else f"{name[: _ONE_LINE // 2]}…{name[-_ONE_LINE // 2 :]}"
        return html.escape(f"{name} ({n:,})", quote=False)
    model, _, connection = name.partition(" · ")
    if len(name) <= _LINE:
        lines = [name]
    elif connection and max(len(model), len(connection)) <= _LINE:
        lines = [model, connection]
    elif len(name) <= 2 * _LINE:
        breaks = [match.end() for match in re.finditer(r"[\s:/_·-]+", name)] or [_LINE]
        at = min(breaks, key=lambda position: abs(position - len(name) / 2))
        lines = [name[:at], name[at:]]
    else:
        lines = [f"{name[:_LINE]}…", f"…{name[-_LINE:]}"]
    return "<br>".join(html.escape(line.strip(), quote=False) for line in [*lines, f"n = {n:,}"])
