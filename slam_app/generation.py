"""Plans a run and fills its pending responses, one connection at a time, model by model."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from slam_app import prompts, providers
from slam_app.domain import (
    Case,
    ChatRequest,
    ChatResult,
    Connection,
    Job,
    PendingResponse,
    SamplingParams,
    Template,
    Think,
)
from slam_app.errors import InputError, ProviderError, SlamError, TemplateError, Unreachable
from slam_app.providers.base import Provider
from slam_app.providers.limits import RateLimiter
from slam_app.store import connections, responses, runs
from slam_app.store.db import Db, now

log = logging.getLogger(__name__)

MAX_RETRIES = 3
BACKOFF_S = 1.0
LONGEST_WAIT_S = 60.0
KEEP_LOADED_S = 600.0
"""Long enough that a model stays in memory between two calls; it is unloaded when its turn is over."""


def plan_run(
    db: Db,
    *,
    template: Template,
    cases: Sequence[Case],
    model_ids: Sequence[int],
    samples: int,
    params: SamplingParams,
) -> int:
    """Render every prompt and plan the run; nothing is planned when one of them fails.

    Raises:
        TemplateError: names the case whose prompt can't be rendered.
        InputError: a sampling parameter is out of range, or there is nothing to do.
    """
    check_params(params)
    rendered = {}
    for case in cases:
        try:
            rendered[case.id] = prompts.render(template.body, case.values)
        except TemplateError as error:
            raise TemplateError(f"Case {case.name!r}: {error}") from None
    return runs.plan(
        db,
        use_case_id=template.use_case_id,
        template_id=template.id,
        prompts=rendered,
        model_ids=model_ids,
        samples=samples,
        params=params,
    )


def check_params(params: SamplingParams) -> None:
    """Servers accept nonsense in silence, so it is refused here. Raises InputError."""
    for name, low, high in (
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("min_p", 0.0, 1.0),
        ("top_k", 0, 1000),
        ("repeat_penalty", 0.5, 2.0),
        ("max_tokens", 1, 100_000),
        ("num_ctx", 128, 1_000_000),
        ("seed", 0, 2**31 - 1000),
    ):
        if not low <= getattr(params, name) <= high:
            raise InputError(f"{name} must be from {low:g} to {high:g}, not {getattr(params, name):g}.")
    if params.max_tokens >= params.num_ctx:
        raise InputError(
            f"max_tokens ({params.max_tokens}) leaves no room for the prompt in a context of "
            f"{params.num_ctx} tokens. Lower it, or raise num_ctx."
        )


async def run_job(db: Db, job: Job) -> str:
    """Fill what is pending of a run on one connection; says at the end what there was.

    Returns normally also when single responses failed: each is a row with its error.

    Raises:
        Unreachable: nobody answers any more. What is left stays pending, for Resume.
    """
    connection = connections.get(db, job.payload["connection"])
    limiter = _limiter(connection.id, connection.requests_per_minute, connection.tokens_per_minute)
    pending = await asyncio.to_thread(responses.pending, db, job.payload["run"], connection.id)
    failed = 0
    async with providers.connect(connection) as provider:
        for _, group in groupby(pending, key=lambda response: response.model_id):
            failed += await _fill_model(db, provider, connection, limiter, list(group))
    return f"{len(pending)} calls, {failed} of them failed." if failed else f"{len(pending)} calls."


@functools.cache
def _limiter(_: int, requests_per_minute: int | None, tokens_per_minute: int | None) -> RateLimiter:
    """One per connection and limits, so that runs which follow each other share a minute's quota."""
    return RateLimiter(requests_per_minute, tokens_per_minute)


async def _fill_model(
    db: Db,
    provider: Provider,
    connection: Connection,
    limiter: RateLimiter,
    pending: Sequence[PendingResponse],
) -> int:
    """All of one model's calls, `connection.concurrency` at a time; the number that failed."""
    model, params = pending[0].model, pending[0].params

    async def worker(queue: Iterator[PendingResponse]) -> int:
        failed = 0
        for planned in queue:
            outcome = await call(provider, limiter, planned)
            await asyncio.to_thread(responses.fill, db, planned, outcome)
            failed += bool(outcome.error)
        return failed

    try:
        if provider.manages_models:
            pending = await _load(provider, model, params, pending)
        queue = iter(pending)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker(queue)) for _ in range(connection.concurrency)]
    except* SlamError as errors:
        raise errors.exceptions[0] from None  # one is enough: the others fail alike
    finally:
        if provider.manages_models:
            await _unload(provider, model)
    return sum(task.result() for task in workers)


async def _load(
    provider: Provider, model: str, params: SamplingParams, pending: Sequence[PendingResponse]
) -> Sequence[PendingResponse]:
    """Bring the model into memory, and note which one it is: it may have been pulled anew since the plan.

    A failure here costs nothing: the calls meet the same error, retry, and store it in their rows.
    """
    try:
        await provider.load(model, params)
        info = await provider.details(model)
    except ProviderError:
        return pending
    return [replace(planned, digest=info.digest, may_think=info.may_think) for planned in pending]


async def _unload(provider: Provider, model: str) -> None:
    """Make room for the next model. The answers are stored by now, so a failure here costs nothing."""
    try:
        async with asyncio.timeout(1.0):
            await provider.unload(model)
    except (ProviderError, TimeoutError):
        pass


async def call(provider: Provider, limiter: RateLimiter, planned: PendingResponse) -> responses.Outcome:
    """One call with bounded retries; a failure is an outcome like any other.

    Raises:
        Unreachable: nobody answers even after all retries. Not this response's fault.
    """
    params = replace(
        planned.params,
        seed=planned.params.seed + planned.sample - 1,
        think=planned.params.think
        if planned.may_think or planned.params.think is Think.OFF
        else Think.DEFAULT,
    )
    request = ChatRequest(planned.model, planned.prompt, params, keep_alive_s=KEEP_LOADED_S)
    tokens = len(planned.prompt) // 4 + params.max_tokens
    for attempt in range(MAX_RETRIES + 1):
        grant = await limiter.acquire(tokens)
        started_at = now()
        try:
            result = await provider.chat(request)
        except ProviderError as error:
            if error.retryable and attempt < MAX_RETRIES:
                await asyncio.sleep(_wait_s(error, attempt))
                continue
            if isinstance(error, Unreachable):
                raise
            return responses.Outcome(
                result=error.partial or ChatResult(""),
                params=params,
                started_at=started_at,
                retries=attempt,
                error_class=type(error).__name__,
                error=str(error),
            )
        except Exception as error:  # a mistake of ours must not hold up all that waits behind this call
            log.exception("Response %s of run %s", planned.id, planned.run_id)
            return responses.Outcome(
                result=ChatResult(""),
                params=params,
                started_at=started_at,
                retries=attempt,
                error_class=type(error).__name__,
                error="Something unexpected broke this call; the server's log has the details.",
            )
        limiter.settle((result.prompt_tokens or 0) + (result.output_tokens or 0), grant)
        return responses.Outcome(result, params, started_at, retries=attempt)
    raise AssertionError("the last attempt returns or raises")


def _wait_s(error: ProviderError, attempt: int) -> float:
    """Seconds until the next try: what the server asked for, else 1, 2, 4 s with some jitter."""
    if error.retry_after_s is not None:
        return min(error.retry_after_s, LONGEST_WAIT_S)
    return BACKOFF_S * 2.0**attempt * random.uniform(0.8, 1.2)
