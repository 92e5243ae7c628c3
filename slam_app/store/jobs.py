"""Jobs: long work that the server owns. A lane is what can do one thing at a time.

A running job is held by a lease that its runner renews. The fence grows with every claim, so a
runner that lost its job can't finish it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlite_utils import Database

from slam_app.domain import Job, JobKind, JobStatus
from slam_app.errors import NotFound
from slam_app.store.db import Db, now


def enqueue_in(con: Database, kind: JobKind, lane: str, payload: Mapping[str, Any]) -> int:
    """As `enqueue`, inside a transaction that is already open."""
    row = {"kind": str(kind), "lane": lane, "payload_json": json.dumps(payload), "created_at": now()}
    return int(con.table("jobs").insert(row).last_pk or 0)


def enqueue(db: Db, kind: JobKind, lane: str, payload: Mapping[str, Any]) -> int:
    with db.write() as con:
        return enqueue_in(con, kind, lane, payload)


def claim(db: Db, owner: str, lease_s: float, held: Iterable[int] = ()) -> Job | None:
    """The oldest job that waits in a free lane, or whose runner let its lease run out.

    Args:
        held: jobs that the caller runs already: after a pause of the machine their leases have run out.
    """
    at = now()
    with db.write() as con:
        rows = con.query(
            """UPDATE jobs SET status = 'running', owner = :owner, lease_until = :until,
                      fence = fence + 1, started_at = coalesce(started_at, :at), message = ''
               WHERE id = (
                   SELECT id FROM jobs AS job
                   WHERE (status = 'queued' OR (status = 'running' AND lease_until < :at))
                     AND id NOT IN (SELECT value FROM json_each(:held))
                     AND NOT EXISTS (
                         SELECT 1 FROM jobs AS other
                         WHERE other.lane = job.lane AND other.id <> job.id
                           AND other.status = 'running'
                           AND (other.lease_until >= :at OR other.id IN (SELECT value FROM json_each(:held))))
                   ORDER BY id LIMIT 1)
               RETURNING *""",
            {"owner": owner, "until": _in(lease_s), "at": at, "held": json.dumps(list(held))},
        )
        return next((_job(row) for row in list(rows)), None)


def renew(db: Db, job: Job, lease_s: float) -> bool:
    """Keep a job for another `lease_s` seconds; False when it was given to another runner."""
    with db.write() as con:
        return bool(
            con.execute(
                "UPDATE jobs SET lease_until = ? WHERE id = ? AND fence = ? AND status = 'running'",
                [_in(lease_s), job.id, job.fence],
            ).rowcount
        )


def set_progress(db: Db, job: Job, progress: Mapping[str, Any]) -> None:
    with db.write() as con:
        con.execute(
            "UPDATE jobs SET progress_json = ? WHERE id = ? AND fence = ?",
            [json.dumps(progress), job.id, job.fence],
        )


def finish(db: Db, job: Job, status: JobStatus, message: str = "") -> bool:
    """End a job; False when it was given to another runner meanwhile."""
    with db.write() as con:
        return bool(
            con.execute(
                """UPDATE jobs SET status = ?, message = ?, finished_at = ?, lease_until = NULL
                   WHERE id = ? AND fence = ? AND status = 'running'""",
                [str(status), message, now(), job.id, job.fence],
            ).rowcount
        )


def release(db: Db, job: Job) -> None:
    """Give a running job back unfinished, as when the server stops in an orderly way."""
    with db.write() as con:
        con.execute(
            """UPDATE jobs SET status = 'queued', lease_until = NULL
               WHERE id = ? AND fence = ? AND status = 'running'""",
            [job.id, job.fence],
        )


def recover(db: Db) -> int:
    """Requeue all running jobs. Only for the one process that holds the database, at its start."""
    with db.write() as con:
        return con.execute(
            "UPDATE jobs SET status = 'queued', lease_until = NULL WHERE status = 'running'"
        ).rowcount


def request_cancel(db: Db, job_id: int) -> None:
    """A waiting job ends at once; a running one is told, and its runner ends it."""
    with db.write() as con:
        _cancel(con, "id = ?", [job_id])


def cancel_in(con: Database, key: str, value: Any) -> None:
    """Cancel all jobs whose payload holds `value` under `key`, inside a transaction already open."""
    _cancel(con, "json_extract(payload_json, '$.' || ?) = ?", [key, value])


def _cancel(con: Database, where: str, args: list[Any]) -> None:
    con.execute(
        f"""UPDATE jobs SET status = 'cancelled', cancel_requested = 1, finished_at = ?,
                   message = 'Cancelled before it started.'
            WHERE status = 'queued' AND {where}""",
        [now(), *args],
    )
    con.execute(f"UPDATE jobs SET cancel_requested = 1 WHERE status = 'running' AND {where}", args)


def cancel_requested(db: Db) -> set[int]:
    """Ids of the running jobs that somebody wants to end."""
    with db.read() as con:
        rows = con.execute("SELECT id FROM jobs WHERE status = 'running' AND cancel_requested = 1")
        return {row[0] for row in rows}


def get(db: Db, job_id: int) -> Job:
    with db.read() as con:
        for row in con.query("SELECT * FROM jobs WHERE id = ?", [job_id]):
            return _job(row)
    raise NotFound(f"There is no job {job_id}.")


def find(db: Db, kind: JobKind, key: str, value: Any) -> list[Job]:
    """Jobs of a kind whose payload holds `value` under `key`, the newest first."""
    with db.read() as con:
        rows = con.query(
            """SELECT * FROM jobs WHERE kind = ? AND json_extract(payload_json, '$.' || ?) = ?
               ORDER BY id DESC""",
            [str(kind), key, value],
        )
        return [_job(row) for row in rows]


def stuck(db: Db) -> list[Job]:
    """Running jobs that no runner holds: the server died, or nobody started it since."""
    with db.read() as con:
        rows = con.query("SELECT * FROM jobs WHERE status = 'running' AND lease_until < ?", [now()])
        return [_job(row) for row in rows]


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def _job(row: Mapping[str, Any]) -> Job:
    return Job(
        id=row["id"],
        kind=JobKind(row["kind"]),
        lane=row["lane"],
        payload=json.loads(row["payload_json"]),
        status=JobStatus(row["status"]),
        cancel_requested=bool(row["cancel_requested"]),
        progress=json.loads(row["progress_json"]),
        message=row["message"],
        fence=row["fence"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )
