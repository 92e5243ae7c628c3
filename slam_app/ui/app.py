"""The settings and the database of this process, opened once."""

from __future__ import annotations

import functools
import os

from slam_app.config import Settings
from slam_app.store.db import Db


def settings() -> Settings:
    return Settings.from_env()


def db() -> Db:
    return _open(os.environ.get("SLAM_DB"))


@functools.lru_cache(maxsize=4)
def _open(_: str | None) -> Db:
    """Kept by the setting as it stands: every rerun asks often, and resolving a path takes a while."""
    return Db(settings().db)
