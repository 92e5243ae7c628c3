"""The parts of the Generate page: settings of a run, its live progress, its responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from slam_app import exports
from slam_app.domain import (
    ConnectionKind,
    Job,
    JobKind,
    JobStatus,
    Model,
    ResponseStatus,
    Run,
    SamplingParams,
    Think,
)
from slam_app.store import connections, jobs, responses, runs
from slam_app.store.db import Db
from slam_app.store.responses import ModelProgress
from slam_app.ui.auth import stay_admin
from slam_app.ui.text import model_names, plain
from slam_app.ui.widgets import count, seconds

ALL = "All"
SIDE_BY_SIDE, TABLE = "Side by side", "Table"
ROWS_A_PAGE = 500


def preselected(models: Sequence[Model], incumbent_id: int | None) -> list[int]:
    """The incumbent; where there is no Ollama to choose from, also what the app carries itself."""
    carried = all(model.kind is not ConnectionKind.OLLAMA for model in models)
    return [
        model.id
        for model in models
        if model.id == incumbent_id or (carried and model.kind is ConnectionKind.EMBEDDED)
    ]


def number_of_calls(models: int, cases: int, samples: int) -> bool:
    """Says how many calls a run would make; whether that many can be started."""
    calls = models * cases * samples
    st.markdown(
        f"**{count(calls, 'call')}** = {count(models, 'model')} × {count(cases, 'case')} × "
        f"{count(samples, 'sample')}"
    )
    if calls > runs.MAX_CALLS:
        st.error(
            f"{calls:,} calls are too many for one run; it can have {runs.MAX_CALLS:,}. "
            "Choose fewer models, cases or samples."
        )
    return 0 < calls <= runs.MAX_CALLS


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
    thinkers = [plain(model.name) for model in models if model.info.may_think]
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
        stay_admin()
        _draw_progress(db, run_id)
        if working and not runs.active_jobs(db, run_id):
            st.rerun()

    live()


def _names(db: Db, found: Sequence[ModelProgress]) -> dict[int, str]:
    return model_names(connections.models(db, only=[row.model_id for row in found]))


def _draw_progress(db: Db, run_id: int) -> None:
    concurrency = {connection.id: connection.concurrency for connection in connections.all_connections(db)}
    found = responses.progress(db, run_id)
    names = _names(db, found)
    for row in found:
        notes = [f"{row.ok + row.errors:,} of {row.total:,} done"]
        if row.errors:
            notes.append(count(row.errors, "error"))
        if row.tokens_per_s:
            notes.append(f"{row.tokens_per_s:.0f} tokens/s")
        if row.pending and row.seconds_per_call:
            left = row.pending * row.seconds_per_call / concurrency.get(row.connection_id, 1)
            notes.append(f"about {seconds(left)} left")
        st.progress(
            (row.ok + row.errors) / row.total, text=f"**{plain(names[row.model_id])}** · {' · '.join(notes)}"
        )
    newest: dict[int, Job] = {}
    for job in jobs.find(db, JobKind.GENERATE, "run", run_id):
        newest.setdefault(job.payload["connection"], job)
    for job in newest.values():
        if job.status is JobStatus.FAILED:
            st.error(f"{plain(job.message)} What is finished is kept; press Resume to go on.")
        elif job.status is JobStatus.QUEUED:
            st.caption("Waiting for the connection: another run is using it.")
        elif job.cancel_requested and job.status is JobStatus.RUNNING:
            st.caption("Cancelling ...")


def browse(db: Db, run: Run) -> None:
    """A browser of the responses with filters: side by side per case, or as a table.

    Reads what it shows and no more: a run may have very many responses.
    """
    found = responses.progress(db, run.id)
    names = _names(db, found)
    view = st.segmented_control(
        "View", [SIDE_BY_SIDE, TABLE], default=SIDE_BY_SIDE, required=True, key="view"
    )
    left, right = st.columns(2)
    chosen = left.multiselect(
        "Models",
        [row.model_id for row in found],
        format_func=names.__getitem__,
        placeholder="All models",
        key=f"filter-models-{run.id}",
    )
    status = right.selectbox("Status", [ALL, *ResponseStatus], key="filter-status")
    shown = [row for row in found if row.model_id in chosen or not chosen]
    wanted = None if status == ALL else ResponseStatus(status)
    if view == TABLE:
        _table(db, run, names, shown, wanted)
    else:
        _side_by_side(db, run, names, [row.model_id for row in shown], wanted)


def _side_by_side(
    db: Db, run: Run, names: Mapping[int, str], model_ids: Sequence[int], status: ResponseStatus | None
) -> None:
    cases = responses.cases_of(db, run.id)
    left, right = st.columns(2)
    case_id = left.selectbox("Case", list(cases), format_func=cases.__getitem__, key=f"filter-case-{run.id}")
    sample = right.selectbox("Sample", range(1, run.samples + 1), key="filter-sample")
    rows = responses.of_run(db, run.id, case_id=case_id, sample=sample)
    found = [row for row in rows if row["model_id"] in model_ids and status in (None, row["status"])]
    if not found:
        st.info("No response fits these filters.")
        return
    with st.expander("Prompt"):
        st.text(found[0]["prompt"])
    columns = st.columns(min(len(found), 2))
    for place, row in enumerate(found):
        with columns[place % len(columns)].container(border=True):
            st.markdown(f"**{plain(names[row['model_id']])}**")
            _response(row)


def _response(row: Mapping[str, Any]) -> None:
    match row["status"]:
        case ResponseStatus.PENDING:
            st.caption("Pending")
            return
        case ResponseStatus.ERROR:
            st.error(plain(row["error"]))
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
        facts.append(count(row["retries"], "retry", "retries"))
    st.caption(" · ".join(facts))


def _table(
    db: Db,
    run: Run,
    names: Mapping[int, str],
    shown: Sequence[ModelProgress],
    status: ResponseStatus | None,
) -> None:
    sizes = {
        None: sum(row.total for row in shown),
        ResponseStatus.PENDING: sum(row.pending for row in shown),
        ResponseStatus.OK: sum(row.ok for row in shown),
        ResponseStatus.ERROR: sum(row.errors for row in shown),
    }
    pages = max(1, -(-sizes[status] // ROWS_A_PAGE))
    page = 1
    if pages > 1:
        page = st.number_input(f"Page (1 to {pages:,})", 1, pages, key=f"page-{run.id}-{pages}", width=160)
    rows = responses.previews(
        db,
        run.id,
        model_ids=[row.model_id for row in shown],
        status=status,
        limit=ROWS_A_PAGE,
        offset=(page - 1) * ROWS_A_PAGE,
    )
    columns = ["model", "case", "sample", "status", "text", "error", "finish_reason",
               "prompt_tokens", "output_tokens", "ttft_s", "e2e_s", "retries"]  # fmt: skip
    st.dataframe(
        pd.DataFrame([{**row, "model": names[row["model_id"]]} for row in rows], columns=columns),
        hide_index=True,
        key="responses",
        column_config={
            "text": st.column_config.TextColumn("answer", width="large"),
            "ttft_s": st.column_config.NumberColumn("first token, s", format="%.2f"),
            "e2e_s": st.column_config.NumberColumn("whole answer, s", format="%.2f"),
        },
        alt="The responses of this run",
    )
    st.caption(f"{count(sizes[status], 'response')}. Long texts are cut here; the download has all of them.")


def download(db: Db, run: Run) -> None:
    """The file is made when it is asked for."""
    st.download_button(
        "Download responses (CSV)",
        lambda: exports.to_csv(exports.response_rows(responses.of_run(db, run.id)), exports.RESPONSE_COLUMNS),
        f"responses-run-{run.id}.csv",
        "text/csv",
        key="download-responses",
    )
