from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slam_app.errors import TemplateError
from slam_app.prompts import MAX_PROMPT_CHARS, render, variables

# Time limits per example would make a busy machine look like a bug.
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("plain text", ()),
        ("{{ zebra }} {{ apple }} {{ zebra }}", ("zebra", "apple")),
        ("{{ yes if flag else no }}", ("yes", "flag", "no")),
        ("{{ goal.today }} {{ first }} {{ today }}", ("goal", "first", "today")),
        ("{% for t in tasks %}{{ loop.index }}{{ t }}{% endfor %}{{ end }}", ("tasks", "end")),
        ("{% set x = given %}{{ x }}", ("given",)),
        ("{% raw %}{{ hidden }}{% endraw %}{# {{ comment }} #}{{ seen }}", ("seen",)),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", ()),
        ("{{ dict }} {{ joiner }}", ("dict", "joiner")),
    ],
)
def test_variables_are_those_a_case_must_supply_in_order_of_appearance(
    body: str, expected: tuple[str, ...]
) -> None:
    assert variables(body) == expected


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("one\ntwo {{ open", 2),
        ("{% for %}x{% endfor %}", 1),
        ("a\nb\n{% if x %}", 3),
        ("a\n{{ x | nosuchfilter }}", 2),
        ("{{ tasks | random }}", 1),
        ("a\n{% include 'other' %}", 2),
    ],
)
def test_a_broken_template_is_refused_with_its_line_and_the_next_step(body: str, line: int) -> None:
    with pytest.raises(TemplateError, match=rf"Line {line} of the template .*(Mend|Paste)") as caught:
        variables(body)
    assert "introspection" not in str(caught.value)
    with pytest.raises(TemplateError, match=f"Line {line} "):
        render(body, {"x": 1, "tasks": ["a"]})


def test_brackets_nested_without_end_are_a_template_error() -> None:
    with pytest.raises(TemplateError, match="nested too deeply"):
        variables("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")


@pytest.mark.parametrize(
    ("body", "message"),
    [("{{ x(a=1, a=2) }}", "argument repeated: a. Mend"), ("{{ 1" + "0" * 5000 + " }}", "4300 digits")],
)
def test_what_only_python_objects_to_is_a_template_error_too(body: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        variables(body)


@pytest.mark.parametrize(
    ("body", "values", "expected"),
    [
        ("Hi {{ who }}.\n", {"who": "Ada"}, "Hi Ada."),
        ("{{ a }} < b & 'c'", {"a": "<i>"}, "<i> < b & 'c'"),
        ("{{ text }}", {"text": "{{ other }} {% raw %}"}, "{{ other }} {% raw %}"),
        (
            "Tasks:\n{% for t in tasks %}\n- {{ t }}\n{% endfor %}\nEnd",
            {"tasks": ["run", "rest"]},
            "Tasks:\n- run\n- rest\nEnd",
        ),
        (
            "{% for k, v in goal.items() %}{{ k }}={{ v }};{% endfor %}",
            {"goal": {"a": 1, "b": 2}},
            "a=1;b=2;",
        ),
        (
            "{% for g in goals %}{{ g.title }} by {{ g['due'] }}. {% endfor %}",
            {"goals": [{"title": "Win", "due": "May"}]},
            "Win by May. ",
        ),
        ("{{ tasks | join(', ') }}", {"tasks": ["run", "rest"]}, "run, rest"),
        ("{{ tasks | join(', ') }}", {"tasks": "run and rest"}, "run and rest"),
        ("{{ tasks | join(', ') or 'nothing' }}", {"tasks": []}, "nothing"),
        (
            "{{ tasks }} {{ goal }}",
            {"tasks": ["é", 1, None], "goal": {"a": True}},
            '["é", 1, null] {"a": true}',
        ),
        ("x{{ nothing }}", {"nothing": None}, "x"),
        ("{{ 3 * n }}", {"n": 2}, "6"),
        ("{% if maybe is defined %}a{% else %}b{% endif %}", {}, "b"),
    ],
)
def test_a_case_renders_as_written(body: str, values: dict[str, object], expected: str) -> None:
    assert render(body, values) == expected


def test_the_missing_variable_is_named_with_its_line() -> None:
    with pytest.raises(TemplateError, match=r"Line 2 .*'goals', and this case has none. Add 'goals'"):
        render("{{ today }}\n{{ goals }}", {"today": "Monday"})


def test_a_missing_key_of_an_object_is_named() -> None:
    with pytest.raises(TemplateError, match=r"Line 1 .*no attribute 'due'"):
        render("{{ goal.due }}", {"goal": {"title": "Win"}})


def test_a_loop_over_a_text_is_refused_instead_of_spelling_it() -> None:
    with pytest.raises(TemplateError, match="loops over 'tasks', but in this case it is a text"):
        render("{% for t in tasks %}{{ t }}{% endfor %}", {"tasks": "run"})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a\n{{ 1 / zero }}", r"Line 2 .*division by zero"),
        ("{{ 1 / 0 }}", r"Line 1 .*division by zero"),
        ("{{ goal.items }}", r"Line 1 .*can't be printed.*thing\['key'\]"),
        ("{{ tasks | map('upper') }}", r"can't be printed.*\| join"),
        ("a\n{% for i in range(10000000) %}x{% endfor %}", "Line 2 .*a range has at most 10,000 numbers"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 'x' * 100000000 }}", "for numbers only"),
        ("{{ 9 ** 999999999 }}", "powers are not available"),
    ],
)
def test_a_failure_inside_the_template_says_what_and_where(body: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        render(body, {"zero": 0, "goal": {"a": 1}, "tasks": ["a"]})


@pytest.mark.parametrize("body", ["", " \n ", "{% if tasks %}x{% endif %}"])
def test_an_empty_prompt_is_refused(body: str) -> None:
    with pytest.raises(TemplateError, match="prompt is empty"):
        render(body, {"tasks": []})


def test_a_prompt_stops_at_the_size_limit() -> None:
    assert len(render("{{ text }}", {"text": "x" * MAX_PROMPT_CHARS})) == MAX_PROMPT_CHARS
    with pytest.raises(TemplateError, match=r"longer than 200,000 characters"):
        render("{{ text }}y", {"text": "x" * MAX_PROMPT_CHARS})
    with pytest.raises(TemplateError, match=r"template is longer than 200,000"):
        variables("x" * (MAX_PROMPT_CHARS + 1))


@pytest.mark.parametrize(
    "body",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ tasks['__class__'] }}",
        "{{ tasks | attr('__class__') }}",
        "{{ '{0.__class__}'.format(tasks) }}",
        "{{ '%s' | format(tasks.__class__) }}",
        "{{ tasks | map(attribute='__class__') | list }}",
        "{{ self.__init__.__globals__ }}",
        "{{ range.__self__ }}",
        "{{ tasks.append('more') or 'x' }}",
        "{{ goal.update({'a': 2}) or 'x' }}",
        "{% set _ = tasks.pop() %}x",
        "{% import 'os' as os %}x",
    ],
)
def test_reaching_out_of_the_sandbox_is_refused_and_changes_nothing(body: str) -> None:
    values: dict[str, object] = {"tasks": ["run"], "goal": {"a": 1}}
    with pytest.raises(TemplateError):
        render(body, values)
    assert values == {"tasks": ["run"], "goal": {"a": 1}}


TWICE = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
LOOPS = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}x"


@pytest.mark.parametrize(
    "body",
    [
        LOOPS,
        TWICE,
        "{% for a in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}x",
        "{% for a in range(9999) | map('string') %}{% for b in range(9999) %}{% endfor %}{% endfor %}x",
        "{{ range(10 ** 18) | list }}",
        "{{ range(1000000000000000000000) | list }}",
        "{{ 'x' * 500000000 }}",
        "{{ 'x' | center(500000000) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'x'.ljust(500000000) }}",
        "{{ 'x'['zfill'](500000000) }}",
        "{{ ('x' | attr('center'))(500000000) }}",
        "{{ [1] | batch(500000000, 'x') | list | length }}",
    ],
)
def test_a_slip_does_not_hang_or_flood_the_server(body: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            render(body, {"text": "x" * 20_000})
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_too_much_work_is_said_with_its_line() -> None:
    with pytest.raises(TemplateError, match=r"Line 2 of the template exceeds .* 20,000 rounds .* shorter"):
        render("a\n" + LOOPS, {})


def test_each_prompt_has_the_whole_budget() -> None:
    body = "{% for i in range(100) %}{% for j in range(150) %}{% endfor %}{% endfor %}x"
    assert [render(body, {}) for _ in range(5)] == ["x"] * 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{{ text | indent(2, true) }}", "  a\n  b"),
        ("{{ text | replace('\n', ' ') | upper }}", "A B"),
        ("{{ text.replace('\n', ', ').title() }}", "A, B"),
        ("{{ ' - '.join(text.splitlines()) }}", "a - b"),
        ("{{ goals | map(attribute='title') | join(', ') }}", "Win, Rest"),
        ("{{ goals | join(', ', attribute='title') }}", "Win, Rest"),
        ("{{ goals[0] | tojson }}", '{"title": "Win"}'),
        ("{{ goals[0] | tojson(indent=1) }}", '{\n "title": "Win"\n}'),
        ("{{ [1.26, 2] | sum | round(1) }} {{ 7 % 4 }} {{ 2 + 3 }} {{ 'a' + 'b' }}", "3.3 3 5 ab"),
        ("{{ 'n: ' ~ 3 ~ [1] }}", "n: 3[1]"),
        ("{% for g in goals %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% for g in goals %}{{ loop.cycle('odd', 'even') }} {% endfor %}", "odd even "),
        ("{% for title, found in goals | groupby('title') %}{{ found | length }}{% endfor %}", "11"),
        ("{% for g in goals if g.title != 'Win' %}{{ g.title }}{% endfor %}", "Rest"),
        ("{% macro hi(name) %}Hi {{ name }}{% endmacro %}{{ hi('Ada') }}", "Hi Ada"),
        ("{{ missing | default('none') }}", "none"),
    ],
)
def test_what_prompts_need_still_works(body: str, expected: str) -> None:
    assert render(body, {"text": "a\nb", "goals": [{"title": "Win"}, {"title": "Rest"}]}) == expected


class Canary:
    """Records every call that a template manages to make on it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _touch(self) -> str:
        self.calls.append("_touch")
        return "touched"

    def __reduce__(self) -> str:
        self.calls.append("__reduce__")
        return "touched"


names = st.sampled_from(
    ["_touch", "__reduce__", "__class__", "__init__", "__dict__", "__globals__", "__mro__", "__subclasses__"]
)
accesses = st.builds(
    lambda form, name: form.format(name),
    st.sampled_from([".{0}", "['{0}']", " | attr('{0}')", "[('{0}')]"]),
    names,
)
steps = st.lists(st.one_of(accesses, st.sampled_from(["()", "[0]", "[1]", " | first"])), max_size=4)


@quick
@given(start=st.sampled_from(["canary", "things[0]", "''", "[]", "range"]), access=accesses, rest=steps)
def test_no_chain_of_private_attributes_is_ever_executed(start: str, access: str, rest: list[str]) -> None:
    canary = Canary()
    chain = f"({start}){access}"
    for step in rest:
        chain = f"({chain}){step}"
    with pytest.raises(TemplateError):
        render(f"x{{{{ {chain} }}}}", {"canary": canary, "things": [canary]})
    assert canary.calls == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(json_values)
def test_any_plain_value_prints_the_same_each_time_and_texts_unchanged(value: object) -> None:
    first = render("x{{ value }}", {"value": value})
    assert first == render("x{{ value }}", {"value": value})
    assert "object at 0x" not in first
    if isinstance(value, str):
        assert first == "x" + value


terms = st.sampled_from(
    ["v", "w", "1", "0", "'a'", "[]", "v | join", "w | upper", "v.x", "w[0]", "v()", "none"]
)
expressions = st.builds(
    lambda left, operator, right: f"{left} {operator} {right}",
    terms,
    st.sampled_from(["+", "/", "*", "**", "~", "in", "is", "if", "==", "|", ",", "and not", "%"]),
    terms,
)
tags = st.sampled_from(
    ["{{ %s }}", "{%% if %s %%}y", "{%% endif %%}%s", "{%% for i in %s %%}{{ i }}", "%s", "}} %s"]
)
bodies = st.lists(st.builds(lambda tag, expression: tag % expression, tags, expressions | terms), max_size=4)


@quick
@given(bodies)
def test_any_body_renders_or_is_a_template_error(parts: list[str]) -> None:
    body = "\n".join(parts)
    try:
        render(body, dict.fromkeys(variables(body), "v"))
    except TemplateError as error:
        assert str(error).endswith(".")
