"""Who looks at a page."""

from __future__ import annotations

import streamlit as st

from slam_app import auth
from slam_app.routes import RATER_COOKIE
from slam_app.ui.app import db
from slam_app.ui.browser import open_login

PANEL_PARAMETERS = ("PROLIFIC_PID", "rater")
"""Query parameters by which a panel names its people."""


def is_admin() -> bool:
    return auth.is_admin(db(), st.context.cookies.get(auth.COOKIE))


def require_admin() -> None:
    """The first line of every admin page; ends the script for anybody else."""
    if not is_admin():
        st.error("Your login has ended. Log in to go on; nothing is lost.")
        if st.button("Log in", type="primary", key="login"):
            open_login()
        st.stop()


def stay_admin() -> None:
    """The first line of every dialog and fragment of an admin page: they run alone, without its first line.

    After a logout in another tab the whole page runs anew, and asks to log in.
    """
    if not is_admin():
        st.rerun()


def log_out() -> None:
    auth.log_out(db(), st.context.cookies.get(auth.COOKIE, ""))


def rater_identity() -> str | None:
    """Who rates: the panel's id from the address, else this browser's cookie."""
    for name in PANEL_PARAMETERS:
        if value := st.query_params.get(name):
            return f"{name}={value}"
    return st.context.cookies.get(RATER_COOKIE)
