"""The two things that only the browser can do. The scripts are constants of ours; no data goes into them."""

from __future__ import annotations

import streamlit as st


def open_login() -> None:
    """Leave the app for the login form, in the same tab."""
    st.html("<script>window.location.assign('/login')</script>", unsafe_allow_javascript=True)


def scroll_to_top(place: int) -> None:
    """Show a page from its top; again only when `place` changes. Streamlit would stay where it was."""
    st.html(
        f"<script>/* {place:d} */ document.querySelector('[data-testid=stMain]')?.scrollTo(0, 0)</script>",
        unsafe_allow_javascript=True,
    )
