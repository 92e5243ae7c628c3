from __future__ import annotations

import csv
import io
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slam_app.cases import (
    MAX_BYTES,
    MAX_CASES,
    MAX_CELL_CHARS,
    NewCase,
    cases_template_csv,
    parse_cases,
    problems,
)
from slam_app.errors import CasesError

# Time limits per example would make a busy machine look like a bug.
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refused(filename: str, data: bytes | str, required: list[str]) -> list[str]:
    raw = data.encode() if isinstance(data, str) else data
    with pytest.raises(CasesError) as caught:
        parse_cases(filename, raw, required)
    return caught.value.problems


def jsonl(*objects: object) -> str:
    return "\n".join(json.dumps(item) for item in objects)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_csv_with_any_separator_and_line_end(separator: str, bom: bytes, newline: str) -> None:
    rows = [
        ["name", "today", "tasks"],
        ["first", "Mon, 1 May; early", '"said ""no"", twice"'],
        ["", "Tue", '"two\nlines"'],
    ]
    rows[1][1] = f'"{rows[1][1]}"'
    data = bom + newline.join(separator.join(row) for row in rows).encode()
    assert parse_cases("cases.CSV", data, ["today", "tasks"]) == [
        NewCase("first", {"today": "Mon, 1 May; early", "tasks": 'said "no", twice'}),
        NewCase("Case 2", {"today": "Tue", "tasks": "two\nlines"}),
    ]


def test_prose_full_of_other_separators_does_not_mislead() -> None:
    data = b"topic\nred; green; blue\n"
    assert parse_cases("c.csv", data, ["topic"]) == [NewCase("Case 1", {"topic": "red; green; blue"})]
    data = b'topic;tone\n"a, b, c, d";"x, y"\n'
    assert parse_cases("c.csv", data, ["topic", "tone"]) == [
        NewCase("Case 1", {"topic": "a, b, c, d", "tone": "x, y"})
    ]


def test_csv_cells_stay_text_even_when_they_look_like_json() -> None:
    data = b'tasks,n\n"[""a"", ""b""]", 7 \n'
    assert parse_cases("c.csv", data, ["tasks", "n"])[0].values == {"tasks": '["a", "b"]', "n": " 7 "}


def test_columns_may_stand_in_any_order_and_leftovers_of_spreadsheets_are_blank() -> None:
    data = b"\nb,a,,\n1,2,,\n,,,\n\n3,4,,\n,,,\n"
    assert [case.values for case in parse_cases("c.csv", data, ["a", "b"])] == [
        {"a": "2", "b": "1"},
        {"a": "4", "b": "3"},
    ]


def test_json_carries_structure() -> None:
    values = {"tasks": ["a", "b"], "goal": {"title": "Win", "due": None}, "n": 3, "ok": False, "none": []}
    for filename, text in [
        ("c.jsonl", "\n" + jsonl({"name": "one", **values}) + "\r\n\n"),
        ("c.ndjson", jsonl({"name": "one", **values})),
        ("c.json", jsonl({"name": "one", **values})),
        ("c.json", "\ufeff " + json.dumps([{"name": "one", **values}], indent=2)),
    ]:
        assert parse_cases(filename, text.encode(), list(values)) == [NewCase("one", values)]


def test_jsonl_lines_end_at_newlines_only() -> None:
    text = '{"a": "one\u2028two\u0085three"}\n'
    assert parse_cases("c.jsonl", text.encode(), ["a"])[0].values == {"a": "one\u2028two\u0085three"}


def test_a_variable_called_name_is_a_value_and_may_repeat() -> None:
    cases = parse_cases("c.csv", b"name\nAnna\nAnna\n", ["name"])
    assert cases == [NewCase("Case 1", {"name": "Anna"}), NewCase("Case 2", {"name": "Anna"})]


@pytest.mark.parametrize("filename", ["cases.xlsx", "cases", "cases.txt", "csv"])
def test_another_kind_of_file_is_refused_by_name(filename: str) -> None:
    [problem] = refused(filename, "a\n1\n", ["a"])
    assert filename in problem
    assert ".csv, .jsonl or .json" in problem


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\n\0\n", "NUL bytes"),
        ("a\nb\n".encode("utf-16"), "NUL bytes"),
        ("a\ncafé\n".encode("latin-1"), "Line 2 is not UTF-8 (byte 0xe9)"),
        (b"", "The file is empty. Its first line must name the columns: a"),
        (b"\n\n", "The file is empty"),
        (b"a\n", "The file has no cases"),
    ],
)
def test_a_file_that_is_no_csv_text_is_refused_as_a_whole(data: bytes, expected: str) -> None:
    [problem] = refused("c.csv", data, ["a"])
    assert expected in problem


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("b", ["The header lacks 'a', which the template needs."]),
        ("a,b,tody", ["In the header: unknown to the template: 'tody'; correct or delete it."]),
        ("A,b", ["lacks 'a'", "'A' (did you mean 'a'?)"]),
        ("a,b,a", ["names 'a' twice"]),
        ("a,,b", ["Column 2 has no name"]),
        ('a;b;"c, d, e, f"', ["unknown to the template: 'c, d, e, f'"]),
    ],
)
def test_a_wrong_header_is_told_once_and_not_for_each_row(header: str, expected: list[str]) -> None:
    problems = refused("c.csv", header + "\n1,2,3\n4,5,6\n", ["a", "b"])
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem


def test_every_wrong_row_is_named_with_its_line_and_nothing_is_imported() -> None:
    data = (
        "name,a,b\n"  # 1
        "x,1,2\n"  # 2
        "y,,2\n"  # 3
        'z,"two\nlines",2\n'  # 4, 5
        "x,1,2\n"  # 6
        "w,1,2,3\n"  # 7
        "v, ,\n"  # 8
        "ok,1,2\n"
    )
    assert refused("c.csv", data, ["a", "b"]) == [
        "Line 3: no value for 'a'; fill it in, or write 'none'.",
        "Line 6: the name 'x' is that of line 2; choose another.",
        "Line 7: 4 cells for 3 columns; put quotes around texts with separators.",
        "Line 8: no value for 'a', 'b'; fill it in, or write 'none'.",
    ]


def test_an_unclosed_quote_is_told_where_it_begins() -> None:
    problems = refused("c.csv", 'a,b\n1,2\n"open,3\n4,5\n', ["a", "b"])
    assert len(problems) == 1
    assert problems[0].startswith("Line 3: unreadable from here on")
    assert "quote" in problems[0]


def test_a_huge_unclosed_quote_is_told_too() -> None:
    [problem] = refused("c.csv", 'a,b\n1,"' + "x, y\n" * 60_000, ["a", "b"])
    assert problem.startswith("Line 2: unreadable from here on")


def test_every_wrong_line_of_jsonl_is_named() -> None:
    text = "\n".join(
        [
            '{"a": 1}',
            '{"a": }',
            "[1]",
            '{"a": "x", "tpyo": 1}',
            "{}",
            '{"a": null}',
            '{"a": NaN}',
            '{"a": 1, "a": 2}',
            '{"a": "\\u0000"}',
            '{"a": ["\\ud800"]}',
            '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
            '{"a": 1, "name": ["x"]}',
            '{"a": 1, "name": "' + "n" * 201 + '"}',
            '{"a": 1, "name": "Case 1"}',
        ]
    )
    problems = refused("c.jsonl", text, ["a"])
    expected = [
        "Line 2: not JSON: Expecting value (column 7)",
        "Line 3: not an object",
        "Line 4: unknown to the template: 'tpyo'; correct or delete it",
        "Line 5: no value for 'a'",
        "Line 6: no value for 'a'",
        "Line 7: can't be read as JSON: NaN is not a JSON number",
        "Line 8: can't be read as JSON: 'a' occurs twice",
        "Line 9: 'a' contains a NUL",
        "Line 10: 'a' contains a NUL or half of a surrogate pair",
        "Line 11: can't be read as JSON",
        "Line 12: the name is not a text",
        "Line 13: the name is longer than 200 characters",
        "Line 14: the name 'Case 1' is that of line 1",
    ]
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_wrong_items_of_a_json_array_are_counted() -> None:
    assert refused("c.json", '[{"a": 1}, 2, {"a": ""}]', ["a"]) == [
        'Item 2: not an object; write {"variable": "value", ...}.',
        "Item 3: no value for 'a'; fill it in, or write 'none'.",
    ]
    assert refused("c.json", "[]", ["a"]) == ["The file has no cases. Add at least one row."]
    [problem] = refused("c.json", '[{"a": 1},\n {"a": }]', ["a"])
    assert problem.startswith("Line 2 is not JSON: Expecting value (column 8)")
    [problem] = refused("c.json", '[{"a": Infinity}]', ["a"])
    assert "Infinity is not a JSON number" in problem


@pytest.mark.parametrize("value", ["x" * (MAX_CELL_CHARS + 1), ["x" * MAX_CELL_CHARS, "y"]])
def test_an_overlong_value_is_refused(value: object) -> None:
    [problem] = refused("c.jsonl", jsonl({"a": value}), ["a"])
    assert problem == "Line 1: 'a' has 20,001 characters, over 20,000; shorten it."


def test_the_longest_allowed_value_passes() -> None:
    data = f"a\n{'x' * MAX_CELL_CHARS}\n".encode()
    assert len(parse_cases("c.csv", data, ["a"])[0].values["a"]) == MAX_CELL_CHARS


def test_exactly_the_limit_of_cases_passes() -> None:
    assert len(parse_cases("c.csv", b"a\n" + b"x\n" * MAX_CASES, ["a"])) == MAX_CASES


@pytest.mark.parametrize("filename", ["c.csv", "c.jsonl"])
def test_far_too_many_cases_fail_fast_with_one_message(filename: str) -> None:
    first, row = (b"a\n", b"wrong,columns\n") if filename == "c.csv" else (b"\n", b'{"a": "x"}\n')
    data = first + row * 100_000
    started = time.perf_counter()
    [problem] = refused(filename, data, ["a"])
    assert time.perf_counter() - started < 2
    assert problem.startswith("The file has more than 5,000 cases (100,001 lines).")


def test_a_file_beyond_the_size_limit_is_refused_unread() -> None:
    [problem] = refused("c.csv", bytes(MAX_BYTES + 1), ["a"])
    assert problem.startswith("The file is larger than 64 MB")


def test_a_case_typed_by_hand_follows_the_rules_of_an_upload() -> None:
    assert problems({"a": "x", "b": []}, ["a", "b"]) == []
    assert problems({"a": " ", "c": "x"}, ["a"]) == [
        "no value for 'a'; fill it in, or write 'none'",
        "unknown to the template: 'c'; correct or delete it",
    ]


@pytest.mark.parametrize("required", [[], ["a"], ["name", "a"], ["today", "goals"]])
def test_the_template_to_download_can_be_uploaded_again(required: list[str]) -> None:
    [case] = parse_cases("t.csv", cases_template_csv(required).encode(), required)
    assert list(case.values) == required
    assert all("your text" in value for value in case.values.values())


cells = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30
).filter(str.strip)
columns = st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda c: c != "name"), unique=True)


@quick
@given(
    st.data(),
    columns.filter(len),
    st.sampled_from(",;\t"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_whatever_the_csv_module_writes_is_read_back(
    data: st.DataObject, required: list[str], separator: str, quoting: Any
) -> None:
    row = st.lists(cells, min_size=len(required), max_size=len(required))
    rows = data.draw(st.lists(row, min_size=1, max_size=5))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, quoting=quoting).writerows([required, *rows])

    cases = parse_cases("c.csv", out.getvalue().encode(), required)

    assert [[case.values[column] for column in required] for case in cases] == rows


@quick
@given(st.binary(max_size=200), st.sampled_from(["c.csv", "c.jsonl", "c.json"]))
def test_any_bytes_are_cases_or_a_cases_error(data: bytes, filename: str) -> None:
    try:
        assert parse_cases(filename, data, ["a"])
    except CasesError as error:
        assert error.problems


json_texts = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.integers() | st.booleans() | json_texts.filter(str.strip),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_texts, inner, max_size=3),
    max_leaves=6,
)


@quick
@given(st.lists(json_values, min_size=1, max_size=5), st.booleans())
def test_whatever_the_json_module_writes_is_read_back(items: list[object], ascii_only: bool) -> None:
    rows = [{"a": item} for item in items]
    lines = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    array = json.dumps(rows, ensure_ascii=ascii_only)
    assert [case.values for case in parse_cases("c.jsonl", lines.encode(), ["a"])] == rows
    assert [case.values for case in parse_cases("c.json", array.encode(), ["a"])] == rows
