"""Prompt templates: Jinja2 in a sandbox, where an undefined variable is an error and work is limited.

A block tag alone on its line leaves no blank line behind, and one newline at the very end of the body
is dropped, so that templates can be laid out for reading. Lists and objects print as JSON; `join`
leaves a plain text as it is, so that the same template serves cases with lists (JSONL) and with texts
(CSV). The same body and values always give the same prompt: nothing random is on offer.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables

from slam_app import sandbox
from slam_app.errors import TemplateError

MAX_PROMPT_CHARS = 200_000
"""Limit of a template and of a rendered prompt; about 50,000 tokens, more than small models take."""


def variables(body: str) -> tuple[str, ...]:
    """Names that a case has to supply, in order of first appearance.

    Raises TemplateError, with the line, when the body can't be used as a template.
    """
    return _compile(body).variables


def list_variables(body: str) -> tuple[str, ...]:
    """Those of `variables` that the template loops over: a case must give a list for them."""
    return _compile(body).looped


def render(body: str, values: Mapping[str, object]) -> str:
    """The prompt for one case. `values` are plain data: texts, numbers, lists, objects.

    Raises TemplateError: broken body, missing variable, unsafe access, failure inside the template,
    a `for` over a text, empty or overlong result.
    """
    compiled = _compile(body)
    for name in compiled.looped:
        # Python would loop over its letters, and nobody would notice before reading the prompts.
        if isinstance(values.get(name), str):
            raise TemplateError(
                f"The template loops over '{name}', but in this case it is a text, not a list. "
                f"Give a list (upload the cases as JSONL), or write {{{{ {name} }}}} without the loop."
            )
    parts: list[str] = []
    length = 0
    sandbox.begin()
    try:
        for part in compiled.template.generate(dict(values)):
            length += len(part)
            if length > MAX_PROMPT_CHARS:
                raise TemplateError(
                    f"The prompt is longer than {MAX_PROMPT_CHARS:,} characters. "
                    "Shorten the template or the values."
                )
            parts.append(part)
    except TemplateError:
        raise
    except sandbox.TooMuchWork as error:
        raise TemplateError(
            f"{_where(error)} exceeds the {sandbox.MAX_ROUNDS:,} rounds of loops that one prompt may take. "
            "Use shorter loops, or fewer of them inside each other."
        ) from error
    except SecurityError as error:
        raise TemplateError(
            f"{_where(error)} does what a template may not do "
            f"({_sentence(error)}). Use only the values of the case, and filters that return new ones."
        ) from error
    except UndefinedError as error:
        raise TemplateError(_undefined_message(error)) from error
    except Exception as error:
        # Whatever else a template provokes (1 / 0, a filter on the wrong type) is the author's to mend.
        raise TemplateError(
            f"{_where(error)} fails with these values: {_sentence(error)}. "
            "Change the template there, or the value that it uses."
        ) from error
    prompt = "".join(parts)
    if not prompt.strip():
        raise TemplateError(
            "The prompt is empty with these values. Write some text in the template that does not "
            "depend on a condition."
        )
    return prompt


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: Template
    variables: tuple[str, ...]
    looped: tuple[str, ...]


_ENVIRONMENT = sandbox.environment()


@lru_cache(maxsize=64)
def _compile(body: str) -> _Compiled:
    if len(body) > MAX_PROMPT_CHARS:
        raise TemplateError(
            f"The template is longer than {MAX_PROMPT_CHARS:,} characters. "
            "Move the long parts into the cases."
        )
    try:
        tree = _ENVIRONMENT.parse(body)
        names = find_undeclared_variables(tree)
        loops = {node.iter.name for node in tree.find_all(nodes.For) if isinstance(node.iter, nodes.Name)}
        outside = next(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)), None)
        template = _ENVIRONMENT.from_string(sandbox.metered(tree))
    except TemplateSyntaxError as error:
        # str(error) would add a file and a source line that mean nothing to the author.
        what = (error.message or "syntax error").rstrip(". ")
        raise TemplateError(
            f"Line {error.lineno} of the template can't be read: {what}. Mend that line; a value "
            "is written {{ name }}, a block {% if name %} ... {% endif %}."
        ) from error
    except RecursionError as error:
        raise TemplateError(
            "The template is nested too deeply. Use fewer brackets inside brackets."
        ) from error
    except Exception as error:
        # Jinja2 lets some through: arguments given twice, numbers of thousands of digits.
        what = error.msg if isinstance(error, SyntaxError) else _sentence(error)
        raise TemplateError(f"The template can't be used: {what}. Mend that place.") from error
    if outside is not None:
        raise TemplateError(
            f"Line {outside.lineno} of the template wants another template, and there is none to load. "
            "Paste the text of the other one in its place."
        )
    ordered = tuple(sorted(names, key=_appearance(body, names).__getitem__))
    return _Compiled(template, ordered, tuple(name for name in ordered if name in loops))


def _appearance(body: str, names: set[str]) -> dict[str, int]:
    """Position of each name's first use. The syntax tree does not keep the order of the source."""
    first: dict[str, int] = {}
    before = ""
    for position, (_, kind, text) in enumerate(_ENVIRONMENT.lex(body)):
        if kind == "name" and text in names and before != ".":
            first.setdefault(text, position)
        if kind != "whitespace":
            before = text
    return first


def _where(error: Exception) -> str:
    """Jinja2 puts the lines of the template into the traceback."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<template>"]
    return f"Line {lines[-1]} of the template" if lines else "The template"


def _sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(". ")


def _undefined_message(error: UndefinedError) -> str:
    found = re.fullmatch(r"'(.+)' is undefined", str(error))
    if found:
        return (
            f"{_where(error)} needs a value for '{found[1]}', and this case has none. "
            f"Add '{found[1]}' to the case, or take it out of the template."
        )
    return (
        f"{_where(error)} asks for something that the value does not have: {_sentence(error)}. "
        "Correct the name in the template, or add it to the case."
    )
