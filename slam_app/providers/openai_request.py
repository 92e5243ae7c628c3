"""What is sent to OpenAI-compatible servers, and what of it they refuse.

| to | fields |
|---|---|
| OpenAI, Azure OpenAI | temperature, top_p, seed, max_completion_tokens; reasoning_effort for a think level |
| every other server | temperature, top_p, seed, max_tokens, top_k, min_p, repeat_penalty (llama.cpp), |
| | repetition_penalty (vLLM), chat_template_kwargs.enable_thinking for think on and off |

`num_ctx` can't be set through this protocol: the server's start decides it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from openai import APIStatusError

from slam_app.domain import ChatRequest, Think

_EFFORT = {
    Think.OFF: "none",
    Think.LOW: "low",
    Think.MEDIUM: "medium",
    Think.HIGH: "high",
    Think.MAX: "xhigh",
}
_FIELDS = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "repeat_penalty": ("repeat_penalty", "repetition_penalty"),
    "seed": ("seed",),
    "think": ("reasoning_effort", "chat_template_kwargs"),
}
"""The options that an answer can do without, by our names, and the fields that carry each."""

_NOT_TAKEN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|extra_forbidden"
    r"|only the default",
    re.IGNORECASE,
)
_UNSUPPORTED_VALUE = re.compile(r"unsupported.value", re.IGNORECASE)


def body_of(request: ChatRequest, *, official: bool, without: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of the client's `create`, without the fields that the model refuses."""
    params = request.params
    body: dict[str, Any] = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": params.seed,
    }
    if params.think in _EFFORT and (official or params.think is not Think.OFF):
        body["reasoning_effort"] = _EFFORT[params.think]
    extra: dict[str, Any] = {
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repeat_penalty": params.repeat_penalty,
        "repetition_penalty": params.repeat_penalty,
    }
    if params.think in (Think.ON, Think.OFF):
        extra["chat_template_kwargs"] = {"enable_thinking": params.think is Think.ON}
    body = _left(body, without) | {
        "model": request.model,
        "messages": [{"role": "user", "content": request.prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.json_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": dict(request.json_schema), "strict": True},
        }
    if official:
        return {**body, "max_completion_tokens": params.max_tokens}
    return {**body, "max_tokens": params.max_tokens, "extra_body": _left(extra, without)}


def refused_field(error: Exception, body: dict[str, Any]) -> str | None:
    """The one sampling field of `body` that the server says it does not take; None for any other error.

    Reasoning models of OpenAI refuse a temperature, top_p and seed, naming one at a time. A level of
    thinking that the model lacks is no such case: without it the model would think as much as it likes.
    """
    if not isinstance(error, APIStatusError) or error.status_code not in (400, 422):
        return None
    said = json.dumps(error.body) if isinstance(error.body, dict | list) else str(error.body)
    if not _NOT_TAKEN.search(said):
        return None
    sent = {*body, *body.get("extra_body", {})}
    fields = [field for names in _FIELDS.values() for field in names if field in sent]
    named = [error.param] if error.param else re.findall(r"\w+", said)
    field = next((field for field in fields if field in named), None)
    return None if field == "reasoning_effort" and _UNSUPPORTED_VALUE.search(said) else field


def dropped_options(refused: Collection[str], body: dict[str, Any]) -> tuple[str, ...]:
    """The options, by the names of `SamplingParams`, of which `body` carries nothing any more."""
    sent = {*body, *body.get("extra_body", {})}
    return tuple(
        option
        for option, fields in _FIELDS.items()
        if any(field in refused for field in fields) and not any(field in sent for field in fields)
    )


def _left(fields: dict[str, Any], without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in without}
