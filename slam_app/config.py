"""All settings, from environment variables; the table in README.md is checked against this file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slam_app.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    """Read once per process with `Settings.from_env()`."""

    db: Path
    data_dir: Path
    admin_password: str
    ollama_host: str
    openai_api_key_set: bool
    openai_base_url: str
    public_url: str
    host: str
    port: int

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigError on a value that can't be used."""
        db = Path(env.get("SLAM_DB") or "data/slam.db").expanduser().resolve()
        data_dir = env.get("SLAM_DATA_DIR")
        port = env.get("SLAM_PORT") or "8501"
        if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
            raise ConfigError(f"SLAM_PORT is {port!r}. Set it to a number from 1 to 65535.")
        public_url = (env.get("SLAM_PUBLIC_URL") or "").rstrip("/")
        if public_url and not public_url.startswith(("http://", "https://")):
            raise ConfigError(f"SLAM_PUBLIC_URL is {public_url!r}. Start it with https:// or http://.")
        return cls(
            db=db,
            data_dir=Path(data_dir).expanduser().resolve() if data_dir else db.parent,
            admin_password=env.get("SLAM_ADMIN_PASSWORD") or "",
            ollama_host=env.get("OLLAMA_HOST") or "http://127.0.0.1:11434",
            openai_api_key_set=bool(env.get("OPENAI_API_KEY")),
            openai_base_url=env.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
            public_url=public_url,
            host=env.get("SLAM_HOST") or "127.0.0.1",
            port=int(port),
        )
