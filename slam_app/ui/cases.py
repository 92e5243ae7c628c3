"""Cases on the Prompts page: their table, the form for one, and uploads.

A value in the form is a text, a list with one item on each line, or JSON for everything else. Which of
them is decided by the value that is there; in a new case, by the newest case that has the variable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import pandas as pd
import streamlit as st

from slam_app import prompts
from slam_app.cases import MAX_CELL_CHARS, MAX_NAME_CHARS, cases_template_csv, parse_cases, problems
from slam_app.domain import Case, UseCase
from slam_app.errors import CasesError, InputError, TemplateError
from slam_app.store import use_cases
from slam_app.store.db import Db
from slam_app.ui.text import plain
from slam_app.ui.widgets import count

RENDER_AT_MOST = 500
"""Of more cases only missing values are looked for: 5,000 prompts take more than a second."""


class Field(StrEnum):
    TEXT = "text"
    LINES = "one item per line"
    JSON = "JSON"


def field_of(value: object) -> Field:
    """How a value is edited so that nothing of it gets lost."""
    if isinstance(value, str):
        return Field.TEXT
    if isinstance(value, list) and all(isinstance(item, str) and _is_line(item) for item in value):
        return Field.LINES
    return Field.JSON


def to_text(value: object, field: Field) -> str:
    match field:
        case Field.TEXT:
            return str(value)
        case Field.LINES:
            return "\n".join(value) if isinstance(value, list) else ""
        case Field.JSON:
            return json.dumps(value, ensure_ascii=False, indent=1)


def from_text(variable: str, text: str, field: Field) -> object:
    """The value that was typed. Raises InputError when it should be JSON and is not."""
    match field:
        case Field.TEXT:
            return text
        case Field.LINES:
            return [line.strip() for line in text.splitlines() if line.strip()]
        case Field.JSON:
            try:
                return json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"'{variable}' is not JSON: {error}. Texts in JSON stand in double quotes."
                ) from None


def _is_line(item: str) -> bool:
    return bool(item) and item.strip() == item and len(item.splitlines()) == 1


def fields(body: str, there: Sequence[Case], case: Case | None) -> dict[str, Field]:
    """How each variable of the template is edited, in the template's order."""
    values: dict[str, Any] = {}
    for one in [*there, *([case] if case else [])]:
        values |= one.values
    loops = prompts.list_variables(body)
    return {
        variable: field_of(values[variable])
        if variable in values
        else Field.LINES
        if variable in loops
        else Field.TEXT
        for variable in prompts.variables(body)
    }


def table(body: str, there: Sequence[Case]) -> pd.DataFrame:
    """One row a case; the column "Problem" only when a prompt can't be made from a case."""
    names = prompts.variables(body)
    rows = [
        {
            "Case": case.name,
            "Problem": _problem(body, case, render=len(there) <= RENDER_AT_MOST),
            **{name: _cell(case.values.get(name)) for name in names if name not in ("Case", "Problem")},
        }
        for case in there
    ]
    frame = pd.DataFrame(rows)
    return frame if frame["Problem"].any() else frame.drop(columns="Problem")


def draw_table(body: str, there: Sequence[Case]) -> None:
    frame = table(body, there)
    if "Problem" in frame:
        bad = count(int((frame["Problem"] != "").sum()), "case")
        st.warning(
            f"{bad} of {len(there):,} can't be used with this template; the column Problem says why. "
            "Mend them under Edit a case, or change the template."
        )
    st.dataframe(frame, hide_index=True, key="cases", alt="The cases of this use case")
    st.caption(
        f"{count(len(there), 'case')}. Every model of a run answers each case, "
        "as often as the run has samples."
    )


def _problem(body: str, case: Case, render: bool) -> str:
    if missing := [name for name in prompts.variables(body) if name not in case.values]:
        return f"no value for {', '.join(missing)}"
    if not render:
        return ""
    try:
        prompts.render(body, case.values)
    except TemplateError as error:
        return str(error)
    return ""


def _cell(value: object) -> str:
    if field_of(value) is Field.LINES:
        return to_text(value, Field.LINES).replace("\n", "; ")
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def form(db: Db, use_case: UseCase, body: str, there: Sequence[Case], case: Case | None) -> None:
    """Add a case, or edit `case`."""
    kinds = fields(body, there, case)
    mark = f"{use_case.id}-{case.id if case else f'new-{len(there)}'}"
    before: Mapping[str, Any] = case.values if case else {}
    with st.form(f"case-{mark}", border=False):
        name = st.text_input(
            "Name of the case", case.name if case else "", MAX_NAME_CHARS, key=f"case-name-{mark}",
            help="For you and your team, to find it again. Models and raters do not see it.",
        )  # fmt: skip
        texts = {
            variable: st.text_area(
                variable if kind is Field.TEXT else f"{variable} ({kind})",
                to_text(before[variable], kind) if variable in before else "",
                height=80 if kind is Field.TEXT else 120,
                max_chars=MAX_CELL_CHARS,
                key=f"case-{mark}-{variable}-{kind.name}",
            )
            for variable, kind in kinds.items()
        }
        if Field.LINES in kinds.values():
            st.caption("Write each item of a list on a line of its own. No line: an empty list.")
        if not st.form_submit_button("Save case" if case else "Add case", type="primary", key=f"save-{mark}"):
            return
    try:
        values = {variable: from_text(variable, texts[variable], kinds[variable]) for variable in kinds}
        if wrong := problems(values, list(kinds)):
            raise InputError(f"Not saved: {'; '.join(wrong)}.")
        if case:
            use_cases.update_case(db, case.id, name, {**before, **values})
        else:
            use_cases.add_cases(db, use_case.id, [(name, values)])
    except InputError as error:
        st.error(str(error))
    else:
        st.rerun()


def upload(db: Db, use_case: UseCase, body: str, there: Sequence[Case]) -> None:
    """Cases from a file: all of it or nothing, with every problem listed."""
    names = prompts.variables(body)
    st.markdown(
        "A **CSV** file with a column for each variable and one row a case; every value is a text. "
        "Or **JSONL**: one object on each line, where a value may also be a list. "
        "A column `name` names the cases."
    )
    st.download_button(
        "Download a CSV file to fill in", cases_template_csv(names), "cases.csv", "text/csv",
        key="example-csv", icon=":material/download:", on_click="ignore",
    )  # fmt: skip
    file = st.file_uploader(
        "Upload a file", ["csv", "tsv", "jsonl", "ndjson", "json"], key=f"upload-{use_case.id}-{len(there)}"
    )
    if file is None:
        return
    try:
        found = parse_cases(file.name, file.getvalue(), names)
        taken = {case.name for case in there}
        if doubles := [case.name for case in found if case.name in taken]:
            raise CasesError(
                [f"'{name}' is the name of a case that is there already. Choose another." for name in doubles]
            )
    except CasesError as error:
        _show_problems(error.problems)
        return
    st.success(f"{count(len(found), 'case')} can be added from {plain(file.name)}.")
    st.dataframe(
        table(body, [Case(0, use_case.id, case.name, case.values) for case in found[:50]]),
        hide_index=True,
        key="upload-preview",
        alt="The first cases of the file",
    )
    if st.button(f"Add {count(len(found), 'case')}", type="primary", key="add-upload"):
        try:
            use_cases.add_cases(db, use_case.id, [(case.name, case.values) for case in found])
        except InputError as error:
            st.error(str(error))
        else:
            st.rerun()


def _show_problems(found: Sequence[str]) -> None:
    st.error(
        f"Nothing was imported: the file has {count(len(found), 'problem')}. "
        "Mend the file and upload it again."
    )
    with st.container(height=min(56 + 40 * len(found), 320)):
        st.markdown("\n".join(f"- {plain(problem)}" for problem in found[:200]))
        if len(found) > 200:
            st.caption(f"and {len(found) - 200:,} more")
