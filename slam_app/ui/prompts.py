"""The parts of the Prompts page: the use case, its template with versions, and the rendered prompt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import streamlit as st

from slam_app import prompts
from slam_app.domain import Case, Model, Template, UseCase
from slam_app.errors import InputError, TemplateError
from slam_app.store import connections, use_cases
from slam_app.store.db import Db
from slam_app.ui.text import plain

CHARS_PER_TOKEN = 4
_COMMIT = "Leave the field or press Ctrl+Enter (Cmd+Enter on a Mac)"
_EXAMPLE = "Summarise this customer review in one sentence.\n\nReview: {{ review }}"


def edit_use_case(db: Db, use_case: UseCase) -> None:
    """Name, incumbent and description, beside the description as raters see it."""
    mark = _mark(use_case)
    left, right = st.columns(2, gap="medium")
    with left:
        name = st.text_input("Name", use_case.name, key=f"name-{mark}", persist_state="session")
        incumbent = _incumbent(db, use_case, f"incumbent-{mark}")
        description = st.text_area(
            "Description for raters",
            use_case.description,
            height=320,
            key=f"description-{mark}",
            persist_state="session",
            help="What the feature does and what a good answer is like. Markdown: **bold**, - lists.",
        )
        edited = UseCase(use_case.id, name or "", description or "", incumbent)
        if st.button("Save", type="primary", key="save-use-case"):
            try:
                use_cases.update(
                    db,
                    use_case.id,
                    name=edited.name,
                    description=edited.description,
                    incumbent_model_id=edited.incumbent_model_id,
                )
            except InputError as error:
                st.error(str(error))
            else:
                st.rerun()
        if edited != use_case:
            st.caption(":material/edit: Not saved yet.")
    with right, st.container(border=True):
        st.caption("As raters see it")
        st.markdown(f"## {plain(edited.name)}")
        st.markdown(edited.description or "*No description yet: raters would not know what to look for.*")


def _incumbent(db: Db, use_case: UseCase, key: str) -> int | None:
    models: dict[int | None, Model | None] = {None: None}
    models |= {model.id: model for model in connections.models(db) if model.info.can_chat}
    if use_case.incumbent_model_id not in models:  # no longer on its server
        models[use_case.incumbent_model_id] = connections.model(db, use_case.incumbent_model_id or 0)

    def label(model_id: int | None) -> str:
        model = models[model_id]
        return model.label if model else "None yet"

    chosen = st.selectbox(
        "Incumbent model",
        list(models),
        list(models).index(use_case.incumbent_model_id),
        format_func=label,
        key=key,
        persist_state="session",
        help="The model behind the feature today, which a smaller one may replace. "
        "The answers of the others are compared with its answers.",
    )
    st.caption("Not in the list? Add its connection on Models.")
    return chosen


def edit_template(db: Db, use_case: UseCase, newest: Template | None) -> str:
    """The editor of the newest version; the text as it stands there now, saved or not."""
    body = st.text_area(
        "Prompt template",
        newest.body if newest else "",
        height=420,
        key=f"body-{use_case.id}-{_hash(newest.body) if newest else 'new'}",
        persist_state="session",
        placeholder=_EXAMPLE,
        help="The text that a model gets. {{ review }} stands for a value that each case supplies.",
    )
    st.caption(f"{_COMMIT} to see the variables and the preview of what you wrote.")
    save = st.button("Save template", type="primary", key="save-template")
    _describe(newest, body)
    if save:
        try:
            prompts.variables(body)
            if not body.strip():
                raise InputError("The template is empty. Write the prompt first.")
        except InputError as error:
            st.error(f"Not saved. {error}")
        else:
            version = use_cases.save_template(db, use_case.id, body)
            if newest is None or version != newest.version:
                before = f" Version {newest.version} stays as it was used." if newest else ""
                done = f"Saved as version {version}.{before}"
            else:
                done = f"Version {version} was changed in place; no run has used it."
            st.session_state["saved"] = done
            st.rerun()
    if done := st.session_state.pop("saved", ""):
        st.success(done)
    return body


def _describe(newest: Template | None, body: str) -> None:
    """What the text is: which version, which variables, what is wrong with it."""
    if newest is None:
        st.caption("Not saved yet: saving makes version 1.")
    elif newest.used:
        st.caption(
            f"{_unsaved(newest, body)}Version {newest.version} was used by a run and stays as it is: "
            f"saving a change makes version {newest.version + 1}."
        )
    else:
        st.caption(
            f"{_unsaved(newest, body)}Version {newest.version}. "
            "No run has used it: saving changes it in place."
        )
    try:
        names = prompts.variables(body)
    except TemplateError as error:
        st.error(str(error))
        return
    if names:
        st.markdown("Variables: " + ", ".join(f"`{name}`" for name in names))
    elif body.strip():
        st.info("No variables: every case would ask the same. Write one as {{ name }}.")


def _unsaved(newest: Template, body: str) -> str:
    return "" if newest.body == body else ":material/edit: Not saved yet. "


def older_versions(versions: Sequence[Template]) -> None:
    """Read-only; `versions` from the newest down."""
    if len(versions) < 2:
        return
    with st.expander("Earlier versions"):
        bodies = {template.version: template.body for template in versions[1:]}
        version = st.selectbox(
            "Version", list(bodies), format_func=lambda number: f"Version {number}", key="old-version"
        )
        st.code(bodies[version], language=None, wrap_lines=True)


def preview(body: str, case: Case) -> None:
    """The prompt as a model gets it, or why there is none."""
    try:
        prompts.variables(body)
    except TemplateError:
        st.info("The preview comes back when the template can be read.")
        return
    try:
        prompt = prompts.render(body, case.values)
    except TemplateError as error:
        st.error(str(error))
        return
    st.caption(
        f"{len(prompt):,} characters, about {max(1, round(len(prompt) / CHARS_PER_TOKEN)):,} tokens",
        help=f"Guessed at {CHARS_PER_TOKEN} characters a token, as in English. Each model counts in its own "
        "way; the true number comes with its answer.",
    )
    st.code(prompt, language=None, wrap_lines=True, height="content")


def _mark(use_case: UseCase) -> str:
    """Changes with what is stored, so that the fields then start from it again."""
    return f"{use_case.id}-{_hash(repr(use_case))}"


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())
