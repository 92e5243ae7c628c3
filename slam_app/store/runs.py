"""Runs and their responses. A planned response is a pending row; it is filled once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from slam_app.domain import (
    JobKind,
    JobStatus,
    ResponseStatus,
    Run,
    SamplingParams,
)
from slam_app.errors import InputError, NotFound
from slam_app.store import jobs
from slam_app.store.db import Db, now

MAX_CALLS = 200_000


def plan(
    db: Db,
    *,
    use_case_id: int,
    template_id: int,
    prompts: Mapping[int, str],
    model_ids: Sequence[int],
    samples: int,
    params: SamplingParams,
) -> int:
    """Plan models x cases x samples as pending rows, with one job per connection; the run's id.

    Args:
        prompts: case id -> the rendered prompt.

    Raises:
        InputError: no model, no case, or a number out of range.
    """
    if not model_ids or not prompts:
        raise InputError("A run needs at least one model and one case. Choose them and start again.")
    if len(model_ids) * len(prompts) * samples > MAX_CALLS:
        raise InputError(
            f"That would be {len(model_ids) * len(prompts) * samples:,} calls, more than {MAX_CALLS:,}. "
            "Choose fewer models, cases or samples."
        )
    if not 1 <= samples <= 100:
        raise InputError("Samples per case must be from 1 to 100.")
    with db.write() as con:
        run_id = int(
            con.table("runs")
            .insert(
                {
                    "use_case_id": use_case_id,
                    "template_id": template_id,
                    "samples": samples,
                    "params_json": json.dumps(params.to_dict()),
                    "created_at": now(),
                }
            )
            .last_pk
            or 0
        )
        con.table("run_cases").insert_all(
            {"run_id": run_id, "case_id": case_id, "prompt": prompt} for case_id, prompt in prompts.items()
        )
        con.execute(
            """WITH RECURSIVE sample (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM sample WHERE n < :samples)
               INSERT INTO responses (run_id, model_id, case_id, sample)
               SELECT :run, model.value, run_cases.case_id, sample.n
               FROM json_each(:models) AS model, run_cases, sample
               WHERE run_cases.run_id = :run
               ORDER BY model.key, sample.n, run_cases.case_id""",
            {"run": run_id, "models": json.dumps(list(model_ids)), "samples": samples},
        )
        _enqueue(con, run_id)
    return run_id


def resume(db: Db, run_id: int) -> int:
    """Queue a job for each connection that has pending responses and no job yet; how many."""
    with db.write() as con:
        return _enqueue(con, run_id)


def retry_errors(db: Db, run_id: int) -> int:
    """Make the failed responses of a run pending again and queue their jobs; how many."""
    with db.write() as con:
        changed = con.execute(
            """UPDATE responses SET status = 'pending', text = '', thinking = '', error = '',
                      error_class = '', finish_reason = '', started_at = NULL, finished_at = NULL,
                      prompt_tokens = NULL, output_tokens = NULL, ttft_s = NULL, ttfa_s = NULL, e2e_s = NULL
               WHERE run_id = ? AND status = 'error'""",
            [run_id],
        ).rowcount
        _enqueue(con, run_id)
    return changed


def _enqueue(con: Any, run_id: int) -> int:
    waiting = con.execute(
        """SELECT DISTINCT models.connection_id
           FROM responses JOIN models ON models.id = responses.model_id
           WHERE responses.run_id = :run AND responses.status = 'pending'
             AND NOT EXISTS (
                 SELECT 1 FROM jobs WHERE kind = :kind AND status IN ('queued', 'running')
                   AND json_extract(payload_json, '$.run') = :run
                   AND json_extract(payload_json, '$.connection') = models.connection_id)""",
        {"run": run_id, "kind": str(JobKind.GENERATE)},
    ).fetchall()
    for (connection_id,) in waiting:
        jobs.enqueue_in(
            con,
            JobKind.GENERATE,
            f"connection-{connection_id}",
            {"run": run_id, "connection": connection_id},
        )
    return len(waiting)


def all_runs(db: Db) -> list[Run]:
    """The newest first."""
    return _runs(db, "", [])


def get(db: Db, run_id: int) -> Run:
    for run in _runs(db, "WHERE runs.id = ?", [run_id]):
        return run
    raise NotFound(f"There is no run {run_id}. See Generate for the runs there are.")


def latest(db: Db) -> Run:
    for run in _runs(db, "", []):
        return run
    raise NotFound("There is no run yet. Start one on Generate, or with `python -m slam_app run`.")


def _runs(db: Db, where: str, args: list[Any]) -> list[Run]:
    with db.read() as con:
        rows = list(
            con.query(
                f"""SELECT runs.*, use_cases.name AS use_case, templates.version,
                           (SELECT json_group_object(status, n) FROM (
                               SELECT status, count(*) AS n FROM responses
                               WHERE run_id = runs.id GROUP BY status)) AS counts
                    FROM runs
                    JOIN use_cases ON use_cases.id = runs.use_case_id
                    JOIN templates ON templates.id = runs.template_id
                    {where} ORDER BY runs.id DESC""",
                args,
            )
        )
    return [
        Run(
            id=row["id"],
            use_case_id=row["use_case_id"],
            use_case=row["use_case"],
            template_version=row["version"],
            samples=row["samples"],
            params=SamplingParams.from_dict(json.loads(row["params_json"])),
            created_at=row["created_at"],
            counts={status: json.loads(row["counts"]).get(status, 0) for status in ResponseStatus},
        )
        for row in rows
    ]


def active_jobs(db: Db, run_id: int) -> bool:
    """Whether something works on this run, or waits to."""
    found = jobs.find(db, JobKind.GENERATE, "run", run_id)
    return any(job.status in (JobStatus.QUEUED, JobStatus.RUNNING) for job in found)


def cancel(db: Db, run_id: int) -> None:
    for job in jobs.find(db, JobKind.GENERATE, "run", run_id):
        if not job.status.ended:
            jobs.request_cancel(db, job.id)
