"""One SQLite file: one writer behind a lock, a reader for each who reads, errors in words.

Only `Db.write` starts transactions that write, and it starts them with BEGIN IMMEDIATE: a deferred
transaction that reads first and writes later fails at once when another writer got in between.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import filelock
from sqlite_utils import Database

from slam_app.errors import DatabaseFull, DatabaseInUse, DatabaseUnusable
from slam_app.store.migrations import migrations

try:  # the same choice as sqlite-utils: two SQLite libraries must never share a file in one process
    import pysqlite3 as sqlite3
except ImportError:  # no wheel for this platform
    import sqlite3

IntegrityError: type[Exception] = sqlite3.IntegrityError
"""A unique key or check of the schema was broken."""

BUSY_TIMEOUT_S = 10.0
IDLE_READERS = 8
"""Kept open between reads: opening one parses the schema, which takes longer than most queries."""


def now() -> str:
    """The present as ISO 8601 in UTC to the millisecond; such texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Db:
    """The database of one installation. Share one instance per process; it is thread-safe."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file and brings its schema up to date.

        Raises:
            DatabaseUnusable: not writable, not SQLite, or made by a newer SLaM.
            DatabaseInUse: another process held the write lock for too long.
        """
        self.path = path
        self._lock = threading.Lock()
        self._readers: list[Database] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(path, error) from None
        with _explained(path):
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode = WAL")
        with self.write() as db:
            known = {step.name for step in migrations._migrations}
            unknown = [step.name for step in migrations.applied(db) if step.name not in known]
            if unknown:
                raise DatabaseUnusable(
                    f"{path} was written by a newer SLaM (it has {unknown[-1]}). "
                    "Update this installation first."
                )
            migrations.apply(db)

    def _connect(self) -> Database:
        connection = sqlite3.connect(
            str(self.path), timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        return db

    @contextmanager
    def write(self) -> Iterator[Database]:
        """A transaction that may read and write; commits at the end, rolls back on any error."""
        with self._lock, _explained(self.path):
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.conn.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[Database]:
        """A connection that is nobody else's meanwhile, sees one consistent state and can't write."""
        with _explained(self.path):
            db = self._reader()
            try:
                db.execute("BEGIN")
                yield db
                db.execute("ROLLBACK")
            except BaseException:
                db.close()
                raise
            if len(self._readers) < IDLE_READERS:
                self._readers.append(db)
            else:
                db.close()

    def _reader(self) -> Database:
        try:
            return self._readers.pop()
        except IndexError:
            db = self._connect()
            db.execute("PRAGMA query_only = ON")
            return db

    def close(self) -> None:
        with self._lock:
            while self._readers:
                self._readers.pop().close()
            self._writer.close()

    def check(self) -> list[str]:
        """Problems found by SQLite's own integrity and foreign key checks; empty when all is well."""
        with self.read() as db:
            found = [row[0] for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [
                f"{table} row {rowid} points to a missing row of {parent}"
                for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check")
            ]
        return found


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Holds the database for this process, so that only one server runs its jobs.

    Raises:
        DatabaseInUse: another process holds it.
    """
    lock = filelock.FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DatabaseInUse(
            f"Another SLaM is running with {path}. Use that one, stop it first, "
            "or set SLAM_DB to another file."
        ) from None
    except OSError as error:  # after Timeout, which is one
        raise _not_writable(path, error) from None
    try:
        yield
    finally:
        lock.release()


def _not_writable(path: Path, error: OSError) -> DatabaseUnusable:
    return DatabaseUnusable(
        f"The folder {path.parent} can't be written ({error.strerror}). "
        "Set SLAM_DB to a path that you may write."
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # a broken rule of the schema; the module that wrote knows what it means
    except sqlite3.DatabaseError as error:
        text = str(error).lower()
        if "full" in text:
            raise DatabaseFull(
                f"The disk that holds {path} is full. Nothing that was saved is lost. "
                "Free some space; work goes on by itself or with Resume."
            ) from error
        if "locked" in text or "busy" in text:
            raise DatabaseInUse(
                f"Another process keeps {path} locked. Close other programs that use it and try again."
            ) from error
        if isinstance(error, sqlite3.OperationalError) and not any(
            sign in text for sign in ("unable to open", "readonly", "disk i/o")
        ):
            raise  # a mistake in our SQL: the traceback is what helps
        raise DatabaseUnusable(
            f"{path} can't be used ({error}). Check its permissions, or restore a backup."
        ) from error
