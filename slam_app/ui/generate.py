"""The parts of the Generate page: settings of a run, its live progress, its responses."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from slam_app import exports
from slam_app.domain import JobKind, JobStatus, Model, ResponseStatus, Run, SamplingParams, Think
from slam_app.store import connections, jobs, responses, runs
from slam_app.store.db import Db
from slam_app.ui.widgets import seconds

ALL = "All"


def sampling_form(models: list[Model]) -> SamplingParams:
    """The sampling parameters; thinking is offered only where a chosen model can think."""
    default = SamplingParams()
    left, middle, right = st.columns(3)
    temperature = left.number_input(
        "Temperature", 0.0, 2.0, default.temperature, 0.1, key="temperature",
        help="0 gives nearly the same answer each time; higher values vary more.",
    )  # fmt: skip
    max_tokens = middle.number_input(
        "Max tokens", 1, 100_000, default.max_tokens, 64, key="max-tokens",
        help="The longest answer allowed, thinking included. A token is about 3/4 of an English word.",
    )  # fmt: skip
    seed = right.number_input(
        "Seed", 0, 2**31 - 1000, default.seed, key="seed",
        help="Sample k uses seed + k - 1, so a run can be repeated.",
    )  # fmt: skip
    thinkers = [model.name for model in models if model.info.can_think]
    think = Think.DEFAULT
    if thinkers:
        chosen = st.selectbox(
            "Thinking", list(Think), format_func=str.capitalize, key="think",
            help=f"For {', '.join(thinkers)}. Default leaves it to the server, which usually means on.",
        )  # fmt: skip
        think = chosen or Think.DEFAULT
    with st.expander("More sampling options"):
        left, right = st.columns(2)
        top_p = left.number_input("Top p", 0.0, 1.0, default.top_p, 0.05, key="top-p")
        top_k = right.number_input("Top k (0 = off)", 0, 1000, default.top_k, key="top-k")
        min_p = left.number_input("Min p", 0.0, 1.0, default.min_p, 0.01, key="min-p")
        penalty = right.number_input("Repeat penalty (1 = off)", 0.5, 2.0, default.repeat_penalty, 0.05)
        num_ctx = left.number_input(
            "Context (tokens)", 128, 1_000_000, default.num_ctx, 512, key="num-ctx",
            help="Prompt and answer together must fit. Larger contexts need more memory.",
        )  # fmt: skip
        st.caption("All of these are sent with every call, so a server's own defaults never matter.")
    return SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repeat_penalty=penalty,
        seed=seed,
        max_tokens=max_tokens,
        num_ctx=num_ctx,
        think=think,
    )


def progress(db: Db, run_id: int) -> None:
    """Polls while something works on the run; when that ends, the whole page is drawn once more."""
    working = runs.active_jobs(db, run_id)

    @st.fragment(run_every=1 if working else None)
    def live() -> None:
        _draw_progress(db, run_id)
        if working and not runs.active_jobs(db, run_id):
            st.rerun()

    live()


def _draw_progress(db: Db, run_id: int) -> None:
    concurrency = {connection.id: connection.concurrency for connection in connections.all_connections(db)}
    for row in responses.progress(db, run_id):
        notes = [f"{row.ok + row.errors} of {row.total} done"]
        if row.errors:
            notes.append(f"{row.errors} errors")
        if row.tokens_per_s:
            notes.append(f"{row.tokens_per_s:.0f} tokens/s")
        if row.pending and row.seconds_per_call:
            left = row.pending * row.seconds_per_call / concurrency.get(row.connection_id, 1)
            notes.append(f"about {seconds(left)} left")
        st.progress((row.ok + row.errors) / row.total, text=f"**{row.model}** · {' · '.join(notes)}")
    for job in jobs.find(db, JobKind.GENERATE, "run", run_id)[:3]:
        if job.status is JobStatus.FAILED:
            st.error(f"{job.message} What is finished is kept; press Resume to go on.")
        elif job.status is JobStatus.QUEUED:
            st.caption("Waiting for the connection: another run is using it.")
        elif job.cancel_requested and job.status is JobStatus.RUNNING:
            st.caption("Cancelling ...")


def browse(db: Db, run: Run) -> None:
    """A browser of the responses with filters: side by side per case, or as a table."""
    rows = responses.of_run(db, run.id)
    models = list(dict.fromkeys(row["model"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    view = st.segmented_control(
        "View", ["Side by side", "Table"], default="Side by side", required=True, key="view"
    )
    left, right = st.columns(2)
    shown_models = left.multiselect("Models", models, placeholder="All models", key="filter-models")
    status = right.selectbox("Status", [ALL, *map(str, ResponseStatus)], key="filter-status")
    rows = [
        row for row in rows if row["model"] in (shown_models or models) and status in (ALL, row["status"])
    ]
    if view == "Table":
        _table(rows)
    else:
        _side_by_side(rows, cases, run.samples)


def _side_by_side(rows: list[dict[str, Any]], cases: list[str], samples: int) -> None:
    left, right = st.columns(2)
    case = left.selectbox("Case", cases, key="filter-case")
    sample = right.selectbox("Sample", range(1, samples + 1), key="filter-sample")
    found = [row for row in rows if row["case"] == case and row["sample"] == sample]
    if not found:
        st.info("No response fits these filters.")
        return
    with st.expander("Prompt"):
        st.text(found[0]["prompt"])
    columns = st.columns(min(len(found), 2))
    for place, row in enumerate(found):
        with columns[place % len(columns)].container(border=True):
            st.markdown(f"**{row['model']}**")
            _response(row)


def _response(row: dict[str, Any]) -> None:
    match row["status"]:
        case ResponseStatus.PENDING:
            st.caption("Pending")
            return
        case ResponseStatus.ERROR:
            st.error(row["error"])
    if row["text"]:
        st.text(row["text"])
    if row["thinking"]:
        with st.expander("Thinking (never shown to raters)"):
            st.text(row["thinking"])
    facts = []
    if row["output_tokens"] is not None:
        facts.append(f"{row['prompt_tokens'] or 0} tokens in, {row['output_tokens']} out")
    if row["e2e_s"] is not None:
        facts.append(f"{row['ttft_s'] or 0:.2f} s to first token, {row['e2e_s']:.2f} s in all")
    if row["finish_reason"] == "max_tokens":
        facts.append("cut at max tokens")
    elif row["finish_reason"] == "context_full":
        facts.append("cut: the context was full")
    if row["retries"]:
        facts.append(f"{row['retries']} retries")
    st.caption(" · ".join(facts))


def _table(rows: list[dict[str, Any]]) -> None:
    columns = ["model", "case", "sample", "status", "text", "error", "finish_reason",
               "prompt_tokens", "output_tokens", "ttft_s", "e2e_s", "retries"]  # fmt: skip
    st.dataframe(
        pd.DataFrame(rows, columns=columns),
        hide_index=True,
        key="responses",
        column_config={
            "text": st.column_config.TextColumn("answer", width="large"),
            "ttft_s": st.column_config.NumberColumn("first token, s", format="%.2f"),
            "e2e_s": st.column_config.NumberColumn("whole answer, s", format="%.2f"),
        },
    )


def download(db: Db, run: Run) -> None:
    """The file is made when it is asked for."""
    st.download_button(
        "Download responses (CSV)",
        lambda: exports.to_csv(exports.response_rows(responses.of_run(db, run.id)), exports.RESPONSE_COLUMNS),
        f"responses-run-{run.id}.csv",
        "text/csv",
        key="download-responses",
    )
