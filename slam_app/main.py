"""Runs at every rerun: who is this, and which pages are there for them?

A page that is not in the list for a role answers "page not found"; pages also check the role themselves.
"""

from __future__ import annotations

import streamlit as st

from slam_app.ui.auth import is_admin, log_out
from slam_app.ui.pages import ICON, TITLES, page

raters_link = "s" in st.query_params  # then even an admin sees what raters see
if is_admin() and not raters_link:
    chosen = st.navigation([page(name, default=name == "home") for name in TITLES])
    st.sidebar.button("Log out", type="tertiary", key="log-out", on_click=log_out)
else:
    chosen = st.navigation([page("welcome", default=True), page("rate")], position="hidden")
st.set_page_config(page_title=f"{chosen.title} · SLaM", page_icon=ICON)
chosen.run()
