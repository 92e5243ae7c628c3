"""Models: their table, and what may be done with one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import streamlit as st

from slam_app.domain import ConnectionKind, Model, ModelInfo, SamplingParams
from slam_app.ui.text import ago, plain

_MB, _GB = 1e6, 1e9

_column = st.column_config
COLUMNS = {
    "Model": _column.TextColumn(help="Its name on the server."),
    "Connection": _column.TextColumn(help="The server that has it."),
    "Loaded": _column.TextColumn(
        help="Whether it is in memory now, and until when the server keeps it.", width=110
    ),
    "Billions": _column.NumberColumn(help="Parameters in billions: its size, roughly.", format="%.2f"),
    "Quantisation": _column.TextColumn(help="How its weights were shortened to take less memory."),
    "Bits": _column.NumberColumn(help="Bits per weight, from the name of the quantisation."),
    "Size, GB": _column.NumberColumn(help="Its file, in gigabytes of 1,000,000,000 bytes.", format="%.2f"),
    "Memory, MB": _column.NumberColumn(
        help="In use while it is loaded, graphics memory included, in megabytes of 1,000,000 bytes.",
        format="localized",
    ),
    "VRAM": _column.TextColumn(
        help="How much of that memory is on the graphics card. CPU: none of it. Below 100 % it is slower."
    ),
    "Context": _column.NumberColumn(
        help="The most tokens of prompt and answer together that it was made for.", format="localized"
    ),
    "Can": _column.TextColumn(
        help="Answer prompts; think before it answers; or only embed: measure similarity of texts."
    ),
    "Family": _column.TextColumn(help="The architecture. (base): never taught to follow instructions."),
}


def draw_table(models: Sequence[Model]) -> None:
    st.dataframe(
        table(models, local_zone(), datetime.now(UTC)),
        hide_index=True,
        column_config=COLUMNS,
        key="models",
        placeholder="",
        alt="The models of all connections",
    )
    with st.expander("What the columns mean", key="columns"):
        st.markdown("\n".join(f"- **{name}**: {column['help']}" for name, column in COLUMNS.items()))


def local_zone() -> tzinfo:
    """The time zone of the person who looks."""
    name = st.context.timezone
    return ZoneInfo(name) if name else UTC


def table(models: Sequence[Model], zone: tzinfo, at: datetime) -> pd.DataFrame:
    """One row a model, with the columns of COLUMNS; empty cells where the server does not say."""
    rows = [
        {
            "Model": model.name,
            "Connection": model.connection,
            "Loaded": kept(model.info, zone, at),
            "Billions": model.info.parameters_b,
            "Quantisation": model.info.quantization,
            "Bits": bits(model.info.quantization),
            "Size, GB": _in(model.info.size_bytes, _GB),
            "Memory, MB": _in(model.info.memory_bytes if model.info.loaded else None, _MB),
            "VRAM": vram(model.info),
            "Context": model.info.context_length,
            "Can": abilities(model.info),
            "Family": model.info.family,
        }
        for model in models
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("Billions", "Bits", "Size, GB", "Memory, MB", "Context"):
        frame[column] = pd.to_numeric(frame[column])
    # A column in which nothing is known only takes room.
    return frame.drop(
        columns=[name for name in ("Memory, MB", "VRAM") if not frame[name].replace("", None).any()]
    )


def facts(model: Model) -> list[str]:
    """What is not in the table, as Markdown lines."""
    info = model.info
    found = [f"On {plain(model.connection)}, as seen {ago(model.seen_at)}"]
    if info.loaded:
        memory = f", {info.memory_bytes / _MB:,.0f} MB in use" if info.memory_bytes else ""
        context = f" with a context of {info.loaded_context:,} tokens" if info.loaded_context else ""
        found.append(f"Loaded{context}{memory}, {kept(info, local_zone(), datetime.now(UTC))}")
    else:
        found.append("Not loaded; the first request loads it, which takes longer")
    if not info.can_chat:
        found.append(f"It can {abilities(info)}, so no run offers it")
    if info.digest:
        found.append(
            f"Digest {info.digest.removeprefix('sha256:')[:16]}, which tells this file from any other"
        )
    return found


def context_input(model: Model) -> int:
    """How large a context to load the model with, in tokens."""
    most = max(model.info.context_length or 1_000_000, model.info.loaded_context or 0, 128)
    usual = model.info.loaded_context or SamplingParams().num_ctx
    return st.number_input(
        "Context to load with (tokens)",
        128,
        most,
        min(usual, most),
        512,
        key=f"context-{model.id}",
        help="Prompt and answer together must fit. Take the context of your run: with another one, "
        "the run would load the model again. A larger context needs more memory.",
        width=320,
    )


def why_not_delete(model: Model, weights: Path) -> str:
    """Why this model can't be deleted here; "" when it can. `weights`: the folder of embedded models."""
    if model.kind is ConnectionKind.OPENAI:
        return (
            "This server looks after its models itself: they can't be loaded, fetched or deleted from here."
        )
    if model.kind is ConnectionKind.EMBEDDED and Path(model.info.path).parent != weights:
        return "It came with the installation. Uninstall its Python package if it must go."
    return ""


def delete_warning(model: Model) -> str:
    name = f"**{plain(model.name)}**"
    if model.info.path and Path(model.info.path).is_symlink():
        return f"{name} leaves the list. The file itself stays where it is. Answers that it gave stay."
    size = f" ({model.info.size_bytes / _GB:.1f} GB)" if model.info.size_bytes else ""
    return (
        f"{name}{size} is deleted from {plain(model.connection)} for good; to use it again it must be "
        "fetched again. Answers that it gave stay."
    )


def bits(quantization: str) -> int | None:
    """Bits per weight by the name of a quantisation: 4 for Q4_K_M, 16 for BF16."""
    found = re.search(r"\d+", quantization)
    return int(found[0]) if found else None


def kept(info: ModelInfo, zone: tzinfo, at: datetime) -> str:
    if not info.loaded:
        return "no"
    if info.kept_until is None:
        return "kept loaded"
    until = info.kept_until.astimezone(zone)
    day = "" if until.date() == at.astimezone(zone).date() else f"{until:%d %b} "
    return f"until {day}{until:%H:%M}" if until > at else "no"


def vram(info: ModelInfo) -> str:
    if not info.memory_bytes or info.vram_bytes is None:
        return ""
    return f"{100 * info.vram_bytes / info.memory_bytes:.0f} %" if info.vram_bytes else "CPU"


def abilities(info: ModelInfo) -> str:
    if info.can_chat:
        return "answer, think" if info.can_think else "answer"
    return "only embed" if "embedding" in info.capabilities else "nothing: its file is unusable"


def _in(size: int | None, unit: float) -> float | None:
    return None if size is None else round(size / unit, 0 if unit == _MB else 2)
