"""Runs at every rerun: who is this, and which pages are there for them?

A page that is not in the list for a role answers "page not found"; pages also check the role themselves.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from slam_app.ui.auth import is_admin

PAGES = Path(__file__).resolve().parent.parent / "pages"


def page(name: str, title: str, icon: str, *, default: bool = False) -> st.Page:
    return st.Page(PAGES / f"{name}.py", title=title, icon=icon, url_path=name, default=default)


st.set_page_config(page_title="SLaM", layout="centered", initial_sidebar_state="auto")

if "s" in st.query_params:  # a rater's link, even when an admin opens it
    chosen = st.navigation([page("rate", "Rate answers", ":material/rate_review:")], position="hidden")
elif is_admin():
    chosen = st.navigation(
        [
            page("home", "Home", ":material/home:", default=True),
            page("models", "Models", ":material/memory:"),
            page("prompts", "Prompts", ":material/edit_note:"),
            page("generate", "Generate", ":material/play_circle:"),
            page("studies", "Studies", ":material/groups:"),
            page("results", "Results", ":material/bar_chart:"),
        ]
    )
else:
    chosen = st.navigation(
        [
            page("rate", "Rate answers", ":material/rate_review:"),
            page("welcome", "Log in", ":material/login:", default=True),
        ],
        position="hidden",
    )
chosen.run()
