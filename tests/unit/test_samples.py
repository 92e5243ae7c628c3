from __future__ import annotations

import re

import pytest

from slam_app.cases import NewCase
from slam_app.prompts import render, variables
from slam_app.samples import daily_briefing

SAMPLE = daily_briefing()
VARIABLES = ("today", "last_login", "completed_tasks", "focus_tasks", "rituals", "goals")


def test_the_template_asks_for_the_six_variables() -> None:
    assert variables(SAMPLE.template) == VARIABLES


def test_the_description_is_short_enough_for_raters_to_read() -> None:
    assert SAMPLE.name == "Daily briefing"
    assert 100 <= len(SAMPLE.description.split()) <= 160


def test_the_cases_are_many_and_named_apart() -> None:
    names = [case.name for case in SAMPLE.cases]
    assert len(names) >= 6
    assert len(set(names)) == len(names)
    assert sum(not case.values["completed_tasks"] for case in SAMPLE.cases) == 1


@pytest.mark.parametrize("case", SAMPLE.cases, ids=lambda case: case.name)
def test_each_case_makes_a_prompt_of_its_own_texts(case: NewCase) -> None:
    assert set(case.values) == set(VARIABLES)
    prompt = render(SAMPLE.template, case.values)
    for value in case.values.values():
        for text in [value] if isinstance(value, str) else value:
            assert text in prompt
    # About 4.3 characters a token in such English: 140 to 350 tokens.
    assert 600 <= len(prompt) <= 1500
    assert not re.search(r"[\[\]{}]|\n\n\n|: \.", prompt)


def test_what_a_case_lacks_is_said_in_words() -> None:
    nothing: dict[str, object] = {variable: [] for variable in VARIABLES}
    nothing |= {"today": "Monday", "last_login": "Sunday"}
    prompt = render(SAMPLE.template, nothing)
    assert "Finished last time: nothing.\n" in prompt
    assert "Rituals for today: none.\n" in prompt


def test_texts_from_a_csv_file_serve_as_well_as_lists() -> None:
    texts = dict.fromkeys(VARIABLES, "tidy the shed")
    assert "Finished last time: tidy the shed.\n" in render(SAMPLE.template, texts)
