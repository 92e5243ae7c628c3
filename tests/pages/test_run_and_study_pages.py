"""Home, Generate, Studies, Results and Rate as Streamlit runs them."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Multiselect

from slam_app import auth, first_start
from slam_app.domain import ConnectionKind, ModelInfo
from slam_app.rating import studies as rating_studies
from slam_app.store import connections, responses, runs, studies, use_cases
from slam_app.store.db import Db
from slam_app.ui import generate
from tests.factories import add_connection, fill_all, plan
from tests.pages.conftest import ROOT, OpenPage, confirm, log_out_after, texts


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


def chosen_models(at: AppTest) -> Multiselect:
    return next(widget for widget in at.multiselect if widget.label == "Models")


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
    chosen_models(at).set_value([model.id for model in connections.models(db)])
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
    chosen_models(at).set_value([model.id for model in connections.models(db)])
    at.number_input("max-tokens").set_value(9000).run()
    at.button("start").click().run()
    assert "leaves no room for the prompt" in texts(at)
    assert runs.all_runs(db) == []


def test_a_broken_template_is_said_with_the_case(open_page: OpenPage, db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "alpha")
    use_case_id = first_start.install_sample(db)
    use_cases.save_template(db, use_case_id, "{{ today }} {{ missing }}")
    at = open_page("generate")
    chosen_models(at).set_value([model.id for model in connections.models(db)]).run()
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


@pytest.mark.parametrize("run", ["²", "9" * 5000, "-1", "07", "all"])
def test_a_nonsense_id_in_the_address_shows_the_newest(open_page: OpenPage, run_id: int, run: str) -> None:
    assert open_page("generate", run=run).selectbox("pick-run").value == run_id


def test_models_of_one_name_are_told_apart_by_their_connection(open_page: OpenPage, db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "gemma3:1b", "x*y*z")
    add_connection(db, "http://127.0.0.1:2", "gemma3:1b")
    run_id = plan(db, cases=1)
    fill_all(db, run_id)

    at = open_page("generate")

    labels = ["gemma3:1b · Ollama http://127.0.0.1:1", "x*y*z", "gemma3:1b · Ollama http://127.0.0.1:2"]
    escaped = [label.replace(":", r"\:").replace("*", r"\*") for label in labels]
    shown = texts(at)
    assert all(f"**{label}**" in shown for label in escaped)
    assert [bar.proto.text.split("**")[1] for bar in at.get("progress")] == escaped
    filters = at.multiselect(f"filter-models-{run_id}")
    assert filters.options == labels
    filters.set_value([responses.progress(db, run_id)[2].model_id]).run()
    assert texts(at).count("Ollama http") == 1


def test_side_by_side_reads_the_chosen_case_alone(
    open_page: OpenPage, db: Db, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    of_run = responses.of_run

    def counted(*args: object, **options: object) -> object:
        rows = of_run(*args, **options)  # type: ignore[arg-type]
        read.append(len(rows))
        return rows

    monkeypatch.setattr(responses, "of_run", counted)
    at = open_page("generate")
    at.selectbox(f"filter-case-{run_id}").select_index(2).run()

    assert {row["text"] for row in of_run(db, run_id, case_id=3)} <= {text.value for text in at.text}
    assert read and max(read) == 2


def test_the_table_shows_a_page_and_the_download_has_everything(
    open_page: OpenPage, db: Db, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "ROWS_A_PAGE", 4)
    at = open_page("generate")
    at.segmented_control("view").set_value("Table").run()
    assert list(at.dataframe[0].value["case"]) == ["case 1", "case 2", "case 3", "case 1"]

    at.number_input(f"page-{run_id}-2").set_value(2).run()

    assert list(at.dataframe[0].value["case"]) == ["case 2", "case 3"]
    assert set(at.dataframe[0].value["model"]) == {"beta"}
    assert "6 responses" in texts(at)
    at.selectbox("filter-status").set_value("error").run()
    assert "0 responses" in texts(at) and at.dataframe[0].value.empty


def test_a_long_text_is_cut_in_the_table(db: Db, run_id: int) -> None:
    with db.write() as con:
        con.execute("UPDATE responses SET text = ?", ["x" * 5000])

    (row,) = responses.previews(db, run_id, model_ids=[1], limit=1)

    assert len(row["text"]) == 300 and "prompt" not in row


def add_models(db: Db, kind: ConnectionKind, *names: str) -> None:
    connection_id = connections.add(db, name=str(kind), kind=kind, base_url="http://127.0.0.1:1")
    connections.remember_models(db, connection_id, [ModelInfo(name) for name in names])


@pytest.mark.parametrize(
    ("kinds", "incumbent", "expected"),
    [
        ((ConnectionKind.EMBEDDED,), None, {"small embedded", "large embedded"}),
        ((ConnectionKind.EMBEDDED, ConnectionKind.OPENAI), "large openai",
         {"small embedded", "large embedded", "large openai"}),
        ((ConnectionKind.EMBEDDED, ConnectionKind.OLLAMA), None, set()),
        ((ConnectionKind.EMBEDDED, ConnectionKind.OLLAMA), "large ollama", {"large ollama"}),
        ((ConnectionKind.EMBEDDED, ConnectionKind.OLLAMA), "small embedded", {"small embedded"}),
        ((ConnectionKind.OPENAI,), None, set()),
    ],
)  # fmt: skip
def test_the_incumbent_is_chosen_at_first_and_the_carried_models_where_no_ollama_is(
    open_page: OpenPage,
    db: Db,
    kinds: tuple[ConnectionKind, ...],
    incumbent: str | None,
    expected: set[str],
) -> None:
    use_case_id = first_start.install_sample(db)
    for kind in kinds:
        add_models(db, kind, f"small {kind}", f"large {kind}")
    names = {model.id: model.name for model in connections.models(db)}
    incumbent_id = next((model_id for model_id, name in names.items() if name == incumbent), None)
    use_cases.update(db, use_case_id, name="One", description="", incumbent_model_id=incumbent_id)

    at = open_page("generate")

    assert {names[model_id] for model_id in chosen_models(at).value} == expected


def test_thinking_is_offered_where_a_server_can_not_say_whether_a_model_thinks(
    open_page: OpenPage, db: Db
) -> None:
    first_start.install_sample(db)
    add_models(db, ConnectionKind.OPENAI, "o_mini")
    at = open_page("generate")
    assert "think" not in [widget.key for widget in at.selectbox]

    chosen_models(at).set_value([connections.models(db)[0].id]).run()

    assert r"o\_mini" in at.selectbox("think").help


def test_more_calls_than_a_run_can_have_are_refused_with_their_number(
    open_page: OpenPage, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MAX_CALLS", 799)
    add_connection(db, "http://127.0.0.1:1", "alpha")
    first_start.install_sample(db)
    at = open_page("generate")

    chosen_models(at).set_value([connections.models(db)[0].id])
    at.number_input("samples").set_value(100).run()

    assert "800 calls are too many for one run; it can have 799" in at.error[0].value
    assert at.button("start").disabled


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


def test_a_link_whose_key_is_lost_is_not_shown_until_it_is_renewed(
    open_page: OpenPage, db: Db, study: tuple[int, str]
) -> None:
    db.path.with_name(f"{db.path.name}.key").unlink()

    at = open_page("studies")
    assert "Renew the link" in at.warning[0].value and not at.code
    at.button(f"renew-{study[0]}").click().run()
    confirm(at, f"renew-{study[0]}", "renew-now")
    at.run()

    assert not at.warning and "/rate?s=" in at.code[0].value


def test_an_open_dialog_does_nothing_after_a_logout_elsewhere(
    open_page: OpenPage, db: Db, study: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = open_page("studies")
    at.button(f"renew-{study[0]}").click().run()
    log_out_after(monkeypatch, checks=3)  # of main.py, of the page, of the polled counts

    confirm(at, f"renew-{study[0]}", "renew-now")

    assert studies.get(db, study[0]).link_version == 1
    assert "Log in" in " ".join(button.label for button in at.button)


def test_a_rater_works_through_a_set(db: Db, study: tuple[int, str]) -> None:
    study_id, token = study
    at = rater(token)
    assert "2 screens" in texts(at)
    at.button("start").click().run()
    assert len(at.radio) == 2 and all(radio.value is None for radio in at.radio)
    at = at.button[-1].click().run()
    assert "Not scored yet: answer A and B" in texts(at)
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
