"""Turns whatever the openai client or its transport raises into our errors, never with the key in it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    OpenAIError,
)

from slam_app.domain import ChatResult
from slam_app.errors import (
    BadReply,
    BadRequest,
    ModelMissing,
    PromptTooLong,
    ProviderError,
    Refused,
    ServerBusy,
    ServerFailed,
    StreamCut,
    TimedOut,
    Unreachable,
)

CLIENT_ERRORS = (
    OpenAIError,
    httpx2.HTTPError,
    httpx2.StreamError,
    httpx2.InvalidURL,
    httpx2.CookieConflict,
    OSError,
    ValueError,  # going out or coming in: not JSON, not UTF-8
    TypeError,
    RecursionError,
)
"""Everything that may come out of a call. Raw transport errors are not always wrapped by the client."""

_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|maximum model length"
    r"|exceeds? the (available |model's )?context|input tokens exceed|prompt is too long",
    re.IGNORECASE,
)
_ANSWER_LIMIT = re.compile(r"max_(completion_)?tokens'?\W+is too large", re.IGNORECASE)
_LIMIT = re.compile(
    r"(?:maximum (?:context length|model length)(?: is| of)?|configured limit of|context size \()\s*(\d+)",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:resulted in|\(length|request has|your request|request \(|prompt contains(?: at least)?"
    r"|you requested)\s+?\(?(\d+)",
    re.IGNORECASE,
)
_RESET = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who was asked, for the messages: `host`, the name of the key's variable, and the key to hide."""

    host: str
    key_env: str = ""
    key: str = field(default="", repr=False)


def translate(
    error: Exception,
    origin: Origin,
    *,
    model: str = "",
    partial: ChatResult | None = None,
    begun: bool = False,
) -> ProviderError:
    """Our error for one of theirs.

    Args:
        model: the model asked for; "" when the call was about none.
        partial: what had arrived.
        begun: whether the answer's headers had come, so that it broke in the middle.

    The caller raises it `from None`: the original may quote the key in its message.
    """
    said = _said(error, origin)
    if isinstance(error, APITimeoutError | httpx2.TimeoutException):
        if isinstance(error.__cause__ or error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return _unreachable(origin, "it does not take connections")
        return TimedOut(
            f"{origin.host} took the request and then stayed silent for too long. "
            "Raise the connection's timeout, or look at the load of the server.",
            partial=partial,
        )
    if isinstance(error, APIStatusError):
        return _of_status(error, origin, said, model)
    if isinstance(error.__cause__ or error, httpx2.DecodingError):
        return _bad_reply(origin, said, partial)
    if isinstance(error, APIConnectionError | httpx2.HTTPError | httpx2.StreamError | OSError):
        if begun:
            return StreamCut(
                f"The connection to {origin.host} broke in the middle of the answer. "
                "Run it again; if it happens often, look at the server's log.",
                partial=partial,
            )
        return _unreachable(origin, type(error.__cause__ or error).__name__)
    if isinstance(error, ValueError | TypeError | RecursionError) and not begun:
        return BadRequest(
            f"The request can't be written as JSON: {error}. Check the prompt, the parameters and the schema."
        )
    if type(error) is APIError:  # the client's way to give an error object found inside the stream
        if _is_too_long(error, said):
            return _too_long(error, said)
        return ServerFailed(
            f"{origin.host} failed in the middle of the answer{_quoted(said)}. "
            "Run it again; if it stays, look at the server's log.",
            partial=partial,
        )
    return _bad_reply(origin, said, partial)


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait: `retry-after-ms`, `retry-after` (seconds or a date), else the longest
    `x-ratelimit-reset-*`; None when the server names no time."""
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    after = headers.get("retry-after", "")
    seconds = _seconds(after)
    if seconds is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(after)
    except ValueError:
        pass
    else:
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
    resets = [_reset_s(headers.get(f"x-ratelimit-reset-{kind}", "")) for kind in ("requests", "tokens")]
    return max((value for value in resets if value is not None), default=None)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _reset_s(text: str) -> float | None:
    """Durations as OpenAI writes them: "1s", "6m0s", "20ms"; a bare number is seconds."""
    parts = _RESET.findall(text)
    if parts:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    return _seconds(text)


def _of_status(error: APIStatusError, origin: Origin, said: str, model: str) -> ProviderError:
    status = getattr(error, "status_code", 0)
    headers = error.response.headers if getattr(error, "response", None) is not None else {}
    if 300 <= status < 400:
        return BadRequest(
            f"{origin.host} redirects elsewhere ({_host_of(headers.get('location', ''))}), and a key is "
            "never sent on. Enter the final address in the connection."
        )
    if status == 401:  # its text may quote the key in a form that can't be recognised
        return Refused(f"{origin.host} answered 401: not accepted. {_key_advice(origin)}")
    if status == 403:
        return Refused(f"{origin.host} answered 403: not allowed{_quoted(said)}. {_key_advice(origin)}")
    if status == 404 and model:
        return ModelMissing(
            f"{origin.host} does not have the model {model!r}{_quoted(said)}. "
            "Choose one of the models that the connection lists."
        )
    if status in (404, 405):
        return BadRequest(
            f"{origin.host} answered {status}: no OpenAI-compatible API at this address. "
            "It usually ends in /v1; check it in the connection."
        )
    if status == 429 and _code(error) == "insufficient_quota":
        return Refused(f"{origin.host} says: quota used up{_quoted(said)}. Check plan and billing.")
    if status in (429, 503):
        return ServerBusy(
            f"{origin.host} is busy or its rate limit is reached ({status}){_quoted(said)}. "
            "Try again later, or set requests and tokens per minute on the connection.",
            retry_after_s=retry_after_s(headers),
        )
    if status == 408:
        return TimedOut(f"{origin.host} gave up on the request after a time limit of its own (408).")
    if status >= 500:
        return ServerFailed(
            f"{origin.host} failed with status {status}{_quoted(said)}. "
            "Run it again; if it stays, look at the server's log.",
            retry_after_s=retry_after_s(headers),
        )
    if _is_too_long(error, said):
        return _too_long(error, said)
    return BadRequest(
        f"{origin.host} does not accept the request ({status}){_quoted(said)}. "
        "Change what it names: some models refuse a temperature, a seed or a JSON schema."
    )


def _is_too_long(error: APIError, said: str) -> bool:
    if _ANSWER_LIMIT.search(said):
        return False
    return bool(_TOO_LONG.search(f"{_code(error)} {getattr(error, 'type', '') or ''} {said}"))


def _too_long(error: APIError, said: str) -> PromptTooLong:
    """Both sizes from llama.cpp's fields, or from the sentences of OpenAI and vLLM."""
    body = getattr(error, "body", None)
    fields = body if isinstance(body, dict) else {}
    limit, asked = fields.get("n_ctx"), fields.get("n_prompt_tokens")
    if limit is None and (found := _LIMIT.search(said)):
        limit = found[1]
    if asked is None and (found := _ASKED.search(said)):
        asked = found[1]
    sizes = f": {asked} tokens into a context of {limit}" if limit and asked else _quoted(said)
    return PromptTooLong(
        f"The prompt does not fit{sizes}. Shorten it, or choose a larger context or another model."
    )


def _bad_reply(origin: Origin, said: str, partial: ChatResult | None) -> BadReply:
    return BadReply(
        f"What {origin.host} sent is not the OpenAI protocol{_quoted(said)}. "
        "Check that the address is that of an OpenAI-compatible API; it usually ends in /v1.",
        partial=partial,
    )


def _unreachable(origin: Origin, why: str) -> Unreachable:
    return Unreachable(
        f"No answer from {origin.host} ({why}). Check that the server runs and that its address is right."
    )


def _key_advice(origin: Origin) -> str:
    if origin.key_env:
        return f"Check the key in the environment variable {origin.key_env}, then restart SLaM."
    return "If it wants a key, name the environment variable that holds it in the connection."


def _code(error: APIError) -> str:
    return str(getattr(error, "code", None) or "")


def _quoted(said: str) -> str:
    return f': "{said.rstrip(".")}"' if said else ""


def _host_of(location: str) -> str:
    try:
        return httpx2.URL(location).host or "elsewhere"
    except (httpx2.InvalidURL, TypeError):
        return "elsewhere"


def _said(error: Exception, origin: Origin) -> str:
    """The server's own words, short, without the key; "" for pages and for what has none."""
    if not isinstance(error, APIError):
        return ""
    body: Any = getattr(error, "body", None)
    for name in ("error", "message"):
        if isinstance(body, dict):
            body = body.get(name, body)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail")
    if not isinstance(body, str) or body.lstrip().startswith("<"):
        return ""
    text = " ".join(body.split())
    return (text.replace(origin.key, "[key]") if origin.key else text)[:300]
