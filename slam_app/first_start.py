"""What an installation needs before anybody can use it: connections, a sample, a look at the servers."""

from __future__ import annotations

import logging

from slam_app import inventory, samples
from slam_app.config import Settings
from slam_app.domain import ConnectionKind
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
