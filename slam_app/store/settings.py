"""Key-value settings and the logins of admins."""

from __future__ import annotations

from slam_app.store.db import Db, now


def get(db: Db, key: str) -> str | None:
    with db.read() as con:
        row = con.execute("SELECT value FROM settings WHERE key = ?", [key]).fetchone()
        return row[0] if row else None


def put(db: Db, key: str, value: str) -> None:
    with db.write() as con:
        con.table("settings").upsert({"key": key, "value": value}, pk="key")


def add_session(db: Db, token_hash: str, expires_at: str) -> None:
    """Also forgets the sessions that have expired."""
    with db.write() as con:
        con.execute("DELETE FROM admin_sessions WHERE expires_at < ?", [now()])
        con.table("admin_sessions").insert(
            {"token_hash": token_hash, "created_at": now(), "expires_at": expires_at}
        )


def has_session(db: Db, token_hash: str) -> bool:
    with db.read() as con:
        return bool(
            con.execute(
                "SELECT 1 FROM admin_sessions WHERE token_hash = ? AND expires_at >= ?", [token_hash, now()]
            ).fetchone()
        )


def remove_session(db: Db, token_hash: str) -> None:
    with db.write() as con:
        con.execute("DELETE FROM admin_sessions WHERE token_hash = ?", [token_hash])


def remove_all_sessions(db: Db) -> None:
    with db.write() as con:
        con.execute("DELETE FROM admin_sessions")
