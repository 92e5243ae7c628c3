"""kill -9 in mid-generation, then a restart."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil

from slam_app import generation
from slam_app.domain import Run, SamplingParams
from slam_app.store import connections, responses, runs, use_cases
from slam_app.store.db import Db
from tests.serving import Server

CASES, SAMPLES = 2, 4


def plan(db: Db) -> int:
    use_case = use_cases.all_use_cases(db)[0]
    until = time.monotonic() + 60
    while not (models := connections.models(db)):  # the server looks for them in the background
        assert time.monotonic() < until, "the server found no model"
        time.sleep(0.2)
    return generation.plan_run(
        db,
        template=use_cases.templates(db, use_case.id)[0],
        cases=use_cases.cases(db, use_case.id)[:CASES],
        model_ids=[model.id for model in models if "smollm" in model.name],
        samples=SAMPLES,
        params=SamplingParams(max_tokens=48),
    )


def wait_until_filled(db: Db, run_id: int, at_least: int, within_s: float) -> Run:
    until = time.monotonic() + within_s
    while (run := runs.get(db, run_id)).total - run.counts["pending"] < at_least:
        assert time.monotonic() < until, f"too slow: {run.counts}, {runs.active_jobs(db, run_id)}"
        time.sleep(0.05)
    return run


def test_every_planned_response_exists_exactly_once_after_kill_and_restart(tmp_path: Path) -> None:
    server = Server(tmp_path / "slam.db").start()
    db = Db(server.db)
    try:
        run_id = plan(db)
        wait_until_filled(db, run_id, 2, within_s=120)
        children = psutil.Process(server.process.pid).children(recursive=True) if server.process else []
        server.kill()
        filled = {row["id"]: row for row in responses.of_run(db, run_id) if row["status"] != "pending"}
        assert len(filled) < CASES * SAMPLES, "killed too late to prove anything"
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, "a model process outlived the server"

        server.start()
        wait_until_filled(db, run_id, CASES * SAMPLES, within_s=180)
    finally:
        server.stop()
    rows = responses.of_run(db, run_id)
    identities = Counter((row["model_id"], row["case_id"], row["sample"]) for row in rows)
    assert set(identities.values()) == {1}
    assert len(rows) == CASES * SAMPLES
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row == filled[row["id"]] for row in rows if row["id"] in filled), "an answer was replaced"
    assert db.check() == []
    db.close()
