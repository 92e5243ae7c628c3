"""The Prompts page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest

from slam_app import first_start, generation
from slam_app.domain import Case, ConnectionKind, ModelInfo, SamplingParams
from slam_app.errors import InputError
from slam_app.store import connections, use_cases
from slam_app.store.db import Db
from slam_app.ui.cases import Field, field_of, fields, from_text, table, to_text
from tests.pages.conftest import OpenPage, confirm, log_out_after, texts


@pytest.fixture
def sample(db: Db) -> int:
    return first_start.install_sample(db)


@pytest.fixture
def reviews(db: Db) -> int:
    """A use case with a template of one variable and no cases."""
    use_case_id = use_cases.create(db, "Reviews")
    use_cases.save_template(db, use_case_id, "Sum up: {{ review }}")
    return use_case_id


def with_key(elements: Any, start: str) -> Any:
    """The one widget whose key starts so."""
    (found,) = [element for element in elements if element.key and element.key.startswith(start)]
    return found


def use_in_a_run(db: Db, use_case_id: int) -> None:
    connection_id = connections.add(db, name="Embedded", kind=ConnectionKind.EMBEDDED)
    connections.remember_models(db, connection_id, [ModelInfo("m", capabilities=("completion",))])
    generation.plan_run(
        db,
        template=use_cases.templates(db, use_case_id)[0],
        cases=use_cases.cases(db, use_case_id)[:1],
        model_ids=[connections.models(db)[0].id],
        samples=1,
        params=SamplingParams(),
    )


def upload(at: AppTest, name: str, data: str) -> AppTest:
    return with_key(at.file_uploader, "upload-").upload(name, data.encode(), "text/plain").run()


def test_an_empty_database_offers_the_sample(open_page: OpenPage, db: Db) -> None:
    at = open_page("prompts")
    assert "No use case yet" in texts(at)

    at.button("sample").click().run()

    (use_case,) = use_cases.all_use_cases(db)
    assert use_case.name == "Daily briefing"
    assert at.query_params["use_case"] == str(use_case.id)
    assert "sample" not in [button.key for button in at.button]


def test_the_sample_can_be_added_beside_others(open_page: OpenPage, db: Db, reviews: int) -> None:
    at = open_page("prompts")

    at.button("sample").click().run()

    assert not at.exception
    assert at.selectbox("pick-use_case").value == use_cases.all_use_cases(db)[-1].id != reviews


def test_a_use_case_is_created_and_chosen(open_page: OpenPage, db: Db, sample: int) -> None:
    at = open_page("prompts")

    at.button("new").click().run()
    at.text_input("new-name").set_value("Reviews")
    confirm(at, "new", "create")

    assert at.selectbox("pick-use_case").value == use_cases.all_use_cases(db)[-1].id
    assert "With a saved template and at least one case" in texts(at)


def test_the_use_case_of_the_address_is_shown(open_page: OpenPage, sample: int, reviews: int) -> None:
    at = open_page("prompts", use_case=str(reviews))

    assert with_key(at.text_area, "body-").value == "Sum up: {{ review }}"


def test_the_description_is_previewed_before_it_is_saved(open_page: OpenPage, db: Db, reviews: int) -> None:
    at = open_page("prompts")

    with_key(at.text_area, "description-").set_value("Short **and** kind.").run()
    assert "Short **and** kind." in texts(at)
    assert "Not saved yet" in texts(at)
    assert use_cases.get(db, reviews).description == ""
    at.button("save-use-case").click().run()

    assert use_cases.get(db, reviews).description == "Short **and** kind."
    assert "Not saved yet" not in texts(at)


def test_the_incumbent_is_one_of_the_models_that_can_answer(
    open_page: OpenPage, db: Db, reviews: int
) -> None:
    connection_id = connections.add(db, name="API", kind=ConnectionKind.OPENAI, base_url="http://x")
    connections.remember_models(
        db, connection_id, [ModelInfo("big"), ModelInfo("embedder", capabilities=("embedding",))]
    )
    at = open_page("prompts")

    incumbent = with_key(at.selectbox, "incumbent-")
    assert incumbent.options == ["None yet", "big · API"]
    incumbent.select("big · API").run()
    at.button("save-use-case").click().run()

    assert use_cases.get(db, reviews).incumbent_model_id == connections.models(db)[0].id


def test_an_incumbent_that_left_its_server_stays(open_page: OpenPage, db: Db, reviews: int) -> None:
    connection_id = connections.add(db, name="API", kind=ConnectionKind.OPENAI, base_url="http://x")
    connections.remember_models(db, connection_id, [ModelInfo("big")])
    model_id = connections.models(db)[0].id
    use_cases.update(db, reviews, name="Reviews", description="", incumbent_model_id=model_id)
    connections.remember_models(db, connection_id, [])

    at = open_page("prompts")

    assert with_key(at.selectbox, "incumbent-").value == model_id


def test_a_broken_template_shows_its_error_and_is_not_saved(
    open_page: OpenPage, db: Db, reviews: int
) -> None:
    at = open_page("prompts")

    with_key(at.text_area, "body-").set_value("{% for x in y %}").run()
    assert "Line 1 of the template can't be read" in texts(at)
    at.button("save-template").click().run()

    assert "Not saved." in texts(at)
    assert use_cases.templates(db, reviews)[0].body == "Sum up: {{ review }}"


def test_an_unused_template_is_changed_in_place(open_page: OpenPage, db: Db, reviews: int) -> None:
    at = open_page("prompts")

    with_key(at.text_area, "body-").set_value("Tell me: {{ review }} in {{ language }}").run()
    assert "`review`, `language`" in texts(at)
    at.button("save-template").click().run()

    assert "Version 1 was changed in place" in texts(at)
    assert [template.version for template in use_cases.templates(db, reviews)] == [1]


def test_a_used_template_gets_a_new_version_and_the_old_one_can_be_read(
    open_page: OpenPage, db: Db, sample: int
) -> None:
    use_in_a_run(db, sample)
    before = use_cases.templates(db, sample)[0].body
    at = open_page("prompts")
    assert "saving a change makes version 2" in texts(at)

    with_key(at.text_area, "body-").set_value("Today is {{ today }}.").run()
    at.button("save-template").click().run()

    assert "Saved as version 2. Version 1 stays as it was used." in texts(at)
    assert before in [code.value for code in at.code]


def test_the_preview_shows_the_prompt_of_a_case(open_page: OpenPage, db: Db, sample: int) -> None:
    case = use_cases.cases(db, sample)[1]

    at = open_page("prompts", case=str(case.id))

    assert f"Today is {case.values['today']}" in at.code[0].value
    assert f"{len(at.code[0].value):,} characters, about" in texts(at)


def test_the_preview_says_why_there_is_none(open_page: OpenPage, sample: int) -> None:
    at = open_page("prompts")

    with_key(at.text_area, "body-").set_value("{{ mood }}").run()

    assert "needs a value for 'mood'" in texts(at)


def test_a_case_is_added_by_hand(open_page: OpenPage, db: Db, reviews: int) -> None:
    at = open_page("prompts")

    with_key(at.text_input, "case-name-").set_value("Angry")
    with_key(at.text_area, f"case-{reviews}-new").set_value("Never again.")
    with_key(at.button, f"save-{reviews}-new").click().run()

    (case,) = use_cases.cases(db, reviews)
    assert (case.name, case.values) == ("Angry", {"review": "Never again."})


def test_a_case_without_a_value_is_not_saved(open_page: OpenPage, db: Db, reviews: int) -> None:
    at = open_page("prompts")

    with_key(at.text_input, "case-name-").set_value("Angry")
    with_key(at.button, f"save-{reviews}-new").click().run()

    assert "no value for 'review'" in at.error[0].value
    assert use_cases.cases(db, reviews) == []


def test_lists_are_edited_one_item_per_line(open_page: OpenPage, db: Db, sample: int) -> None:
    case = use_cases.cases(db, sample)[0]
    at = open_page("prompts")
    key = f"case-{sample}-{case.id}"

    goals = at.text_area(f"{key}-goals-LINES")
    assert goals.value.splitlines() == case.values["goals"]
    goals.set_value("One\n\n  Two \n")
    at.button(f"save-{sample}-{case.id}").click().run()

    assert use_cases.cases(db, sample)[0].values == {**case.values, "goals": ["One", "Two"]}


def test_an_upload_is_shown_before_it_is_added(open_page: OpenPage, db: Db, reviews: int) -> None:
    at = open_page("prompts")

    upload(at, "cases.csv", "name,review\nA,Nice\nB,Bad\n")
    assert "2 cases can be added" in texts(at)
    assert use_cases.cases(db, reviews) == []
    at.button("add-upload").click().run()

    assert [case.name for case in use_cases.cases(db, reviews)] == ["A", "B"]


def test_every_bad_row_of_an_upload_is_listed_and_nothing_imported(
    open_page: OpenPage, db: Db, reviews: int
) -> None:
    at = open_page("prompts")

    upload(at, "cases.jsonl", '{"review": "Nice"}\nnot json\n{"review": ""}\n')

    assert "the file has 2 problems" in texts(at)
    assert "Line 2" in texts(at) and "Line 3" in texts(at)
    assert use_cases.cases(db, reviews) == []


def test_an_upload_does_not_double_a_case(open_page: OpenPage, db: Db, reviews: int) -> None:
    use_cases.add_cases(db, reviews, [("A", {"review": "Nice"})])
    at = open_page("prompts")

    upload(at, "cases.csv", "name,review\nA,Again\n")

    assert "is the name of a case that is there already" in texts(at)


def test_deleting_cases_asks_first(open_page: OpenPage, db: Db, sample: int) -> None:
    first, *rest = use_cases.cases(db, sample)
    at = open_page("prompts")

    at.multiselect(f"doomed-{sample}").select(first.name).run()
    at.button("delete").click().run()
    assert len(use_cases.cases(db, sample)) == len(rest) + 1
    confirm(at, "delete", "delete-now")

    assert use_cases.cases(db, sample) == rest


def test_cases_that_lack_a_value_are_counted(open_page: OpenPage, db: Db, sample: int) -> None:
    use_cases.save_template(db, sample, "{{ today }} {{ mood }}")

    at = open_page("prompts")

    assert "8 cases of 8 can't be used" in at.warning[0].value
    assert set(at.dataframe[0].value["Problem"]) == {"no value for mood"}


def test_with_everything_there_it_leads_on_to_generate(open_page: OpenPage, sample: int) -> None:
    at = open_page("prompts")

    assert [link.label for link in at.get("page_link")] == ["Generate answers"]


JSON_VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_no_value_is_changed_by_looking_at_it(value: object) -> None:
    field = field_of(value)

    assert from_text("x", to_text(value, field), field) == value


def test_new_cases_take_their_fields_from_the_newest_case_and_from_loops() -> None:
    body = "{{ a }} {{ b }} {{ c }} {% for x in d %}{{ x }}{% endfor %}"
    there = [Case(1, 1, "old", {"a": ["x"], "b": "text"}), Case(2, 1, "new", {"a": "text", "c": 3})]

    found = fields(body, there, None)

    assert found == {"a": Field.TEXT, "b": Field.TEXT, "c": Field.JSON, "d": Field.LINES}


def test_bad_json_is_explained() -> None:
    with pytest.raises(InputError, match="'n' is not JSON"):
        from_text("n", "{", Field.JSON)


def test_the_table_shows_lists_on_one_line() -> None:
    cases = [Case(1, 1, "A", {"goals": ["one", "two"], "n": {"k": 1}})]

    row = table("{{ goals }} {{ n }}", cases).iloc[0]

    assert row["goals"] == "one; two"
    assert json.loads(row["n"]) == {"k": 1}


def test_no_case_is_deleted_and_no_use_case_made_after_a_logout_elsewhere(
    open_page: OpenPage, db: Db, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = use_cases.cases(db, sample)[0]
    at = open_page("prompts")
    at.multiselect(f"doomed-{sample}").set_value([first.id]).run()
    at.button("delete").click().run()
    with monkeypatch.context() as patch:
        log_out_after(patch, checks=2)
        confirm(at, "delete", "delete-now")
    assert first in use_cases.cases(db, sample)

    at = open_page("prompts")
    at.button("new").click().run()
    at.text_input("new-name").set_value("Made by nobody")
    log_out_after(monkeypatch, checks=2)
    confirm(at, "new", "create")
    assert len(use_cases.all_use_cases(db)) == 1
