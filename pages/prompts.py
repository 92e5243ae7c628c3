import streamlit as st

from slam_app.ui.auth import require_admin

require_admin()
st.title("prompts")
