"""Reading uploaded cases: CSV, JSONL or a JSON array. All rows or none.

CSV cells are always text, exactly as written. Lists and objects need JSONL or JSON, where a value may be
a text, a number, true or false, a list or an object. An optional column `name` names the cases (default
"Case 1", "Case 2" ... by position), unless the template itself uses a variable `name`: then the column
is that variable, and the cases keep their default names. Rows of a CSV file with nothing but blank
cells, as spreadsheets leave behind, count as blank lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, NoReturn

from slam_app.errors import CasesError

MAX_CASES = 5_000
MAX_CELL_CHARS = 20_000
MAX_NAME_CHARS = 200
MAX_BYTES = 64_000_000

_NAME = "name"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # JSON can spell them; UTF-8 and SQLite can't hold them
_CSV = (".csv", ".tsv")
_JSON = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case that is not stored yet. `values` are plain JSON data by variable name."""

    name: str
    values: Mapping[str, Any]


def parse_cases(filename: str, data: bytes, required: Sequence[str]) -> list[NewCase]:
    """The cases in an uploaded file, in its order.

    Args:
        filename: tells the format: .csv or .tsv (comma, semicolon or tab), .jsonl, .ndjson or .json.
        data: UTF-8, with or without a byte order mark.
        required: the template's variables; each case must have a value for each of them.

    Raises CasesError with one message for each row that can't be used, or one for the whole file.
    """
    suffix = PurePath(filename).suffix.lower()
    if suffix not in _CSV + _JSON:
        _refuse(f"'{filename}' is not a .csv, .jsonl or .json file. Save the cases as one of these.")
    text = _decode(data)
    if suffix in _CSV:
        rows = _csv_rows(text, required)
    elif suffix == ".json" and text.lstrip().startswith("["):
        rows = _array_rows(text)
    else:
        rows = _jsonl_rows(text)
    return _checked(rows, required, lines=text.count("\n") + (not text.endswith("\n")))


def problems(values: Mapping[str, Any], required: Sequence[str]) -> list[str]:
    """What is wrong with one case typed by hand, by the rules of an upload; empty if nothing is."""
    return _problems(values, required)


def cases_template_csv(required: Sequence[str]) -> str:
    """A CSV file to fill in: the header for these variables, and one example row to replace."""
    columns = [*([] if _NAME in required else [_NAME]), *required]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerow(f"your text for {column}" for column in columns)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class _Row:
    """One row as read: where it stands, and its values or what made it unreadable."""

    where: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def _checked(rows: Iterable[_Row], required: Sequence[str], lines: int) -> list[NewCase]:
    cases: list[NewCase] = []
    problems: list[str] = []
    named: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if number > MAX_CASES:
            _refuse(
                f"The file has more than {MAX_CASES:,} cases ({lines:,} lines). "
                "Keep those that matter, or split them over several use cases."
            )
        found = [row.problem] if row.problem else _problems(row.values, required)
        name = f"Case {number}"
        if not row.problem and _NAME not in required:
            given = row.values.get(_NAME)
            name = name if _blank(given) else str(given).strip()
            if isinstance(given, list | dict):
                found.append("the name is not a text; write it as one")
            elif len(name) > MAX_NAME_CHARS:
                found.append(f"the name is longer than {MAX_NAME_CHARS} characters; shorten it")
            elif name in named:
                found.append(f"the name '{name}' is that of {named[name]}; choose another")
            named.setdefault(name, row.where)
        if found:
            problems.append(f"{row.where.capitalize()}: {'; '.join(found)}.")
        else:
            cases.append(NewCase(name, {variable: row.values[variable] for variable in required}))
    if problems:
        raise CasesError(problems)
    if not cases:
        _refuse("The file has no cases. Add at least one row.")
    return cases


def _problems(values: Mapping[str, Any], required: Sequence[str]) -> list[str]:
    found = []
    if empty := [variable for variable in required if _blank(values.get(variable))]:
        found.append(f"no value for {_listed(empty)}; fill it in, or write 'none'")
    if unknown := [key for key in values if key not in required and key != _NAME]:
        found.append(_unknown(unknown, required))
    for key, value in values.items():
        try:
            texts = [key, *_texts(value)]
        except RecursionError:
            found.append(f"'{key}' is nested too deeply; make it flatter")
            continue
        if (length := sum(map(len, texts)) - len(key)) > MAX_CELL_CHARS:
            found.append(f"'{key}' has {length:,} characters, over {MAX_CELL_CHARS:,}; shorten it")
        if any(_UNSTORABLE.search(text) for text in texts):
            found.append(f"{key!r} contains a NUL or half of a surrogate pair; take it out")
    return found


def _blank(value: object) -> bool:
    # An empty list is an answer ("nothing completed"); an empty text is more likely a gap.
    return value is None or (isinstance(value, str) and not value.strip())


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        _refuse(f"The file is larger than {MAX_BYTES // 1_000_000} MB. Split it, or shorten its texts.")
    if b"\0" in data:
        _refuse(
            "The file contains NUL bytes: it is a workbook, or text in UTF-16. "
            "Save it as 'CSV UTF-8' and upload that."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _refuse(
            f"Line {line} is not UTF-8 (byte {data[error.start]:#04x}). "
            "Save the file as 'CSV UTF-8' (or set the encoding to UTF-8) and upload it again."
        )


def _csv_rows(text: str, required: Sequence[str]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, required), strict=True)
    header: list[str] | None = None
    while True:
        where = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            # What follows an unclosed quote can't be told apart from its text, so reading ends here.
            yield _Row(where, problem=f"unreadable from here on ({error}); look for a quote without its pair")
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells, required)
            continue
        while len(cells) > len(header) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(header):
            problem = f"{len(cells)} cells for {len(header)} columns; put quotes around texts with separators"
            yield _Row(where, problem=problem)
        else:
            yield _Row(where, dict(zip(header, cells, strict=False)))
    if header is None:
        _refuse("The file is empty. Its first line must name the columns: " + ", ".join(required or [_NAME]))


def _delimiter(text: str, required: Sequence[str]) -> str:
    """The separator under which the header makes sense. Guessing from the cells would fail on prose."""

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            cells = {c.strip() for c in next((row for row in reader if any(c.strip() for c in row)), [])}
        except csv.Error:
            return (0, 0)
        return (len(cells.intersection([*required, _NAME])), len(cells))

    return max(",;\t", key=fit)


def _header(cells: Sequence[str], required: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    while not header[-1]:
        header.pop()
    problems = []
    if missing := [variable for variable in required if variable not in header]:
        problems.append(f"The header lacks {_listed(missing)}, which the template needs.")
    if "" in header:
        problems.append(f"Column {header.index('') + 1} has no name; name it or delete it.")
    if twice := [column for column, times in Counter(header).items() if column and times > 1]:
        problems.append(f"The header names {_listed(twice)} twice; keep one.")
    if unknown := [c for c in dict.fromkeys(header) if c and c not in required and c != _NAME]:
        problems.append(f"In the header: {_unknown(unknown, required)}.")
    if problems:
        raise CasesError(problems)
    return header


def _jsonl_rows(text: str) -> Iterator[_Row]:
    # Not splitlines(): it also splits at characters that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _json_row(f"line {number}", line)


def _array_rows(text: str) -> Iterator[_Row]:
    try:
        items = _loads(text)
    except json.JSONDecodeError as error:
        _refuse(f"Line {error.lineno} is not JSON: {error.msg} (column {error.colno}). Mend it there.")
    except (ValueError, RecursionError) as error:
        _refuse(f"The file can't be read as JSON: {error}. Mend it there.")
    for number, item in enumerate(items, start=1):
        yield _object_row(f"item {number}", item)


def _json_row(where: str, line: str) -> _Row:
    try:
        return _object_row(where, _loads(line))
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} (column {error.colno}); each line is one complete object"
    except (ValueError, RecursionError) as error:
        problem = f"can't be read as JSON: {error}"
    return _Row(where, problem=problem)


def _object_row(where: str, item: object) -> _Row:
    if isinstance(item, dict):
        return _Row(where, item)
    return _Row(where, problem='not an object; write {"variable": "value", ...}')


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
        raise ValueError(f"{_listed(twice)} occurs twice in one object")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _unknown(keys: Sequence[str], required: Sequence[str]) -> str:
    hints = {key: get_close_matches(key.lower(), [*required, _NAME], n=1) for key in keys}
    shown = [f"'{key}' (did you mean '{hint[0]}'?)" if hint else f"'{key}'" for key, hint in hints.items()]
    return f"unknown to the template: {', '.join(shown)}; correct or delete it"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _refuse(problem: str) -> NoReturn:
    raise CasesError([problem])
