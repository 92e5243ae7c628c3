"""Widgets that several pages repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import streamlit as st

from slam_app.ui.pages import link


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


T = TypeVar("T", bound=_HasId)


def pick(label: str, things: Sequence[T], param: str, name: Callable[[T], str], help: str | None = None) -> T:
    """A selectbox whose choice stands in the URL as `param`, so that links and reloads keep it.

    `things` must not be empty. The options are ids: the rest of a thing may change between reruns.
    """
    by_id = {thing.id: thing for thing in things}
    key = f"pick-{param}"
    if st.session_state.get(key) not in by_id:
        asked = {str(thing_id): thing_id for thing_id in by_id}.get(st.query_params.get(param, ""))
        st.session_state[key] = next(iter(by_id)) if asked is None else asked
    chosen = st.selectbox(
        label,
        list(by_id),
        format_func=lambda thing_id: name(by_id[thing_id]),
        key=key,
        help=help,
    )
    st.query_params[param] = str(chosen)
    return by_id[chosen]


def empty_state(text: str, page: str, label: str) -> None:
    """What is missing here, and a link to where it is made."""
    st.info(text)
    link(page, label)


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def seconds(value: float) -> str:
    """A length of time as people say it."""
    if value < 90:
        return f"{value:.0f} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"
