"""Home, Generate, Studies, Results and Rate as Streamlit runs them."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from slam_app import auth, first_start
from slam_app.rating import studies as rating_studies
from slam_app.store import connections, runs, studies, use_cases
from slam_app.store.db import Db
from tests.factories import add_connection, fill_all, plan
from tests.pages.conftest import ROOT, OpenPage, confirm, texts


@pytest.fixture
def run_id(db: Db) -> int:
    """A finished run of two models over three cases."""
    add_connection(db, "http://127.0.0.1:1", "alpha", "beta")
    run_id = plan(db, cases=3)
    fill_all(db, run_id)
    return run_id


@pytest.fixture
def study(db: Db, run_id: int, open_page: OpenPage) -> tuple[int, str]:
    """An open study for two raters of two screens each: its id and link token."""
    study_id = rating_studies.create(db, run_id=run_id, name="alpha or beta", raters=2, items_per_rater=2)
    return study_id, rating_studies.launch(db, study_id)


def rater(token: str, who: str = "p1") -> AppTest:
    """What a rater's link shows, to whoever opens it."""
    at = AppTest.from_file(ROOT / "slam_app" / "main.py", default_timeout=30)
    at.query_params["s"] = token
    at.query_params["PROLIFIC_PID"] = who
    at.run()
    return at.switch_page("../pages/rate.py").run()


def score(at: AppTest, value: int = 7) -> AppTest:
    for radio in at.radio:
        radio.set_value(value)
    return at.button[-1].click().run()


def test_home_of_an_empty_installation_points_to_models(open_page: OpenPage, db: Db) -> None:
    at = open_page("home")
    assert texts(at).count("Nothing here yet") == 5
    assert [button.key for button in at.button if button.label == "Next step"] == ["go-models"]


def test_home_counts_what_is_there_and_points_to_the_next_step(open_page: OpenPage, run_id: int) -> None:
    at = open_page("home")
    assert "6 answers in 1 run" in texts(at)
    assert [button.key for button in at.button if button.label == "Next step"] == ["go-studies"]


@pytest.mark.parametrize("page", ["home", "models", "prompts", "generate", "studies", "results"])
def test_admin_pages_show_nothing_to_a_stranger(
    page: str, open_page: OpenPage, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = open_page(page)
    monkeypatch.setattr(auth, "is_admin", lambda db, token: False)
    at.run()
    shown = texts(at) + " ".join(title.value for title in at.title)
    assert "alpha" not in shown and "Log in" in " ".join(button.label for button in at.button)


@pytest.mark.parametrize("page", ["generate", "studies", "results"])
def test_an_empty_page_says_what_is_missing(page: str, open_page: OpenPage) -> None:
    assert texts(open_page(page))


def test_the_number_of_calls_is_shown_before_the_start(open_page: OpenPage, db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "alpha", "beta")
    first_start.install_sample(db)
    at = open_page("generate")
    at.multiselect("models").set_value([model.id for model in connections.models(db)])
    at.number_input("samples").set_value(3).run()
    assert "**48 calls** = 2 models × 8 cases × 3 samples" in texts(at)
    at.button("start").click().run()
    (run,) = runs.all_runs(db)
    assert run.total == 48
    assert at.query_params["run"] == str(run.id)


def test_parameters_that_cannot_work_are_said_and_plan_nothing(open_page: OpenPage, db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "alpha")
    first_start.install_sample(db)
    at = open_page("generate")
    at.multiselect("models").set_value([model.id for model in connections.models(db)])
    at.number_input("max-tokens").set_value(9000).run()
    at.button("start").click().run()
    assert "leaves no room for the prompt" in texts(at)
    assert runs.all_runs(db) == []


def test_a_broken_template_is_said_with_the_case(open_page: OpenPage, db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "alpha")
    use_case_id = first_start.install_sample(db)
    use_cases.save_template(db, use_case_id, "{{ today }} {{ missing }}")
    at = open_page("generate")
    at.multiselect("models").set_value([model.id for model in connections.models(db)]).run()
    at.button("start").click().run()
    assert "missing" in texts(at)
    assert runs.all_runs(db) == []


def test_errors_of_a_run_are_shown_and_can_be_retried(open_page: OpenPage, db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "alpha", "beta")
    run_id = plan(db, cases=1)
    fill_all(db, run_id, failing=("beta",))
    runs.cancel(db, run_id)
    at = open_page("generate")
    assert "The model process died." in texts(at)
    assert "Hello from" in "".join(text.value for text in at.text)
    at.button("retry").click().run()
    assert runs.get(db, run_id).counts["pending"] == 1
    at.button("cancel").click().run()
    assert not runs.active_jobs(db, run_id)
    at.button("resume").click().run()
    assert runs.active_jobs(db, run_id)


def test_a_study_is_drafted_launched_closed_and_its_link_renewed(
    open_page: OpenPage, db: Db, run_id: int
) -> None:
    at = open_page("studies")
    at.number_input[0].set_value(4)
    at.button("create-draft").click().run()
    (study,) = studies.all_studies(db)
    assert (study.raters, study.items_per_rater, study.status) == (4, 3, "draft")
    at.button(f"launch-{study.id}").click().run()
    link = at.code[0].value
    assert "/rate?s=" in link
    assert [metric.value for metric in at.metric] == ["4", "0", "0"]
    at.button(f"close-{study.id}").click().run()
    assert studies.get(db, study.id).status == "closed"
    at.button(f"renew-{study.id}").click().run()
    confirm(at, f"renew-{study.id}", "renew-now")
    at.run()
    assert at.code[0].value != link


def test_a_rater_works_through_a_set(db: Db, study: tuple[int, str]) -> None:
    study_id, token = study
    at = rater(token)
    assert "2 screens" in texts(at)
    at.button("start").click().run()
    assert len(at.radio) == 2 and all(radio.value is None for radio in at.radio)
    at = at.button[-1].click().run()
    assert "Please also score answer A, B" in texts(at)
    score(at)
    again = rater(token)
    assert [radio.key for radio in again.radio] == ["score-2-A", "score-2-B"]
    done = score(again)
    assert done.code[0].value == studies.get(db, study_id).completion_code
    assert rater(token).code[0].value == studies.get(db, study_id).completion_code


def test_two_raters_share_nothing_and_a_third_is_told_politely(db: Db, study: tuple[int, str]) -> None:
    _, token = study
    for who in ("p1", "p2"):
        rater(token, who).button("start").click().run()
    assert "All places" in texts(rater(token, "p3").button("start").click().run())


def test_a_wrong_link_is_explained(db: Db, study: tuple[int, str]) -> None:
    assert "belongs to no study" in texts(rater(study[1][:-1] + "x"))


def test_results_count_complete_sets_only(open_page: OpenPage, db: Db, study: tuple[int, str]) -> None:
    token = study[1]
    score(rater(token, "p1").button("start").click().run())
    at = open_page("results")
    assert [metric.value for metric in at.metric] == ["0 of 2", "1", "1"]
    assert "No set is complete yet" in texts(at)
    score(rater(token, "p1"), value=9)
    at = open_page("results")
    assert [metric.value for metric in at.metric] == ["1 of 2", "0", "1"]
    table = at.dataframe[0].value
    assert list(table["ratings"]) == [2, 2] and list(table["raters"]) == [1, 1]
    assert table["low"].isna().all(), "one rater supports no interval"
