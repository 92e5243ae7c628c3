"""What an installation needs before anybody can use it: connections, a sample, a look at the servers."""

from __future__ import annotations

import logging
import re

from slam_app import inventory, samples
from slam_app.config import Settings
from slam_app.domain import Connection, ConnectionKind, UseCase
from slam_app.errors import ConfigError, InputError, StoreError
from slam_app.store import connections, use_cases
from slam_app.store.db import Db

log = logging.getLogger(__name__)


def prepare(db: Db, settings: Settings) -> None:
    """Give an empty database its connections and the sample use case; leave any other as it is.

    Raises:
        ConfigError: OLLAMA_HOST or OPENAI_BASE_URL can't be the address of a connection.
    """
    if not connections.all_connections(db):
        ollama = _checked("OLLAMA_HOST", ConnectionKind.OLLAMA, _ollama_url(settings.ollama_host))
        openai = settings.openai_base_url
        if settings.openai_api_key_set:
            openai = _checked("OPENAI_BASE_URL", ConnectionKind.OPENAI, openai)
        connections.add(db, name="Embedded", kind=ConnectionKind.EMBEDDED)
        connections.add(db, name="Ollama", kind=ConnectionKind.OLLAMA, base_url=ollama)
        if settings.openai_api_key_set:
            connections.add(
                db,
                name="OpenAI",
                kind=ConnectionKind.OPENAI,
                base_url=openai,
                api_key_env="OPENAI_API_KEY",
                concurrency=4,
            )
    if not use_cases.all_use_cases(db):
        install_sample(db)


def _checked(variable: str, kind: ConnectionKind, url: str) -> str:
    try:
        return inventory.checked_address(kind, url)
    except InputError as error:
        raise ConfigError(f"{variable} can't be used. {error}") from None


def _ollama_url(host: str) -> str:
    """OLLAMA_HOST as a URL: Ollama takes it without the scheme, the host or the port."""
    if "://" in host:
        return host
    host = host.rstrip("/")
    host = f"127.0.0.1{host}" if host.startswith(":") else host
    return f"http://{host}" if re.search(r":\d+$", host) else f"http://{host}:11434"


def install_sample(db: Db) -> int:
    """The sample use case with its template and cases; its id."""
    sample = samples.daily_briefing()
    use_case_id = use_cases.create(db, sample.name, sample.description)
    use_cases.save_template(db, use_case_id, sample.template)
    use_cases.add_cases(db, use_case_id, [(case.name, case.values) for case in sample.cases])
    return use_case_id


def embedded_connection(db: Db) -> Connection:
    """The connection of the embedded engine, made anew if it was removed."""
    for connection in connections.all_connections(db):
        if connection.kind is ConnectionKind.EMBEDDED:
            return connection
    return connections.get(db, connections.add(db, name="Embedded", kind=ConnectionKind.EMBEDDED))


def sample_use_case(db: Db) -> UseCase:
    """The sample, made anew if it is not there or was emptied."""
    name = samples.daily_briefing().name
    for use_case in use_cases.all_use_cases(db):
        if (
            use_case.name == name
            and use_cases.templates(db, use_case.id)
            and use_cases.cases(db, use_case.id)
        ):
            return use_case
    return use_cases.get(db, install_sample(db))


def look_at_servers(db: Db) -> None:
    """Refresh the models of every connection that answers. Takes seconds, so it runs beside the server."""
    for connection in connections.all_connections(db):
        try:
            outcome = inventory.check(db, connection)
        except StoreError as error:
            log.error("%s: %s", connection.name, error)
            continue
        if not outcome.ok:
            log.info("%s: %s", connection.name, outcome.said)
