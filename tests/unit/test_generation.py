"""Generation and its jobs against the wire-level daemon: real HTTP, real faults, a real database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from slam_app import generation
from slam_app.domain import ChatRequest, ChatResult, JobKind, JobStatus, SamplingParams, Think
from slam_app.errors import DatabaseFull, InputError, TemplateError
from slam_app.jobs import Runner
from slam_app.providers.ollama import OllamaProvider
from slam_app.store import connections, jobs, responses, runs, use_cases
from slam_app.store.db import Db
from tests.factories import add_connection, add_use_case, plan
from tests.wire_faults import Fault
from tests.wire_ollama import WireOllama

MODEL = "smollm2:135m"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireOllama]:
    monkeypatch.setattr(generation, "BACKOFF_S", 0.01)
    with WireOllama() as daemon:
        yield daemon


@pytest.fixture
def runner(db: Db) -> Iterator[Runner]:
    runner = Runner(db)
    runner.start()
    yield runner
    runner.stop()


def wait(condition: object, within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def finish(db: Db, run_id: int) -> list[dict[str, object]]:
    wait(lambda: not runs.active_jobs(db, run_id))
    return responses.of_run(db, run_id)


def job(db: Db, run_id: int) -> jobs.Job:
    return jobs.find(db, JobKind.GENERATE, "run", run_id)[0]


def test_a_run_is_filled_with_all_that_is_known_of_each_call(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL)
    run_id = plan(db, cases=2, samples=2)
    rows = finish(db, run_id)
    assert [(row["case"], row["sample"], row["status"]) for row in rows] == [
        ("case 1", 1, "ok"), ("case 2", 1, "ok"), ("case 1", 2, "ok"), ("case 2", 2, "ok"),
    ]  # fmt: skip
    first = rows[0]
    assert first["text"] and first["prompt_tokens"] and first["output_tokens"]
    assert 0 < first["ttft_s"] <= first["e2e_s"]  # type: ignore[operator]
    assert first["server_total_s"] and first["model_digest"] == daemon.installed[MODEL].digest
    assert first["retries"] == 0 and first["started_at"] and first["finished_at"]
    assert job(db, run_id).status is JobStatus.DONE


def test_every_sample_has_its_own_seed_and_all_options_are_sent_and_stored(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL)
    params = SamplingParams(seed=40, max_tokens=16, num_ctx=512, temperature=0.3, top_k=7)
    run_id = plan(db, cases=1, samples=3, params=params)
    rows = finish(db, run_id)
    sent = [
        call.json["options"] for call in daemon.calls if call.path == "/api/chat" and call.json["messages"]
    ]
    assert [options["seed"] for options in sent] == [40, 41, 42]
    assert {(options["temperature"], options["top_k"], options["num_ctx"]) for options in sent} == {
        (0.3, 7, 512)
    }
    assert ['"seed": 42' in str(row["params_json"]) for row in rows] == [False, False, True]


def test_a_model_is_loaded_once_and_unloaded_before_the_next(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL, "smollm2-thinker:135m")
    finish(db, plan(db, cases=2))
    assert [name for name, _ in daemon.loads] == [MODEL, "smollm2-thinker:135m"]
    assert daemon.loaded == {}


def test_a_busy_server_is_retried_and_the_retries_are_counted(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL)
    daemon.inject(Fault.BUSY, times=3)  # the first one meets the preload, which is no response
    (row,) = finish(db, plan(db, cases=1))
    assert (row["status"], row["retries"]) == ("ok", 2)


@pytest.mark.parametrize(
    ("fault", "error_class", "retries"),
    [
        (Fault.SERVER_ERROR, "ServerFailed", 3),
        (Fault.RUNNER_DIES, "ServerFailed", 3),
        (Fault.CUT, "StreamCut", 3),
        (Fault.ENDS_EARLY, "StreamCut", 3),
        (Fault.BAD_JSON, "BadReply", 0),
        (Fault.MODEL_MISSING, "ModelMissing", 0),
        (Fault.HUGE, "AnswerTooLong", 0),
    ],
)
def test_a_failed_call_is_a_row_with_its_error(
    db: Db, daemon: WireOllama, runner: Runner, fault: Fault, error_class: str, retries: int
) -> None:
    add_connection(db, daemon.url, MODEL)
    daemon.inject(fault, times=1 + 1 + retries)  # the preload, the first try, the retries
    bad, good = finish(db, plan(db, cases=2))
    assert (bad["status"], bad["error_class"], bad["retries"]) == ("error", error_class, retries)
    assert bad["error"]
    assert good["status"] == "ok"


def test_a_server_that_hangs_is_an_error_after_its_timeout(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL, timeout_s=0.5)
    daemon.inject(Fault.HANG, times=2)
    (row,) = finish(db, plan(db, cases=1))
    assert (row["status"], row["error_class"]) == ("error", "TimedOut")


def test_a_cancel_ends_a_hanging_call_within_two_seconds(db: Db, daemon: WireOllama, runner: Runner) -> None:
    add_connection(db, daemon.url, MODEL, timeout_s=60.0)
    daemon.inject(Fault.HANG, times=2)
    run_id = plan(db, cases=2)
    wait(lambda: len([call for call in daemon.calls if call.path == "/api/chat"]) >= 2)
    runs.cancel(db, run_id)
    asked = time.monotonic()
    wait(lambda: not runs.active_jobs(db, run_id), within_s=2.0)
    assert time.monotonic() - asked < 2.0
    assert job(db, run_id).status is JobStatus.CANCELLED
    assert runs.get(db, run_id).counts["pending"] == 2


def test_a_cancelled_run_goes_on_with_what_is_pending(db: Db, daemon: WireOllama, runner: Runner) -> None:
    add_connection(db, daemon.url, MODEL)
    daemon.token_delay_s = 0.02
    run_id = plan(db, cases=4)
    wait(lambda: runs.get(db, run_id).counts["ok"] >= 1)
    runs.cancel(db, run_id)
    before = {row["id"]: row for row in finish(db, run_id)}
    left = [row_id for row_id, row in before.items() if row["status"] == "pending"]
    assert left, "nothing was left to resume"
    assert runs.resume(db, run_id) == 1
    after = finish(db, run_id)
    assert {row["status"] for row in after} == {"ok"}
    assert all(row == before[row["id"]] for row in after if row["id"] not in left)


def test_a_dead_server_fails_the_job_and_keeps_its_work_pending(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL)
    daemon.stop()
    run_id = plan(db, cases=3)
    finish(db, run_id)
    assert job(db, run_id).status is JobStatus.FAILED
    assert "ollama" in job(db, run_id).message.lower()
    assert runs.get(db, run_id).counts["pending"] == 3


def test_a_server_that_goes_away_in_mid_run_costs_no_planned_call(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL)
    daemon.token_delay_s = 0.02
    run_id = plan(db, cases=3)
    wait(lambda: runs.get(db, run_id).counts["ok"] >= 1)
    daemon.stop()
    finish(db, run_id)
    counts = runs.get(db, run_id).counts
    assert job(db, run_id).status is JobStatus.FAILED
    assert counts["error"] == 0 and counts["pending"] >= 1
    daemon.start()
    runs.resume(db, run_id)
    assert {row["status"] for row in finish(db, run_id)} == {"ok"}


def test_connections_work_side_by_side_and_one_connection_does_one_thing_at_a_time(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    with WireOllama() as other:
        daemon.token_delay_s = other.token_delay_s = 0.01
        add_connection(db, daemon.url, MODEL)
        add_connection(db, other.url, MODEL)
        first, second = plan(db, cases=1), None
        use_case = use_cases.all_use_cases(db)[0]
        second = runs.plan(
            db,
            use_case_id=use_case.id,
            template_id=use_cases.templates(db, use_case.id)[0].id,
            prompts={use_cases.cases(db, use_case.id)[0].id: "Again"},
            model_ids=[connections.models(db)[0].id],
            samples=1,
            params=SamplingParams(max_tokens=16, num_ctx=512),
        )
        finish(db, first)
        finish(db, second)
    lanes = [jobs.get(db, number) for number in (1, 2, 3)]
    started = {job.id: (job.lane, job.started_at, job.finished_at) for job in lanes}
    assert started[1][0] == started[3][0] != started[2][0]
    assert started[1][2] <= started[3][1], "two jobs used one connection at once"  # type: ignore[operator]
    assert started[2][1] <= started[1][2], "the connections waited for each other"  # type: ignore[operator]


def test_thinking_is_asked_only_of_models_that_can(db: Db, daemon: WireOllama, runner: Runner) -> None:
    connection_id = add_connection(db, daemon.url)
    connections.remember_models(
        db,
        connection_id,
        [
            runs_model(MODEL, ("completion",)),
            runs_model("smollm2-thinker:135m", ("completion", "thinking")),
        ],
    )
    rows = finish(db, plan(db, cases=1, params=SamplingParams(max_tokens=64, num_ctx=512, think=Think.ON)))
    assert {row["model"]: (row["status"], bool(row["thinking"])) for row in rows} == {
        MODEL: ("ok", False),
        "smollm2-thinker:135m": ("ok", True),
    }


def runs_model(name: str, capabilities: tuple[str, ...]) -> connections.ModelInfo:
    return connections.ModelInfo(name, capabilities=capabilities)


def test_an_orderly_stop_gives_the_work_back_and_the_next_start_ends_it(db: Db, daemon: WireOllama) -> None:
    add_connection(db, daemon.url, MODEL)
    daemon.token_delay_s = 0.02
    run_id = plan(db, cases=3)
    first = Runner(db)
    first.start()
    wait(lambda: runs.get(db, run_id).counts["ok"] >= 1)
    first.stop()
    assert job(db, run_id).status is JobStatus.QUEUED
    daemon.token_delay_s = 0.0
    second = Runner(db)
    second.start()
    assert {row["status"] for row in finish(db, run_id)} == {"ok"}
    second.stop()


def test_a_call_that_breaks_in_our_own_code_is_a_row_and_holds_up_nothing(
    db: Db, daemon: WireOllama, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_connection(db, daemon.url, MODEL, concurrency=2)
    chat = OllamaProvider.chat

    async def broken(self: OllamaProvider, request: ChatRequest) -> ChatResult:
        if "person 1" in request.prompt:
            raise ZeroDivisionError
        return await chat(self, request)

    monkeypatch.setattr(OllamaProvider, "chat", broken)
    bad, *good = finish(db, plan(db, cases=3))
    assert (bad["status"], bad["error_class"]) == ("error", "ZeroDivisionError")
    assert [row["status"] for row in good] == ["ok", "ok"]


def test_the_digest_is_that_of_the_model_that_answered(db: Db, daemon: WireOllama, runner: Runner) -> None:
    add_connection(db, daemon.url, MODEL)  # last seen with another digest
    (row,) = finish(db, plan(db, cases=1))
    assert row["model_digest"] == daemon.installed[MODEL].digest


def test_several_calls_at_once_fill_every_row_once(db: Db, daemon: WireOllama, runner: Runner) -> None:
    add_connection(db, daemon.url, MODEL, concurrency=4)
    rows = finish(db, plan(db, cases=6, samples=2))
    assert len(rows) == 12 and {row["status"] for row in rows} == {"ok"}
    assert len([call for call in daemon.calls if call.path == "/api/chat" and call.json["messages"]]) == 12


def test_a_server_that_dies_under_several_calls_ends_the_job_once(
    db: Db, daemon: WireOllama, runner: Runner
) -> None:
    add_connection(db, daemon.url, MODEL, concurrency=4)
    daemon.token_delay_s = 0.05
    run_id = plan(db, cases=8)
    wait(lambda: len([call for call in daemon.calls if call.path == "/api/chat"]) >= 5)
    daemon.stop()
    finish(db, run_id)
    assert job(db, run_id).status is JobStatus.FAILED
    assert runs.get(db, run_id).counts["error"] == 0


def test_the_minutes_quota_is_shared_by_runs_that_follow_each_other(db: Db) -> None:
    assert generation._limiter(1, 60, None) is generation._limiter(1, 60, None)
    assert generation._limiter(1, 60, None) is not generation._limiter(2, 60, None)


def test_a_start_takes_up_at_once_what_a_killed_process_left(db: Db, daemon: WireOllama) -> None:
    add_connection(db, daemon.url, MODEL)
    run_id = plan(db, cases=1)
    assert jobs.claim(db, "killed", lease_s=600) is not None
    runner = Runner(db)
    runner.start()
    assert {row["status"] for row in finish(db, run_id)} == {"ok"}
    runner.stop()


def test_a_runner_that_lost_its_lease_cannot_end_the_job(db: Db) -> None:
    jobs.enqueue(db, JobKind.GENERATE, "lane", {"run": 1})
    slow = jobs.claim(db, "slow", lease_s=-1)
    quick = jobs.claim(db, "quick", lease_s=60)
    assert slow is not None and quick is not None and slow.id == quick.id
    assert not jobs.renew(db, slow, 60)
    assert not jobs.finish(db, slow, JobStatus.FAILED, "too late")
    assert jobs.finish(db, quick, JobStatus.DONE)


def test_a_full_disk_pauses_the_work_which_goes_on_when_there_is_room(
    db: Db, daemon: WireOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slam_app.jobs.LEASE_S", 1.0)
    monkeypatch.setattr("slam_app.jobs.STORE_PAUSE_S", 0.1)
    add_connection(db, daemon.url, MODEL)
    run_id = plan(db, cases=2)
    fill, failures = responses.fill, []

    def full(*args: object) -> bool:
        if len(failures) < 2:
            failures.append(1)
            raise DatabaseFull("The disk is full.")
        return fill(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(responses, "fill", full)
    runner = Runner(db)
    runner.start()
    rows = finish(db, run_id)
    runner.stop()
    assert len(failures) == 2
    assert {row["status"] for row in rows} == {"ok"}


def test_a_mistake_of_ours_ends_the_job_with_a_message(
    db: Db, runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> str:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("slam_app.jobs.HANDLERS", {JobKind.GENERATE: broken})
    job_id = jobs.enqueue(db, JobKind.GENERATE, "lane", {"run": 1})
    wait(lambda: jobs.get(db, job_id).status.ended)
    assert jobs.get(db, job_id).status is JobStatus.FAILED
    assert "unexpected" in jobs.get(db, job_id).message
    assert "secret detail" in caplog.text


def test_a_template_that_lacks_a_value_plans_nothing_and_names_the_case(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", MODEL)
    use_case_id = add_use_case(db)
    use_cases.save_template(db, use_case_id, "Greet {{ who }} from {{ place }}.")
    with pytest.raises(TemplateError, match=r"Case 'case 1'.*place"):
        generation.plan_run(
            db,
            template=use_cases.templates(db, use_case_id)[0],
            cases=use_cases.cases(db, use_case_id),
            model_ids=[connections.models(db)[0].id],
            samples=1,
            params=SamplingParams(),
        )
    assert runs.all_runs(db) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 3.0}, "temperature must be from 0 to 2"),
        ({"top_p": -0.1}, "top_p"),
        ({"num_ctx": 10}, "num_ctx"),
        ({"max_tokens": 4096}, "no room for the prompt"),
    ],
)
def test_nonsense_parameters_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generation.check_params(replace(SamplingParams(), **change))  # type: ignore[arg-type]
