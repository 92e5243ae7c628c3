"""Reading uploaded cases: CSV, JSONL or a JSON array. All rows or none.

CSV cells are always text, exactly as written; lists and objects need JSONL or JSON, where a value may
be a text, a number, true or false, a list or an object. An optional column `name` names the cases
(default "Case 1", "Case 2" ... by position), unless the template itself uses a variable `name`: then
the column is that variable and the names are the default ones. Rows of a CSV file whose cells are all
blank, as spreadsheets leave behind, count as blank lines.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, NoReturn

from slam_app.errors import CasesError

MAX_CASES = 5_000
MAX_CELL_CHARS = 20_000
MAX_NAME_CHARS = 200
MAX_BYTES = 64_000_000

_NAME = "name"
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case that is not stored yet. `values` are plain JSON data by variable name."""

    name: str
    values: Mapping[str, Any]


type_names = {".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL", ".json": "JSON"}


def parse_cases(filename: str, data: bytes, required: Sequence[str]) -> list[NewCase]:
    """The cases in an uploaded file, in its order.

    Args:
        filename: tells the format: .csv, .tsv, .jsonl, .ndjson, .json.
        data: UTF-8, with or without a byte order mark.
        required: the template's variables; each case must have a value for each of them.

    Raises CasesError with one message for each row that can't be used, or one for the whole file.
    """
    suffix = PurePath(filename).suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl", ".ndjson", ".json"):
        _refuse(f"'{filename}' is not a .csv, .jsonl or .json file. Save the cases in one of these formats.")
    text = _decode(data)
    if suffix in (".csv", ".tsv"):
        rows = _csv_rows(text, required)
    elif suffix == ".json" and text.lstrip().startswith("["):
        rows = _array_rows(text)
    else:
        rows = _jsonl_rows(text)
    return _cases(rows, required, text)


def cases_template_csv(required: Sequence[str]) -> str:
    """A CSV file to fill in: the header for these variables, and one example row to replace."""
    columns = [*([] if _NAME in required else [_NAME]), *required]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerow(["Example" if c == _NAME else f"your text for {c}" for c in columns])
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class _Row:
    """One row as read. `where` says where it stands; `problem` why it could not be read, if so."""

    where: str
    values: Mapping[str, Any]
    problem: str = ""


def _cases(rows: Iterable[_Row], required: Sequence[str], text: str) -> list[NewCase]:
    cases: list[NewCase] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    count = 0
    for count, row in enumerate(rows, start=1):
        if count > MAX_CASES:
            lines = text.count("\n") + 1
            _refuse(
                f"The file has more than {MAX_CASES:,} cases ({lines:,} lines). "
                "Keep the ones that matter, or split them over several use cases."
            )
        found = [row.problem] if row.problem else _problems(row.values, required)
        name = f"Case {count}"
        if _NAME not in required and not found:
            name = str(row.values.get(_NAME, "")).strip() or name
            if len(name) > MAX_NAME_CHARS:
                found.append(f"the name is longer than {MAX_NAME_CHARS} characters; shorten it")
            elif name in seen:
                found.append(f"the name '{name}' is already taken by {seen[name]}; choose another")
            seen.setdefault(name, row.where)
        if found:
            problems.append(f"{row.where[:1].upper()}{row.where[1:]}: {'; '.join(found)}.")
        else:
            cases.append(NewCase(name, {variable: row.values[variable] for variable in required}))
    if problems:
        raise CasesError(problems)
    if not count:
        _refuse("The file has no cases. Add at least one row.")
    return cases


def _problems(values: Mapping[str, Any], required: Sequence[str]) -> list[str]:
    found = []
    if missing := [variable for variable in required if _blank(values.get(variable))]:
        found.append(
            f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} empty; fill in, or write 'none'"
        )
    if unknown := [key for key in values if key not in required and key != _NAME]:
        found.append(_unknown(unknown, required))
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) > MAX_CELL_CHARS:
            found.append(f"'{key}' has {len(text):,} characters, more than {MAX_CELL_CHARS:,}; shorten it")
        elif "\0" in text or "\\u0000" in text and "\0" in repr(value):
            found.append(f"'{key}' contains a NUL character; take it out")
    return found


def _blank(value: object) -> bool:
    # An empty list is an answer ("nothing completed"), an empty text is more likely a gap.
    return value is None or (isinstance(value, str) and not value.strip())


def _refuse(problem: str) -> NoReturn:
    raise CasesError([problem])
