"""Connections and the models last seen on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from slam_app.domain import Connection, ConnectionKind, Model, ModelInfo
from slam_app.errors import InputError, NotFound
from slam_app.store import jobs
from slam_app.store.db import Db, IntegrityError, now


def add(
    db: Db,
    *,
    name: str,
    kind: ConnectionKind,
    base_url: str = "",
    api_key_env: str = "",
    concurrency: int = 1,
    timeout_s: float = 300.0,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> int:
    """The id of the new connection.

    Raises:
        InputError: the name is empty or taken, or a number is out of range.
    """
    if not name.strip():
        raise InputError("The connection needs a name.")
    values = {
        "name": name.strip(),
        "kind": str(kind),
        "base_url": base_url.strip().rstrip("/"),
        "api_key_env": api_key_env.strip(),
        "concurrency": concurrency,
        "timeout_s": timeout_s,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "created_at": now(),
    }
    try:
        with db.write() as con:
            return int(con.table("connections").insert(values).last_pk or 0)
    except IntegrityError as error:
        if "UNIQUE" in str(error):
            raise InputError(
                f"There is already a connection called {name.strip()!r}. Choose another name."
            ) from None
        raise InputError(f"This connection can't be saved: {error}.") from None


def remove(db: Db, connection_id: int) -> None:
    """Hide a connection and its models, and cancel its jobs; what its models answered stays."""
    with db.write() as con:
        at = now()
        jobs.cancel_in(con, "connection", connection_id)
        con.execute("UPDATE connections SET removed_at = ? WHERE id = ?", [at, connection_id])
        con.execute(
            "UPDATE models SET removed_at = ? WHERE connection_id = ? AND removed_at IS NULL",
            [at, connection_id],
        )


def all_connections(db: Db) -> list[Connection]:
    with db.read() as con:
        rows = con.query("SELECT * FROM connections WHERE removed_at IS NULL ORDER BY id")
        return [_connection(row) for row in rows]


def get(db: Db, connection_id: int) -> Connection:
    """Also a removed one: old responses still point to it."""
    with db.read() as con:
        for row in con.query("SELECT * FROM connections WHERE id = ?", [connection_id]):
            return _connection(row)
    raise NotFound(f"There is no connection {connection_id}. It may have been removed; see Models.")


def remember_models(db: Db, connection_id: int, infos: Iterable[ModelInfo]) -> None:
    """Store what a server listed just now. Models that it no longer has are hidden, not deleted."""
    at = now()
    with db.write() as con:
        con.execute(
            "UPDATE models SET removed_at = ?, loaded = 0 WHERE connection_id = ? AND removed_at IS NULL",
            [at, connection_id],
        )
        for info in infos:
            con.table("models").upsert(
                {
                    "connection_id": connection_id,
                    "name": info.name,
                    "digest": info.digest,
                    "family": info.family,
                    "parameters_b": info.parameters_b,
                    "quantization": info.quantization,
                    "size_bytes": info.size_bytes,
                    "context_length": info.context_length,
                    "capabilities_json": json.dumps(info.capabilities),
                    "loaded": int(info.loaded),
                    "memory_bytes": info.memory_bytes,
                    "vram_bytes": info.vram_bytes,
                    "loaded_context": info.loaded_context,
                    "kept_until": info.kept_until.isoformat() if info.kept_until else None,
                    "path": info.path,
                    "seen_at": at,
                    "removed_at": None,
                },
                pk=("connection_id", "name"),
            )


def models(db: Db, *, only: Iterable[int] | None = None) -> list[Model]:
    """Models that are there now; with `only`, exactly these ids, even if they are gone since."""
    where, args = "models.removed_at IS NULL AND connections.removed_at IS NULL", []
    if only is not None:
        where, args = "models.id IN (SELECT value FROM json_each(?))", [json.dumps(list(only))]
    with db.read() as con:
        rows = con.query(
            f"""SELECT models.*, connections.name AS connection, connections.kind
                FROM models JOIN connections ON connections.id = models.connection_id
                WHERE {where} ORDER BY connections.id, models.name""",
            args,
        )
        return [_model(row) for row in rows]


def model(db: Db, model_id: int) -> Model:
    for found in models(db, only=[model_id]):
        return found
    raise NotFound(f"There is no model {model_id}. Open Models and refresh the list.")


def _connection(row: Mapping[str, Any]) -> Connection:
    return Connection(
        id=row["id"],
        name=row["name"],
        kind=ConnectionKind(row["kind"]),
        base_url=row["base_url"],
        api_key_env=row["api_key_env"],
        concurrency=row["concurrency"],
        timeout_s=row["timeout_s"],
        requests_per_minute=row["requests_per_minute"],
        tokens_per_minute=row["tokens_per_minute"],
    )


def _model(row: Mapping[str, Any]) -> Model:
    return Model(
        id=row["id"],
        connection_id=row["connection_id"],
        connection=row["connection"],
        kind=ConnectionKind(row["kind"]),
        info=ModelInfo(
            name=row["name"],
            digest=row["digest"],
            family=row["family"],
            parameters_b=row["parameters_b"],
            quantization=row["quantization"],
            size_bytes=row["size_bytes"],
            context_length=row["context_length"],
            capabilities=tuple(json.loads(row["capabilities_json"])),
            loaded=bool(row["loaded"]),
            memory_bytes=row["memory_bytes"],
            vram_bytes=row["vram_bytes"],
            loaded_context=row["loaded_context"],
            kept_until=datetime.fromisoformat(row["kept_until"]) if row["kept_until"] else None,
            path=row["path"],
        ),
        seen_at=row["seen_at"],
    )
