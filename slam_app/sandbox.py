"""Where prompt templates run: Jinja2's immutable sandbox without what can hang or flood the server.

Templates are written by admins, so this guards against slips: a loop in a loop that never ends, a width
with three zeros too many. It is no defence against an admin who wants to fill the memory.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import Environment, StrictUndefined, Undefined, nodes, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.filters import do_join
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_RANGE = 10_000
MAX_ROUNDS = 20_000
"""Of all loops and macro calls of one rendering together: far more than a prompt needs, under a second."""

_PADDING = {"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"}
_NO_FILTERS = {"batch", "center", "format", "random", "slice", "xmlattr"}
_COUNTED = " counted"  # a filter that no template can name, for its leading space


class TooMuchWork(Exception):
    """One rendering made more than MAX_ROUNDS rounds."""


class _Rounds(threading.local):
    left = MAX_ROUNDS


_rounds = _Rounds()


def begin() -> None:
    """Count anew: a rendering starts in this thread."""
    _rounds.left = MAX_ROUNDS


def environment() -> Environment:
    made = _Sandbox(
        undefined=StrictUndefined,
        autoescape=False,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals = {"range": _range, "namespace": made.globals["namespace"]}
    made.filters = {name: found for name, found in made.filters.items() if name not in _NO_FILTERS}
    made.filters |= {"join": _join, _COUNTED: _counted}
    return made


def metered(tree: nodes.Template) -> nodes.Template:
    """The same template, whose loops count their rounds."""
    changed = _Meter().visit(tree)
    changed.set_environment(tree.environment)
    assert isinstance(changed, nodes.Template)
    return changed


class _Meter(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None, lineno=node.lineno)
        return node


class _Sandbox(ImmutableSandboxedEnvironment):
    # Also keeps the compiler from computing such an expression before anything can check it.
    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not available")
        if not all(isinstance(side, int | float) for side in (left, right)):
            raise SecurityError(f"{operator} is for numbers only; put texts together with ~")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _PADDING and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Nothing to wrap: str.format is refused like the rest of _PADDING."""

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        _spend()
        return super().call(context, called, *args, **kwargs)


def _spend(rounds: int = 1) -> None:
    _rounds.left -= rounds
    if _rounds.left < 0:
        raise TooMuchWork


def _counted(values: Iterable[Any]) -> Any:
    """Each item is paid for now where the number is known, else as it comes."""
    if isinstance(values, Iterator):
        return _each(values)
    if isinstance(values, list | tuple | range | dict):
        _spend(len(values))
    return values


def _each(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _spend()
        yield value


def _range(*numbers: int) -> range:
    """Raises SecurityError when it is longer than MAX_RANGE."""
    found = range(*numbers)
    if len(found[: MAX_RANGE + 1]) <= MAX_RANGE:  # a slice, for len() of a huge range overflows
        return found
    raise SecurityError(f"a range has at most {MAX_RANGE:,} numbers")


def _printable(value: Any) -> Any:
    """What `{{ value }}` prints. Methods and generators would print as memory addresses: refused."""
    if value is None:
        return ""
    if isinstance(value, str | int | float | Undefined):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    raise TypeError(
        f"a {type(value).__name__} can't be printed; a key of an object is written thing['key'], "
        "the result of map or select needs | join or | list"
    )


@pass_eval_context
def _join(context: EvalContext, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    return value if isinstance(value, str) else do_join(context, value, d, attribute)
