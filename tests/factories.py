"""Rows that many tests need, made through the app's own functions."""

from __future__ import annotations

from slam_app.domain import (
    ChatResult,
    ConnectionKind,
    FinishReason,
    ModelInfo,
    SamplingParams,
)
from slam_app.store import connections, responses, runs, use_cases
from slam_app.store.db import Db

TEMPLATE = "Greet {{ who }} in one sentence."


def add_connection(db: Db, url: str = "http://127.0.0.1:1", *models: str, **options: object) -> int:
    """An Ollama connection with models as if just listed; its id."""
    connection_id = connections.add(
        db,
        name=f"Ollama {url}",
        kind=ConnectionKind.OLLAMA,
        base_url=url,
        **{"timeout_s": 20.0, **options},  # type: ignore[arg-type]
    )
    connections.remember_models(
        db,
        connection_id,
        [ModelInfo(name, digest=f"sha-{name}", capabilities=("completion",)) for name in models],
    )
    return connection_id


def add_use_case(db: Db, cases: int = 2) -> int:
    use_case_id = use_cases.create(db, "Greeting", "A friendly **greeting**.")
    use_cases.save_template(db, use_case_id, TEMPLATE)
    use_cases.add_cases(db, use_case_id, [(f"case {n}", {"who": f"person {n}"}) for n in range(1, cases + 1)])
    return use_case_id


def plan(db: Db, *, cases: int = 2, samples: int = 1, params: SamplingParams | None = None) -> int:
    """A run of all models there are; its id."""
    use_case_id = add_use_case(db, cases)
    return runs.plan(
        db,
        use_case_id=use_case_id,
        template_id=use_cases.templates(db, use_case_id)[0].id,
        prompts={case.id: f"Greet {case.values['who']}" for case in use_cases.cases(db, use_case_id)},
        model_ids=[model.id for model in connections.models(db)],
        samples=samples,
        params=params or SamplingParams(max_tokens=16, num_ctx=512),
    )


def fill_all(db: Db, run_id: int, failing: tuple[str, ...] = ()) -> None:
    """Give every pending response a text; those of the models `failing` an error."""
    for connection in connections.all_connections(db):
        for planned in responses.pending(db, run_id, connection.id):
            error = "The model process died." if planned.model in failing else ""
            responses.fill(
                db,
                planned,
                responses.Outcome(
                    ChatResult("" if error else f"Hello from {planned.id}.", finish_reason=FinishReason.STOP),
                    planned.params,
                    "2026-01-01T00:00:00.000+00:00",
                    error_class="ServerFailed" if error else "",
                    error=error,
                ),
            )
