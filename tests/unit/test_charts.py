from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from slam_app.charts import MAX_POINTS, score_boxes


def tables(
    scores: dict[str, list[float]], intervals: dict[str, tuple[float, float]] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    ratings = pd.DataFrame(
        [(model, value) for model, values in scores.items() for value in values], columns=["model", "value"]
    )
    means = pd.DataFrame(
        [
            (model, sum(values) / len(values), *(intervals or {}).get(model, (None, None)))
            for model, values in scores.items()
        ],
        columns=["model", "mean", "low", "high"],
    )
    return ratings, means


SCORES: dict[str, list[float]] = {
    "weak": [1, 2, 3],
    "gpt": [5, 6, 7],
    "strong": [7, 8, 9, 10],
    "middle": [4, 4],
}


def boxes(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.type == "box"]


def mean_line(figure: Any) -> Any:
    [line] = [trace for trace in figure.data if trace.type == "scatter"]
    return line


def test_the_incumbent_stands_first_and_the_others_by_falling_mean() -> None:
    figure = score_boxes(*tables(SCORES), "gpt", 10)
    expected = ["gpt", "strong", "middle", "weak"]
    assert [box.x[0] for box in boxes(figure)] == expected
    assert list(mean_line(figure).x) == expected
    assert list(figure.layout.xaxis.categoryarray) == expected
    assert list(figure.layout.xaxis.tickvals) == expected
    assert [box.name for box in boxes(figure)] == ["Incumbent", "Candidates", "Candidates", "Candidates"]


@pytest.mark.parametrize("incumbent", [None, "not rated"])
def test_without_the_incumbent_the_best_mean_stands_first(incumbent: str | None) -> None:
    figure = score_boxes(*tables(SCORES), incumbent, 10)
    assert [box.x[0] for box in boxes(figure)] == ["strong", "gpt", "middle", "weak"]
    assert {box.name for box in boxes(figure)} == {"Candidates"}


def test_a_box_spans_the_middle_half_and_its_whiskers_all_scores() -> None:
    # Quartiles by linear interpolation, as R's quantile(type = 7) gives them.
    [box] = boxes(score_boxes(*tables({"m": [0, 2, 4, 7, 10, 10]}), None, 10))
    assert [box.lowerfence[0], box.q1[0], box.median[0], box.q3[0], box.upperfence[0]] == [
        0,
        2.5,
        5.5,
        9.25,
        10,
    ]


def test_the_means_carry_their_intervals() -> None:
    line = mean_line(score_boxes(*tables(SCORES, {"gpt": (5.5, 6.75), "weak": (1.0, 3.0)}), "gpt", 10))
    assert list(line.y) == [6, 8.5, 4, 2]
    assert list(line.error_y.array) == [0.75, 0, 0, 1]
    assert list(line.error_y.arrayminus) == [0.5, 0, 0, 1]
    assert line.hovertext[0] == "gpt<br>mean 6.00 (5.50 to 6.75)<br>n = 3"
    assert line.hovertext[1] == "strong<br>mean 8.50 (no interval)<br>n = 4"


def test_each_label_says_how_many_scores_stand_behind_it() -> None:
    figure = score_boxes(*tables({"a": [1.0] * 1500, "b": [2.0]}), "a", 10)
    assert list(figure.layout.xaxis.ticktext) == ["a<br>n = 1,500", "b<br>n = 1"]


def test_points_are_drawn_only_where_they_are_few() -> None:
    few = [float(i % 11) for i in range(MAX_POINTS)]
    figure = score_boxes(*tables({"few": few, "many": [*few, 5.0]}), "few", 10)
    first, second = boxes(figure)
    assert (first.boxpoints, [float(y) for y in first.y[0]]) == ("all", few)
    assert (second.boxpoints, second.y) == (False, None)


def test_a_chart_of_many_scores_stays_small() -> None:
    figure = score_boxes(*tables({"m": [float(i % 11) for i in range(100_000)]}), None, 10)
    assert len(figure.to_json()) < 30_000


def test_the_scale_and_its_ends_are_visible() -> None:
    figure = score_boxes(*tables(SCORES), None, 7)
    assert figure.layout.yaxis.title.text == "Score, 0 to 7"
    bottom, top = figure.layout.yaxis.range
    assert bottom < 0
    assert top > 7


def test_the_page_decides_on_background_and_text_colours() -> None:
    layout = score_boxes(*tables(SCORES), None, 10).to_plotly_json()["layout"]
    layout.pop("template")
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0, 0, 0, 0)"
    assert '"color"' not in json.dumps(layout)
    assert "font" not in json.dumps(layout)


def contrast(colour: str, background: str) -> float:
    """Contrast ratio of two colours by WCAG 2.1."""

    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("background", ["#FFFFFF", "#0E1117"])
def test_lines_stand_out_in_light_and_dark(background: str) -> None:
    figure = score_boxes(*tables(SCORES), "gpt", 10)
    colours = {trace.line.color for trace in figure.data}
    assert len(colours) == 3
    assert all(contrast(colour, background) >= 3 for colour in colours)


def test_the_legend_lies_on_top_with_each_kind_once() -> None:
    figure = score_boxes(*tables(SCORES), "gpt", 10)
    shown = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert shown == ["Incumbent", "Candidates", "Mean with interval"]
    assert (figure.layout.legend.orientation, figure.layout.legend.yanchor) == ("h", "bottom")
    assert max(figure.layout.margin[side] for side in "lrtb") <= 16


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mistral:7b", "mistral:7b"),
        ("llama3.2:3b · ollama", "llama3.2:3b<br>ollama"),
        ("smollm2:1.7b-instruct-q4_K_M", "smollm2:1.7b-<br>instruct-q4_K_M"),
        ("averyveryverylongword", "averyveryverylon<br>gword"),
        (
            "Qwen/Qwen2.5-1.5B-Instruct-GGUF:qwen2.5-1.5b-instruct-q4_k_m.gguf",
            "Qwen/Qwen2.5-1.5…<br>…ruct-q4_k_m.gguf",
        ),
        ("<b>&</b>", "&lt;b&gt;&amp;&lt;/b&gt;"),
    ],
)
def test_a_long_name_is_wrapped_and_markup_in_it_is_text(name: str, label: str) -> None:
    figure = score_boxes(*tables({name: [1, 2]}), None, 10)
    assert list(figure.layout.xaxis.ticktext) == [f"{label}<br>n = 2"]


def test_many_models_get_labels_of_one_line() -> None:
    scores = {f"starling-lm:7b-alpha-q{i}_K_L · workstation": [float(i)] for i in range(9)}
    figure = score_boxes(*tables(scores), None, 10)
    assert figure.layout.xaxis.ticktext[0] == "starling-lm:7b… · workstation (1)"
    assert all("<br>" not in text for text in figure.layout.xaxis.ticktext)


def test_names_that_look_like_numbers_stay_categories() -> None:
    figure = score_boxes(*tables({"7": [1, 2], "13": [3, 4]}), None, 10)
    assert figure.layout.xaxis.type == "category"
    assert list(figure.layout.xaxis.tickvals) == ["13", "7"]


def test_without_scores_the_chart_says_so() -> None:
    figure = score_boxes(*tables({}), "gpt", 10)
    assert len(figure.data) == 0
    assert figure.layout.annotations[0].text == "No scores yet"


def test_a_model_in_one_table_only_is_an_error() -> None:
    ratings, means = tables(SCORES)
    with pytest.raises(ValueError, match="not both: weak"):
        score_boxes(ratings, means[means["model"] != "weak"], None, 10)
    with pytest.raises(ValueError, match="not both: gpt"):
        score_boxes(ratings[ratings["model"] != "gpt"], means, None, 10)
