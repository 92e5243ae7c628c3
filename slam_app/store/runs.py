"""Runs and their responses. A planned response is a pending row; it is filled once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slam_app.domain import (
    ChatResult,
    JobKind,
    JobStatus,
    PendingResponse,
    ResponseStatus,
    Run,
    SamplingParams,
)
from slam_app.errors import InputError, NotFound
from slam_app.store import jobs
from slam_app.store.db import Db, now


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one planned response. With an `error`, `result` holds what had arrived."""

    result: ChatResult
    params: SamplingParams
    started_at: str
    retries: int = 0
    error_class: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """Where one model of a run stands. `tokens_per_s` is output tokens over time spent in its calls."""

    model_id: int
    model: str
    connection_id: int
    pending: int
    ok: int
    errors: int
    tokens_per_s: float | None
    seconds_per_call: float | None

    @property
    def total(self) -> int:
        return self.pending + self.ok + self.errors


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
    """Make the failed responses of a run pending again and queue their jobs; how many.

    Responses that are part of a study stay as they are: raters may have seen them.
    """
    with db.write() as con:
        changed = con.execute(
            """UPDATE responses SET status = 'pending', text = '', thinking = '', error = '',
                      error_class = '', finish_reason = '', started_at = NULL, finished_at = NULL
               WHERE run_id = ? AND status = 'error'
                 AND id NOT IN (SELECT response_id FROM item_responses)""",
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


def pending(db: Db, run_id: int, connection_id: int) -> list[PendingResponse]:
    """What is still to do on one connection, model by model."""
    with db.read() as con:
        rows = list(
            con.query(
                """SELECT responses.id, responses.model_id, responses.sample, models.name AS model,
                          models.digest, models.capabilities_json, run_cases.prompt, runs.params_json
                   FROM responses
                   JOIN models ON models.id = responses.model_id
                   JOIN runs ON runs.id = responses.run_id
                   JOIN run_cases USING (run_id, case_id)
                   WHERE responses.run_id = ? AND models.connection_id = ? AND responses.status = 'pending'
                   ORDER BY responses.model_id, responses.id""",
                [run_id, connection_id],
            )
        )
    return [
        PendingResponse(
            id=row["id"],
            run_id=run_id,
            connection_id=connection_id,
            model_id=row["model_id"],
            model=row["model"],
            digest=row["digest"],
            can_think="thinking" in json.loads(row["capabilities_json"]),
            prompt=row["prompt"],
            sample=row["sample"],
            params=SamplingParams.from_dict(json.loads(row["params_json"])),
        )
        for row in rows
    ]


def fill(db: Db, planned: PendingResponse, outcome: Outcome) -> bool:
    """Store an outcome; False when the row was filled already, which keeps every response single."""
    result, timings = outcome.result, outcome.result.timings
    values = {
        "status": str(ResponseStatus.ERROR if outcome.error else ResponseStatus.OK),
        "text": result.text,
        "thinking": result.thinking,
        "error_class": outcome.error_class,
        "error": outcome.error,
        "finish_reason": str(result.finish_reason) if result.server_model or not outcome.error else "",
        "prompt_tokens": result.prompt_tokens,
        "output_tokens": result.output_tokens,
        "cached_tokens": result.cached_tokens,
        "reasoning_tokens": result.reasoning_tokens,
        "server_total_s": timings.total_s,
        "server_load_s": timings.load_s,
        "server_prompt_s": timings.prompt_s,
        "server_decode_s": timings.decode_s,
        "ttft_s": result.ttft_s,
        "ttfa_s": result.ttfa_s,
        "e2e_s": result.e2e_s,
        "retries": outcome.retries,
        "model_digest": planned.digest,
        "server_model": result.server_model,
        "request_id": result.request_id,
        "params_json": json.dumps(outcome.params.to_dict()),
        "started_at": outcome.started_at,
        "finished_at": now(),
    }
    assignments = ", ".join(f"{column} = :{column}" for column in values)
    with db.write() as con:
        return bool(
            con.execute(
                f"UPDATE responses SET {assignments} WHERE id = :id AND status = 'pending'",
                {**values, "id": planned.id},
            ).rowcount
        )


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


def progress(db: Db, run_id: int) -> list[ModelProgress]:
    """One row per model, in the order in which they were planned."""
    with db.read() as con:
        rows = con.query(
            """SELECT responses.model_id, models.name, models.connection_id,
                      sum(responses.status = 'pending') AS pending,
                      sum(responses.status = 'ok') AS ok,
                      sum(responses.status = 'error') AS errors,
                      sum(CASE WHEN responses.status = 'ok' THEN output_tokens END)
                          / sum(CASE WHEN responses.status = 'ok' AND output_tokens IS NOT NULL
                                     THEN e2e_s END) AS tokens_per_s,
                      avg(e2e_s) AS seconds_per_call
               FROM responses JOIN models ON models.id = responses.model_id
               WHERE run_id = ? GROUP BY responses.model_id ORDER BY min(responses.id)""",
            [run_id],
        )
        return [
            ModelProgress(
                row["model_id"],
                row["name"],
                row["connection_id"],
                row["pending"],
                row["ok"],
                row["errors"],
                row["tokens_per_s"],
                row["seconds_per_call"],
            )
            for row in rows
        ]


def responses(db: Db, run_id: int, *, case_id: int | None = None) -> list[dict[str, Any]]:
    """All that is stored of a run's responses, with the names of model and case, in planned order."""
    with db.read() as con:
        return list(_response_rows(con, run_id, case_id))


def _response_rows(con: Any, run_id: int, case_id: int | None) -> Iterator[dict[str, Any]]:
    rows: Iterator[dict[str, Any]] = con.query(
        """SELECT responses.*, models.name AS model, connections.name AS connection,
                  cases.name AS "case", run_cases.prompt
           FROM responses
           JOIN models ON models.id = responses.model_id
           JOIN connections ON connections.id = models.connection_id
           JOIN cases ON cases.id = responses.case_id
           JOIN run_cases USING (run_id, case_id)
           WHERE responses.run_id = :run AND (:case IS NULL OR responses.case_id = :case)
           ORDER BY responses.id""",
        {"run": run_id, "case": case_id},
    )
    return rows
