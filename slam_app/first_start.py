"""What an installation needs before anybody can use it: connections, a sample, a look at the servers."""

from __future__ import annotations

import logging

from slam_app import inventory, samples
from slam_app.config import Settings
from slam_app.domain import Connection, ConnectionKind, UseCase
from slam_app.errors import StoreError
from slam_app.store import connections, use_cases
from slam_app.store.db import Db

log = logging.getLogger(__name__)


def prepare(db: Db, settings: Settings) -> None:
    """Give an empty database its connections and the sample use case; leave any other as it is."""
    if not connections.all_connections(db):
        connections.add(db, name="Embedded", kind=ConnectionKind.EMBEDDED)
        connections.add(db, name="Ollama", kind=ConnectionKind.OLLAMA, base_url=settings.ollama_host)
        if settings.openai_api_key_set:
            connections.add(
                db,
                name="OpenAI",
                kind=ConnectionKind.OPENAI,
                base_url=settings.openai_base_url,
                api_key_env="OPENAI_API_KEY",
                concurrency=4,
            )
    if not use_cases.all_use_cases(db):
        install_sample(db)


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
