"""The settings and the database of this process, opened once."""

from __future__ import annotations

import functools
from pathlib import Path

from slam_app.config import Settings
from slam_app.store.db import Db


def settings() -> Settings:
    return Settings.from_env()


def db() -> Db:
    return _open(settings().db)


@functools.lru_cache(maxsize=4)
def _open(path: Path) -> Db:
    return Db(path)
