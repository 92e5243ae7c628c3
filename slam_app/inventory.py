"""What models there are: refresh, load, unload, delete, pull. Pages and commands wait for the short ones."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

from slam_app import providers
from slam_app.domain import Connection, ConnectionKind, Job, JobKind, ModelInfo, SamplingParams
from slam_app.errors import ConfigError, InputError, ProviderError, TimedOut
from slam_app.providers import Provider
from slam_app.store import connections, jobs, settings
from slam_app.store.db import Db, now

T = TypeVar("T")

PROGRESS_EVERY_S = 0.5
REFRESH_TIMEOUT_S = 15.0
LOAD_TIMEOUT_S = 120.0


def checked_address(kind: ConnectionKind, url: str) -> str:
    """The base URL as it will be stored. Raises InputError."""
    url = url.strip().rstrip("/")
    if kind is ConnectionKind.EMBEDDED:
        return ""
    example = "http://127.0.0.1:11434" if kind is ConnectionKind.OLLAMA else "http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise InputError(f"The base URL must look like {example}: http or https, a host, maybe a port.")
    if kind is ConnectionKind.OLLAMA and parts.path.endswith("/v1"):
        raise InputError(
            "An address that ends in /v1 is of the kind OpenAI-compatible: choose that. "
            f"Ollama's own has no /v1, as in {example}, and offers more."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "The base URL must not hold a name, a password or a key: it is stored as it is. "
            "Put the key into an environment variable and enter that variable's name."
        )
    return url


def _ask(connection: Connection, question: Callable[[Provider], Awaitable[T]], timeout_s: float) -> T:
    """One short conversation with a server. Raises ProviderError, TimedOut when it takes too long."""

    async def talk() -> T:
        async with providers.connect(connection) as provider, asyncio.timeout(timeout_s):
            return await question(provider)

    try:
        return asyncio.run(talk())
    except TimeoutError:
        raise TimedOut(
            f"{connection.name} did not answer within {timeout_s:g} s. Check that the server is well, "
            "or try again when it is less busy."
        ) from None


def test(connection: Connection) -> str:
    """What answers there ("Ollama 0.24.0"). Raises ProviderError with the next step."""
    return _ask(connection, lambda provider: provider.version(), 8.0)


@dataclass(frozen=True, slots=True)
class Check:
    """How the last test of a connection went. `said`: what answered there, or the error's message."""

    at: str
    ok: bool
    said: str


def check(db: Db, connection: Connection) -> Check:
    """Test a connection, refresh its models, and remember how it went. A failure is an outcome here."""
    try:
        outcome = Check(now(), True, test(connection))
        refresh(db, connection)
    except (ProviderError, ConfigError) as error:
        outcome = Check(now(), False, str(error))
    settings.put(db, f"check-{connection.id}", json.dumps(asdict(outcome)))
    return outcome


def last_check(db: Db, connection: Connection) -> Check | None:
    """None when it was never tested."""
    stored = settings.get(db, f"check-{connection.id}")
    return Check(**json.loads(stored)) if stored else None


def refresh(db: Db, connection: Connection) -> list[ModelInfo]:
    """Ask a server for its models, with what each can do, and remember them. Raises ProviderError."""
    return _remember(db, connection, _ask(connection, lambda provider: provider.models(), REFRESH_TIMEOUT_S))


def _remember(db: Db, connection: Connection, infos: list[ModelInfo]) -> list[ModelInfo]:
    """Store and return `infos`, completed by what is known of the very same weights.

    A busy server may list a model and not tell its details; that must not offer an embedder for chat.
    """
    known = {
        model.name: model.info for model in connections.models(db) if model.connection_id == connection.id
    }
    infos = [_completed(info, known.get(info.name)) for info in infos]
    connections.remember_models(db, connection.id, infos)
    return infos


def _completed(info: ModelInfo, known: ModelInfo | None) -> ModelInfo:
    if info.capabilities or known is None or not info.digest or info.digest != known.digest:
        return info
    return replace(
        info,
        capabilities=known.capabilities,
        context_length=info.context_length or known.context_length,
    )


def load(db: Db, connection: Connection, name: str, params: SamplingParams) -> None:
    """Raises ProviderError, InputError when the connection manages no models."""
    _manage(db, connection, lambda provider: provider.load(name, params))


def unload(db: Db, connection: Connection, name: str) -> None:
    _manage(db, connection, lambda provider: provider.unload(name))


def delete(db: Db, connection: Connection, name: str) -> None:
    _manage(db, connection, lambda provider: provider.delete(name))


def _manage(db: Db, connection: Connection, action: Callable[[Provider], Awaitable[None]]) -> None:
    _ask(connection, action, LOAD_TIMEOUT_S)
    refresh(db, connection)


def start_pull(db: Db, connection: Connection, name: str) -> int:
    """Queue a job that fetches a model; its id. A pull of the same model that runs already is taken.

    Raises:
        InputError: no name, or a connection that can't fetch models.
    """
    if connection.kind is ConnectionKind.OPENAI:
        raise InputError(
            f"{connection.name} serves the models it was started with. "
            "Pull on an Ollama or embedded connection."
        )
    if not name.strip():
        raise InputError("Type the name of a model, for example smollm2:135m, or choose a preset.")
    lane = f"pull-{connection.id}-{name.strip()}"
    for job in jobs.find(db, JobKind.PULL, "model", name.strip()):
        if job.lane == lane and not job.status.ended:
            return job.id
    return jobs.enqueue(db, JobKind.PULL, lane, {"connection": connection.id, "model": name.strip()})


async def run_pull_job(db: Db, job: Job) -> str:
    """Fetch one model, storing progress about twice a second. Raises ProviderError."""
    connection = connections.get(db, job.payload["connection"])
    name = job.payload["model"]
    stored_at = 0.0
    moved, completed = now(), -1
    async with providers.connect(connection) as provider:
        async for step in provider.pull(name):
            if step.completed_bytes != completed:
                completed, moved = step.completed_bytes, now()
            if time.monotonic() - stored_at >= PROGRESS_EVERY_S:
                stored_at = time.monotonic()
                progress = {
                    "status": step.status,
                    "completed_bytes": step.completed_bytes,
                    "total_bytes": step.total_bytes,
                    "moved_at": moved,
                }
                await asyncio.to_thread(jobs.set_progress, db, job, progress)
        infos = await provider.models()
    await asyncio.to_thread(_remember, db, connection, infos)
    return f"{name} is ready."
