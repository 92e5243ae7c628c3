"""Connections: how they are shown, tested and added."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import streamlit as st

from slam_app import inventory
from slam_app.domain import Connection, ConnectionKind
from slam_app.errors import InputError
from slam_app.inventory import checked_address
from slam_app.store import connections
from slam_app.store.db import Db
from slam_app.ui.text import ago, code, plain

KINDS = {
    ConnectionKind.OLLAMA: "Ollama",
    ConnectionKind.OPENAI: "OpenAI-compatible",
    ConnectionKind.EMBEDDED: "Embedded engine",
}


def check_all(db: Db, wanted: Sequence[Connection]) -> None:
    """Test and refresh all at once, so that one silent server costs its own time only."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda connection: inventory.check(db, connection), wanted))


def headline(connection: Connection) -> str:
    address = f" · {code(connection.base_url)}" if connection.base_url else ""
    key = f" · key in {code(connection.api_key_env)}" if connection.api_key_env else ""
    at_once = f" · {connection.concurrency} at once" if connection.concurrency > 1 else ""
    return f"**{plain(connection.name)}**  \n{KINDS[connection.kind]}{address}{key}{at_once}"


def outcome(last: inventory.Check | None) -> None:
    """How the last test went."""
    if last is None:
        st.caption("Not tested yet.")
    elif last.ok:
        st.markdown(f":green[:material/check_circle:] {plain(last.said)} · answered {ago(last.at)}")
    else:
        st.error(f"{plain(last.said)} (Tried {ago(last.at)}.)")


def add_form(db: Db, number: int) -> int | None:
    """The form; the id of the connection when one was just added. `number` makes it empty again after."""
    with st.form(f"connection-{number}", border=False):
        name = st.text_input("Name", key=f"name-{number}", placeholder="GPU server")
        kind = st.selectbox("Kind", list(KINDS), format_func=KINDS.__getitem__, key=f"kind-{number}")
        url = st.text_input(
            "Base URL", key=f"url-{number}", placeholder="http://127.0.0.1:11434",
            help="Of Ollama: scheme, host, port. OpenAI-compatible: up to /v1. Embedded engine: leave empty.",
        )  # fmt: skip
        key_name = st.text_input(
            "Environment variable with the API key", key=f"key-{number}", placeholder="OPENAI_API_KEY"
        )
        st.caption(
            "Only the name of the variable, never the key: SLaM reads the key from its environment for each "
            "call and stores it nowhere. Leave empty when the server needs none."
        )
        with st.expander("Limits"):
            left, right = st.columns(2)
            concurrency = left.number_input(
                "Requests at once", 1, 64, 1, key=f"concurrency-{number}",
                help="Keep 1 for Ollama, so that answers do not wait for each other. Hosted APIs take more.",
            )  # fmt: skip
            timeout_s = right.number_input(
                "Patience (seconds)", 1, 3600, 300, key=f"timeout-{number}",
                help="A request without any sign of life for this long counts as failed.",
            )  # fmt: skip
            left, right = st.columns(2)
            requests = left.number_input(
                "Requests per minute", 1, None, None, key=f"rpm-{number}", placeholder="no limit",
                help="Your quota with the provider. SLaM slows down to stay inside it.",
            )  # fmt: skip
            tokens = right.number_input(
                "Tokens per minute", 1, None, None, key=f"tpm-{number}", placeholder="no limit",
                help="Prompt and answer together. SLaM slows down to stay inside it.",
            )  # fmt: skip
        if not st.form_submit_button("Add and test", type="primary", key=f"add-{number}"):
            return None
    try:
        return connections.add(
            db,
            name=name,
            kind=kind,
            base_url=checked_address(kind, url),
            api_key_env=checked_key_name(key_name),
            concurrency=concurrency,
            timeout_s=timeout_s,
            requests_per_minute=requests,
            tokens_per_minute=tokens,
        )
    except InputError as error:
        st.error(str(error))
        return None


def checked_key_name(name: str) -> str:
    """The name of a variable that is set. Never shows what was typed: it may be the key itself."""
    name = name.strip()
    if name and name not in os.environ:
        raise InputError(
            "No environment variable of this name is set for SLaM. Enter its name (like OPENAI_API_KEY), "
            "not the key. If it is new, set it and restart SLaM first."
        )
    return name
