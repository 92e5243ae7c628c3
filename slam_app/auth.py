"""The admin's password and logins. HTTP is in `routes`, the pages' side in `ui.auth`."""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import argon2

from slam_app import keys
from slam_app.config import Settings
from slam_app.store import settings as store
from slam_app.store.db import Db

COOKIE = "slam_admin"
SESSION_DAYS = 14
PASSWORD_KEY = "admin_password_argon2"  # the name of a row, not a password

_hasher = argon2.PasswordHasher()


def ensure_password(db: Db, settings: Settings) -> str | None:
    """Make SLAM_ADMIN_PASSWORD the password; without one, invent it on the first start and return it.

    A changed password ends all logins.
    """
    stored = store.get(db, PASSWORD_KEY)
    if settings.admin_password:
        if stored is None or not _matches(stored, settings.admin_password):
            store.put(db, PASSWORD_KEY, _hasher.hash(settings.admin_password))
            store.remove_all_sessions(db)
        return None
    if stored is not None:
        return None
    password = secrets.token_urlsafe(12)
    store.put(db, PASSWORD_KEY, _hasher.hash(password))
    return password


def log_in(db: Db, password: str) -> str | None:
    """A session token for the cookie when the password is right. Takes about 50 ms, on purpose."""
    stored = store.get(db, PASSWORD_KEY)
    if stored is None or not _matches(stored, password):
        return None
    token = secrets.token_urlsafe(32)
    expires = datetime.now(UTC) + timedelta(days=SESSION_DAYS)
    store.add_session(db, keys.digest(token), expires.isoformat(timespec="milliseconds"))
    return token


def is_admin(db: Db, token: str | None) -> bool:
    return bool(token) and store.has_session(db, keys.digest(token or ""))


def log_out(db: Db, token: str) -> None:
    store.remove_session(db, keys.digest(token))


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except argon2.exceptions.VerificationError:
        return False


class Throttle:
    """After `free` failures an address waits 2, 4, 8 ... seconds, up to 5 minutes, for its next try."""

    def __init__(self, free: int = 5) -> None:
        self._free = free
        self._failures: dict[str, int] = defaultdict(int)
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        with self._lock:
            return max(0.0, self._until.get(address, 0.0) - time.monotonic())

    def failed(self, address: str) -> None:
        with self._lock:
            if len(self._failures) > 10_000:  # a flood of addresses must not fill the memory
                self._failures.clear()
                self._until.clear()
            self._failures[address] += 1
            extra = self._failures[address] - self._free
            if extra >= 0:
                self._until[address] = time.monotonic() + min(2.0 ** (extra + 1), 300.0)

    def succeeded(self, address: str) -> None:
        with self._lock:
            self._failures.pop(address, None)
            self._until.pop(address, None)
