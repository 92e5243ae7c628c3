"""The responses of a run: what is pending, filling it once, and reading what came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slam_app.domain import ChatResult, ModelInfo, PendingResponse, ResponseStatus, SamplingParams
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
            may_think=ModelInfo(
                row["model"],
                digest=row["digest"],
                capabilities=tuple(json.loads(row["capabilities_json"])),
            ).may_think,
            prompt=row["prompt"],
            sample=row["sample"],
            params=SamplingParams.from_dict(json.loads(row["params_json"])),
        )
        for row in rows
    ]


def fill(db: Db, planned: PendingResponse, outcome: Outcome) -> bool:
    """Store an outcome; False when the row was filled already, which keeps every response single."""
    result, timings = outcome.result, outcome.result.timings
    texts = {
        "text": result.text,
        "thinking": result.thinking,
        "error": outcome.error,
        "server_model": result.server_model,
        "request_id": result.request_id,
    }
    counts = {
        "prompt_tokens": result.prompt_tokens,
        "output_tokens": result.output_tokens,
        "cached_tokens": result.cached_tokens,
        "reasoning_tokens": result.reasoning_tokens,
    }
    values = {
        **{column: _storable(text) for column, text in texts.items()},
        **{column: count if _fits(count) else None for column, count in counts.items()},
        "status": str(ResponseStatus.ERROR if outcome.error else ResponseStatus.OK),
        "error_class": outcome.error_class,
        "finish_reason": str(result.finish_reason) if result.server_model or not outcome.error else "",
        "server_total_s": timings.total_s,
        "server_load_s": timings.load_s,
        "server_prompt_s": timings.prompt_s,
        "server_decode_s": timings.decode_s,
        "ttft_s": result.ttft_s,
        "ttfa_s": result.ttfa_s,
        "e2e_s": result.e2e_s,
        "retries": outcome.retries,
        "model_digest": planned.digest,
        "params_json": json.dumps(_sent(outcome)),
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


def of_run(
    db: Db, run_id: int, *, case_id: int | None = None, sample: int | None = None
) -> list[dict[str, Any]]:
    """All that is stored of a run's responses, with the names of model and case, in planned order."""
    with db.read() as con:
        return list(
            con.query(
                """SELECT responses.*, models.name AS model, connections.name AS connection,
                  cases.name AS "case", run_cases.prompt
           FROM responses
           JOIN models ON models.id = responses.model_id
           JOIN connections ON connections.id = models.connection_id
           JOIN cases ON cases.id = responses.case_id
           JOIN run_cases USING (run_id, case_id)
           WHERE responses.run_id = :run AND (:case IS NULL OR responses.case_id = :case)
             AND (:sample IS NULL OR responses.sample = :sample)
           ORDER BY responses.id""",
                {"run": run_id, "case": case_id, "sample": sample},
            )
        )


def cases_of(db: Db, run_id: int) -> dict[int, str]:
    """The names of a run's cases by id, in planned order."""
    with db.read() as con:
        rows = con.execute(
            """SELECT cases.id, cases.name FROM run_cases JOIN cases ON cases.id = run_cases.case_id
               WHERE run_cases.run_id = ? ORDER BY cases.id""",
            [run_id],
        )
        return dict(rows.fetchall())


def previews(
    db: Db,
    run_id: int,
    *,
    model_ids: Sequence[int],
    status: ResponseStatus | None = None,
    limit: int,
    offset: int = 0,
) -> list[dict[str, Any]]:
    """Some of a run's responses in planned order, their texts cut to 300 characters, without prompts."""
    with db.read() as con:
        return list(
            con.query(
                """SELECT responses.id, model_id, cases.name AS "case", sample, status,
                          substr(text, 1, 300) AS text, substr(error, 1, 300) AS error, finish_reason,
                          prompt_tokens, output_tokens, ttft_s, e2e_s, retries
                   FROM responses JOIN cases ON cases.id = responses.case_id
                   WHERE run_id = :run AND model_id IN (SELECT value FROM json_each(:models))
                     AND (:status IS NULL OR status = :status)
                   ORDER BY responses.id LIMIT :limit OFFSET :offset""",
                {
                    "run": run_id,
                    "models": json.dumps(list(model_ids)),
                    "status": status and str(status),
                    "limit": limit,
                    "offset": offset,
                },
            )
        )


def _sent(outcome: Outcome) -> dict[str, Any]:
    """The sampling parameters as sent: without those that the server refused."""
    dropped = outcome.result.dropped
    return {name: value for name, value in outcome.params.to_dict().items() if name not in dropped}


def _storable(text: str) -> str:
    """A model can emit half a surrogate pair, which UTF-8 and so SQLite can't hold."""
    return text.encode("utf-8", "replace").decode()


def _fits(count: int | None) -> bool:
    """Whether SQLite can hold a number that a server made up."""
    return count is not None and 0 <= count < 2**63
