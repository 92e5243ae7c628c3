"""Use cases, the versions of their templates, and their cases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from slam_app.domain import Case, Template, UseCase
from slam_app.errors import InputError, NotFound
from slam_app.store.db import Db, IntegrityError, now


def create(db: Db, name: str, description: str = "") -> int:
    """Raises InputError when the name is empty or taken."""
    with _name_taken(name), db.write() as con:
        row = {"name": name.strip(), "description": description, "created_at": now()}
        return int(con.table("use_cases").insert(row).last_pk or 0)


def update(db: Db, use_case_id: int, *, name: str, description: str, incumbent_model_id: int | None) -> None:
    """Raises InputError when the name is empty or taken."""
    with _name_taken(name), db.write() as con:
        con.execute(
            "UPDATE use_cases SET name = ?, description = ?, incumbent_model_id = ? WHERE id = ?",
            [name.strip(), description, incumbent_model_id, use_case_id],
        )


def all_use_cases(db: Db) -> list[UseCase]:
    with db.read() as con:
        return [_use_case(row) for row in con.query("SELECT * FROM use_cases ORDER BY id")]


def get(db: Db, use_case_id: int) -> UseCase:
    with db.read() as con:
        for row in con.query("SELECT * FROM use_cases WHERE id = ?", [use_case_id]):
            return _use_case(row)
    raise NotFound(f"There is no use case {use_case_id}. Choose one on Prompts.")


def templates(db: Db, use_case_id: int) -> list[Template]:
    """All versions, the newest first."""
    with db.read() as con:
        rows = con.query(
            """SELECT *, EXISTS (SELECT 1 FROM runs WHERE runs.template_id = templates.id) AS used
               FROM templates WHERE use_case_id = ? ORDER BY version DESC""",
            [use_case_id],
        )
        return [
            Template(row["id"], row["use_case_id"], row["version"], row["body"], bool(row["used"]))
            for row in rows
        ]


def save_template(db: Db, use_case_id: int, body: str) -> int:
    """The version that now holds `body`: the newest one while no run has used it, else a new one."""
    newest = next(iter(templates(db, use_case_id)), None)
    if newest is not None and newest.body == body:
        return newest.version
    with db.write() as con:
        if newest is not None:
            changed = con.execute(
                """UPDATE templates SET body = ? WHERE id = ?
                   AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.template_id = templates.id)""",
                [body, newest.id],
            ).rowcount
            if changed:
                return newest.version
        version: int = con.execute(
            "SELECT coalesce(max(version), 0) + 1 FROM templates WHERE use_case_id = ?", [use_case_id]
        ).fetchone()[0]
        con.table("templates").insert(
            {"use_case_id": use_case_id, "version": version, "body": body, "created_at": now()}
        )
        return version


def cases(db: Db, use_case_id: int) -> list[Case]:
    with db.read() as con:
        rows = con.query(
            "SELECT * FROM cases WHERE use_case_id = ? AND removed_at IS NULL ORDER BY id", [use_case_id]
        )
        return [
            Case(row["id"], row["use_case_id"], row["name"], json.loads(row["values_json"])) for row in rows
        ]


def add_cases(db: Db, use_case_id: int, new: Iterable[tuple[str, Mapping[str, Any]]]) -> int:
    """All of them or none; the number added.

    Raises:
        InputError: a name is empty or already used by another case of this use case.
    """
    at = now()
    rows = [
        {
            "use_case_id": use_case_id,
            "name": name.strip(),
            "values_json": json.dumps(values, ensure_ascii=False),
            "created_at": at,
        }
        for name, values in new
    ]
    with db.read() as con:
        taken = {
            row[0]
            for row in con.execute(
                "SELECT name FROM cases WHERE use_case_id = ? AND removed_at IS NULL", [use_case_id]
            )
        }
    for row in rows:
        if not row["name"]:
            raise InputError("Every case needs a name.")
        if row["name"] in taken:
            raise InputError(
                f"There is already a case called {row['name']!r}. Nothing was added; "
                "choose another name, or delete the old case first."
            )
        taken.add(row["name"])
    with db.write() as con:
        con.table("cases").insert_all(rows)
    return len(rows)


def update_case(db: Db, case_id: int, name: str, values: Mapping[str, Any]) -> None:
    """Runs keep the prompt they were planned with. Raises InputError when the name is empty or taken."""
    with _name_taken(name), db.write() as con:
        con.execute(
            "UPDATE cases SET name = ?, values_json = ? WHERE id = ?",
            [name.strip(), json.dumps(values, ensure_ascii=False), case_id],
        )


def remove_case(db: Db, case_id: int) -> None:
    """Hide a case; its responses and ratings stay."""
    with db.write() as con:
        con.execute("UPDATE cases SET removed_at = ? WHERE id = ?", [now(), case_id])


@contextmanager
def _name_taken(name: str) -> Iterator[None]:
    """Says in words that a name is empty or taken."""
    if not name.strip():
        raise InputError("A name is needed.")
    try:
        yield
    except IntegrityError:
        raise InputError(f"The name {name.strip()!r} is taken. Choose another one.") from None


def _use_case(row: Mapping[str, Any]) -> UseCase:
    return UseCase(row["id"], row["name"], row["description"], row["incumbent_model_id"])
