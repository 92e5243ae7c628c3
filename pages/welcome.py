"""For people without a login: where to go."""

import streamlit as st

from slam_app.ui.browser import open_login

st.title("SLaM")
st.write("Can a small, self-hosted language model replace the proprietary one behind a feature?")
if st.button("Log in as admin", type="primary", key="login"):
    open_login()
st.caption("Were you asked to rate answers? Use the whole link that you were sent.")
