"""The one process: pages, routes, jobs. `serve` runs it until it is stopped."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import tomllib
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from starlette.middleware import Middleware

from slam_app import auth, first_start, keys
from slam_app.config import Settings
from slam_app.errors import ConfigError, SlamError
from slam_app.jobs import Runner
from slam_app.routes import Context, Gate, routes
from slam_app.store.db import Db, only_process

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent


def serve(settings: Settings) -> None:
    """Run the app until it is stopped.

    Raises:
        StoreError: the database is in use by another server, or can't be used.
        ConfigError: a setting or the key file can't be used.
    """
    _require_free_port(settings)
    with only_process(settings.db):
        db = Db(settings.db)
        password = auth.ensure_password(db, settings)
        first_start.prepare(db, settings)
        os.environ["STREAMLIT_SERVER_COOKIE_SECRET"] = keys.derive(
            keys.installation_key(settings.db), "streamlit cookies"
        )
        print(f"\n  SLaM runs at http://{settings.host}:{settings.port}", flush=True)  # noqa: T201
        if password:
            print(f"  Admin password (shown once): {password}", flush=True)  # noqa: T201
        print(flush=True)  # noqa: T201
        app(db, https=settings.public_url.startswith("https://")).run(
            config={
                **_streamlit_config(),
                "server.address": settings.host,
                "server.port": settings.port,
                "server.allowedHosts": _allowed_hosts(settings),
            }
        )


def _require_free_port(settings: Settings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigError(
                f"{settings.host}:{settings.port} can't be listened on ({error.strerror}). "
                "Stop what uses that port, or set SLAM_PORT or SLAM_HOST to something else."
            ) from None


def _allowed_hosts(settings: Settings) -> list[str]:
    """Host names under which pages may be opened, where they can be known: it stops DNS rebinding."""
    public = urlsplit(settings.public_url).hostname
    local = settings.host in ("127.0.0.1", "localhost", "::1")
    if not local and not public:
        return []
    return sorted({"localhost", "127.0.0.1", "::1", settings.host, public or "localhost"})


def app(db: Db, *, https: bool = False) -> st.App:
    """The ASGI app, with its jobs in the lifespan."""
    runner = Runner(db)

    @asynccontextmanager
    async def lifespan(_: st.App) -> AsyncIterator[None]:
        _freeze()
        runner.start()
        threading.Thread(target=first_start.look_at_servers, args=(db,), daemon=True).start()
        try:
            yield
        finally:
            runner.stop()

    return st.App(
        Path(__file__).with_name("main.py"),
        lifespan=lifespan,
        routes=routes(Context(db, lambda: runner.alive, https)),
        middleware=[Middleware(Gate, db=db, https=https)],
        on_script_error=show_error,
    )


def _freeze() -> None:
    """Import what pages use, then take it out of the garbage collector's sight.

    A full collection walks every object of these libraries and holds up all sessions meanwhile.
    Streamlit's own, after every script run, are turned off in the settings (`postScriptGC`).
    """
    import pandas
    import plotly.graph_objects

    from slam_app import charts

    assert pandas and plotly and charts
    gc.collect()
    gc.freeze()


def show_error(error: Exception) -> bool:
    """Our own errors as a message; anything else with a number to find it by in the log."""
    if isinstance(error, SlamError):
        st.error(str(error))
        return True
    number = uuid.uuid4().hex[:8]
    log.error("Error %s on a page:\n%s", number, "".join(traceback.format_exception(error)))
    st.error(
        f"Something unexpected went wrong (error {number}). Nothing that was saved is lost. "
        "Reload the page; if it comes back, look for this number in the server's log."
    )
    return True


def _streamlit_config() -> dict[str, Any]:
    """`.streamlit/config.toml` as dotted names, whatever folder the command was started in."""
    with (ROOT / ".streamlit" / "config.toml").open("rb") as file:
        return dict(_dotted(tomllib.load(file)))


def _dotted(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
