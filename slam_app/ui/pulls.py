"""Getting models: suggestions, and downloads with their progress."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import streamlit as st

from slam_app import inventory, presets
from slam_app.domain import Connection, ConnectionKind, Job, JobKind, JobStatus
from slam_app.presets import Preset
from slam_app.store import jobs
from slam_app.store.db import Db
from slam_app.ui.auth import stay_admin
from slam_app.ui.text import plain, since

PAPER = "Models of the paper"
_NAME_HINTS = {
    ConnectionKind.OLLAMA: (
        "gemma3:1b",
        "A name of the Ollama library, or hf.co/owner/repo:QUANT for a GGUF file on Hugging Face.",
    ),
    ConnectionKind.EMBEDDED: (
        "owner/repo:file.gguf",
        "A file on Hugging Face, or the absolute path of a .gguf file on this machine.",
    ),
}
STALL_S = 3.0
_SHOW_ENDED_FOR = timedelta(hours=12)
_MB = 1e6


def best_first(db: Db, there: Sequence[Connection]) -> list[Connection]:
    """Servers that answered come first, Ollama before the embedded engine."""

    def rank(connection: Connection) -> tuple[bool, bool]:
        last = inventory.last_check(db, connection)
        return (not (last and last.ok), connection.kind is ConnectionKind.EMBEDDED)

    return sorted(there, key=rank)


def choose_name(kind: ConnectionKind) -> str:
    """The name of a model to fetch: typed, or filled in from a list of suggestions."""
    lists = preset_lists(kind)
    chosen = st.segmented_control(
        "Suggestions", list(lists), default=next(iter(lists)), required=True, key=f"list-{kind}"
    )
    offers = {preset.name: preset for preset in lists[str(chosen)]}
    key = f"preset-{chosen}"

    def fill_in() -> None:
        st.session_state["pull-name"] = st.session_state[key] or ""

    st.selectbox(
        "Choose one to fill in its name",
        list(offers),
        index=None,
        placeholder=f"{len(offers)} models",
        format_func=lambda name: preset_label(offers[name]),
        key=key,
        on_change=fill_in,
    )
    if chosen == PAPER:
        st.caption(presets.PAPER_NOTE)
    hint = _NAME_HINTS[kind]
    return st.text_input("Name of the model", key="pull-name", placeholder=hint[0], help=hint[1])


def preset_lists(kind: ConnectionKind) -> dict[str, tuple[Preset, ...]]:
    """What a connection of this kind can fetch by name."""
    if kind is ConnectionKind.EMBEDDED:
        return {"GGUF files": presets.hub_models()}
    return {"Small models of today": presets.current_models(), PAPER: presets.paper_models()}


def preset_label(preset: Preset) -> str:
    memory = f", {preset.memory_mb:,} MB in use" if preset.memory_mb else ""
    good_for = f" · {preset.good_for}" if preset.good_for else ""
    name = preset.name.rpartition(":")[2] if preset.name.endswith(".gguf") else preset.name
    size = f"{preset.params_b:g} B parameters, {preset.bits} bit, {preset.size_gb:g} GB"
    return f"{name} · {size}{memory}{good_for}"


def recent_pulls(db: Db, there: Sequence[Connection]) -> list[Job]:
    """The latest pull of each model that runs or ended not long ago, the newest first."""
    latest: dict[str, Job] = {}
    for connection in there:
        for job in jobs.find(db, JobKind.PULL, "connection", connection.id):
            latest.setdefault(job.lane, job)
    shown = [
        job
        for job in latest.values()
        if not job.status.ended or since(job.finished_at or job.created_at) < _SHOW_ENDED_FOR.total_seconds()
    ]
    return sorted(shown, key=lambda job: (not job.status.ended, job.id), reverse=True)[:8]


def live(db: Db, there: Sequence[Connection]) -> None:
    """Downloads, polled while one runs; when one ends, the whole page is drawn once more."""
    running = [job.id for job in recent_pulls(db, there) if not job.status.ended]

    @st.fragment(run_every=1 if running else None)
    def polled() -> None:
        stay_admin()
        found = recent_pulls(db, there)
        names = {connection.id: connection for connection in there}
        for job in found:
            with st.container(border=True):
                _pull(db, job, names[job.payload["connection"]])
        if any(jobs.get(db, job_id).status.ended for job_id in running):
            st.rerun()

    polled()


def _pull(db: Db, job: Job, connection: Connection) -> None:
    name = job.payload["model"]
    if job.status is JobStatus.DONE:
        st.markdown(
            f":green[:material/check_circle:] **{plain(name)}** is ready on {plain(connection.name)}."
        )
        return
    st.markdown(f"**{plain(name)}** on {plain(connection.name)}")
    if not job.status.ended:
        share, text = progress(job)
        st.progress(share, text=text)
        if job.cancel_requested:
            st.caption("Cancelling ...")
        elif st.button("Cancel", key=f"cancel-pull-{job.id}", help="What has arrived is kept."):
            jobs.request_cancel(db, job.id)
            st.rerun(scope="fragment")
        return
    if job.status is JobStatus.FAILED:
        st.error(plain(job.message))
    else:
        st.info("Cancelled. What had arrived is kept.")
    if st.button("Pull again", key=f"again-{job.id}", help="It goes on where it was."):
        inventory.start_pull(db, connection, name)
        st.rerun()


def progress(job: Job) -> tuple[float, str]:
    """How full the bar of a running pull is (0 to 1), and the words beside it."""
    if not job.progress:
        return 0.0, "Waiting to start" if job.status is JobStatus.QUEUED else "Starting"
    done, total = job.progress["completed_bytes"], job.progress["total_bytes"]
    words = [str(job.progress["status"])]
    if total:
        words.append(f"{done / _MB:,.0f} MB of {total / _MB:,.0f} MB")
    idle = since(job.progress["moved_at"])
    if idle > STALL_S and not (total and done >= total):
        words.append(f"no progress for {idle:.0f} s")
    return min(1.0, done / total) if total else 0.0, plain(" · ".join(words))
