"""The pages of the app. A new one is a file in pages/ and a line in TITLES."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).resolve().parent.parent.parent / "pages"

ICON = Path(__file__).with_name("icon.svg")

TITLES = {
    "home": "Home",
    "models": "Models",
    "prompts": "Prompts",
    "generate": "Generate",
    "studies": "Studies",
    "results": "Results",
}
"""Pages of admins in the order of the work. Without icons: Streamlit would fetch each one's favicon
from a font host."""


def page(name: str, *, default: bool = False) -> st.Page:
    """A page to give to `st.navigation`, which alone decides who may see it."""
    title = TITLES.get(name, {"rate": "Rate answers", "welcome": "Log in"}.get(name))
    return st.Page(PAGES / f"{name}.py", title=title, url_path=name, default=default)


def link(name: str, label: str, **ids: int) -> None:
    """A link to a page of the admin; `ids` go into its address."""
    query = {key: str(value) for key, value in ids.items()}
    st.page_link(
        page(name, default=name == "home"),
        label=label,
        icon=":material/arrow_forward:",
        query_params=query or None,
    )


def go(name: str) -> None:
    st.switch_page(page(name, default=name == "home"))
