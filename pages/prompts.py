from collections.abc import Sequence

import streamlit as st

from slam_app import first_start, samples
from slam_app.domain import Case, Template, UseCase
from slam_app.errors import InputError
from slam_app.store import use_cases
from slam_app.ui import cases as case_parts
from slam_app.ui import prompts as parts
from slam_app.ui.app import db
from slam_app.ui.auth import require_admin, stay_admin
from slam_app.ui.pages import link
from slam_app.ui.widgets import count, pick

require_admin()
st.set_page_config(layout="wide")
USE_CASE, TEMPLATE, CASES = "Use case", "Template", "Cases"


def choose() -> UseCase | None:
    there = use_cases.all_use_cases(db())
    sample = samples.daily_briefing().name
    chosen = None
    if not there:
        st.info("No use case yet. Start with your own feature, or look at the sample first.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if there:
            chosen = pick("Use case", there, "use_case", lambda use_case: use_case.name)
        if st.button("New use case", key="new", type="secondary" if there else "primary"):
            create()
        if all(use_case.name != sample for use_case in there) and st.button(
            "Add the sample use case", key="sample", help=f"{sample}: a prompt with cases, ready to run."
        ):
            show(first_start.install_sample(db()))
    return chosen


def show(use_case_id: int) -> None:
    st.session_state.pop("pick-use_case", None)  # so that it takes the one in the address
    st.query_params["use_case"] = str(use_case_id)
    st.rerun()


@st.dialog("New use case")
def create() -> None:
    stay_admin()
    st.write("The feature of your product that a smaller model may take over.")
    with st.form("new-use-case", border=False):
        name = st.text_input("Name", key="new-name", placeholder="Review summaries")
        sent = st.form_submit_button("Create", type="primary", key="create")
    if sent:
        try:
            use_case_id = use_cases.create(db(), name)
        except InputError as error:
            st.error(str(error))
        else:
            show(use_case_id)


def template(use_case: UseCase, versions: Sequence[Template], cases: Sequence[Case]) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        body = parts.edit_template(db(), use_case, versions[0] if versions else None)
        parts.older_versions(versions)
    with right:
        if cases:
            case = pick("Preview with the case", cases, "case", lambda case: case.name)
            parts.preview(body, case)
        else:
            st.info("The preview needs a case. Save the template, then add one under Cases.")


def cases_of(use_case: UseCase, versions: Sequence[Template], cases: Sequence[Case]) -> None:
    if not versions:
        st.info("Write the template first: its variables are what a case has to supply.")
        st.button("Write the template", key="to-template", on_click=lambda: open_tab(TEMPLATE))
        return
    body = versions[0].body
    if cases:
        case_parts.draw_table(body, cases)
    else:
        st.info("No cases yet. Add one by hand, or upload a file. 5 to 20 varied ones are a good start.")
    with st.expander("Add a case", expanded=not cases, key="add-case"):
        case_parts.form(db(), use_case, body, cases, None)
    with st.expander("Upload cases", key="upload-cases"):
        case_parts.upload(db(), use_case, body, cases)
    if not cases:
        return
    by_id = {case.id: case.name for case in cases}
    with st.expander("Edit a case", key="edit-case"):
        chosen = st.selectbox("Case", list(by_id), format_func=by_id.__getitem__, key=f"edit-{use_case.id}")
        case_parts.form(db(), use_case, body, cases, next(case for case in cases if case.id == chosen))
    with st.expander("Delete cases", key="delete-cases"):
        doomed = st.multiselect(
            "Cases to delete", list(by_id), format_func=by_id.__getitem__, key=f"doomed-{use_case.id}"
        )
        if st.button("Delete", key="delete", disabled=not doomed):
            confirm_delete({case_id: by_id[case_id] for case_id in doomed})


@st.dialog("Delete these cases?")
def confirm_delete(doomed: dict[int, str]) -> None:
    stay_admin()
    st.text("\n".join(list(doomed.values())[:10]) + ("\n..." if len(doomed) > 10 else ""))
    st.write("New runs no longer use them. Answers and ratings that exist stay.")
    if st.button(f"Delete {count(len(doomed), 'case')}", type="primary", key="delete-now"):
        for case_id in doomed:
            use_cases.remove_case(db(), case_id)
        st.rerun()


def open_tab(name: str) -> None:
    st.session_state["tab"] = name


def next_step(use_case: UseCase, ready: bool) -> None:
    if ready:
        link("generate", "Generate answers", use_case=use_case.id)
    else:
        st.caption("With a saved template and at least one case, you can go on to Generate.")


st.title("Prompts")
st.write("What the models are asked: a use case, its prompt template, and the cases that fill it in.")
if use_case := choose():
    versions, cases = use_cases.templates(db(), use_case.id), use_cases.cases(db(), use_case.id)
    first, second, third = st.tabs([USE_CASE, TEMPLATE, CASES], key="tab", bind="query-params")
    with first:
        parts.edit_use_case(db(), use_case)
    with second:
        template(use_case, versions, cases)
    with third:
        cases_of(use_case, versions, cases)
    next_step(use_case, bool(versions and cases))
