"""Words and times as pages show them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from slam_app.domain import Model
from slam_app.ui.widgets import seconds


def plain(text: str) -> str:
    """Text that somebody else wrote, safe to stand in Markdown as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#$:~|!])", r"\\\1", text)


def code(text: str) -> str:
    """The same as inline code, which no address in it turns into a link."""
    return f"`{text.replace('`', '')}`"


def model_names(models: Sequence[Model]) -> dict[int, str]:
    """The name of each model by id; with its connection where two share a name."""
    times = Counter(model.name for model in models)
    return {model.id: model.label if times[model.name] > 1 else model.name for model in models}


def since(at: str) -> float:
    """Seconds since a stored time."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())


def ago(at: str) -> str:
    """ "5 min ago" for a stored time."""
    return f"{seconds(since(at))} ago"
