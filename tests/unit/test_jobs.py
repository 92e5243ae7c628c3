"""The runner when things overlap: endings during renewals, pauses of the machine, mistakes of ours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from slam_app import jobs as runners
from slam_app.domain import Job, JobKind, JobStatus
from slam_app.jobs import Runner
from slam_app.store import jobs
from slam_app.store.db import Db

Handler = Callable[[Db, Job], object]


@pytest.fixture
def runner(db: Db, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setattr(runners, "POLL_S", 0.02)
    monkeypatch.setattr(runners, "STORE_PAUSE_S", 0.05)
    runner = Runner(db)
    yield runner
    runner.stop()


def handle(monkeypatch: pytest.MonkeyPatch, handler: Handler) -> None:
    monkeypatch.setattr(runners, "HANDLERS", {JobKind.GENERATE: handler})


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def enqueue(db: Db, lane: str) -> int:
    return jobs.enqueue(db, JobKind.GENERATE, lane, {})


def status(db: Db, job_id: int) -> JobStatus:
    return jobs.get(db, job_id).status


async def long_work(db: Db, job: Job) -> str:
    await asyncio.sleep(60)
    return "never"


def test_a_job_that_ends_while_its_lease_is_renewed_harms_nobody(
    db: Db, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "LEASE_S", 0.3)
    asked, ended = threading.Event(), threading.Event()
    renew = jobs.renew

    def slow_renew(db: Db, job: Job, lease_s: float) -> bool:
        if job.lane == "short":
            asked.set()
            ended.wait(5)
        return renew(db, job, lease_s)

    async def work(db: Db, job: Job) -> str:
        if job.lane == "short":
            await asyncio.to_thread(asked.wait, 5)
            asyncio.get_running_loop().call_later(0.2, ended.set)
            return "done"
        return await long_work(db, job)

    monkeypatch.setattr(jobs, "renew", slow_renew)
    handle(monkeypatch, work)
    short, innocent = enqueue(db, "short"), enqueue(db, "long")
    runner.start()
    wait(lambda: status(db, short) is JobStatus.DONE)
    time.sleep(0.3)
    assert runner.alive
    assert status(db, innocent) is JobStatus.RUNNING


def test_a_pause_longer_than_the_lease_starts_nothing_twice(
    db: Db, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    async def work(db: Db, job: Job) -> str:
        starts.append(job.id)
        return await long_work(db, job)

    handle(monkeypatch, work)
    job_id = enqueue(db, "lane")
    other = enqueue(db, "lane")
    runner.start()
    wait(lambda: starts)
    with db.write() as con:  # what a laptop's sleep does to a lease
        con.execute("UPDATE jobs SET lease_until = '2000-01-01' WHERE id = ?", [job_id])
    time.sleep(0.3)
    assert starts == [job_id]
    assert status(db, other) is JobStatus.QUEUED
    jobs.request_cancel(db, job_id)
    wait(lambda: status(db, job_id) is JobStatus.CANCELLED)


def test_a_stumble_of_the_runner_does_not_end_it(
    db: Db, runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim, failures = jobs.claim, []

    def stumble(*args: object) -> Job | None:
        if len(failures) < 2:
            failures.append(1)
            raise RuntimeError("unforeseen")
        return claim(*args)  # type: ignore[arg-type]

    async def work(db: Db, job: Job) -> str:
        return "done"

    monkeypatch.setattr(jobs, "claim", stumble)
    handle(monkeypatch, work)
    job_id = enqueue(db, "lane")
    runner.start()
    wait(lambda: status(db, job_id) is JobStatus.DONE)
    assert "stumbled" in caplog.text


def test_a_lost_lease_ends_the_work_without_a_verdict(
    db: Db, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "LEASE_S", 0.3)
    handle(monkeypatch, long_work)
    job_id = enqueue(db, "lane")
    runner.start()
    wait(lambda: status(db, job_id) is JobStatus.RUNNING)
    with db.write() as con:  # as if another runner had claimed it
        con.execute("UPDATE jobs SET fence = fence + 1, lease_until = '2999-01-01' WHERE id = ?", [job_id])
    wait(lambda: not runner._held)
    assert status(db, job_id) is JobStatus.RUNNING
    assert jobs.get(db, job_id).message == ""
