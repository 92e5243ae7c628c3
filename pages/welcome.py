"""For people without a login: where to go."""

import streamlit as st

st.title("SLaM")
st.write("Can a small, self-hosted language model replace the proprietary one behind a feature?")
st.link_button("Log in as admin", "/login", type="primary")
st.caption("Were you asked to rate answers? Use the whole link that you were sent.")
