"""The official Ollama client, extended where it falls short, and the requests that we send with it."""

from __future__ import annotations

import json
import math
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import httpx
import ollama
from ollama import ResponseError
from pydantic import BaseModel

from slam_app.domain import ChatRequest, SamplingParams, Think
from slam_app.errors import AnswerTooLong, BadRequest, ConfigError, ProviderError
from slam_app.providers.base import MAX_ANSWER_CHARS, QUICK_TIMEOUT_S
from slam_app.providers.ollama_errors import NO_STATUS, explain, explained, not_the_protocol

_MAX_LINE_BYTES = 8 * MAX_ANSWER_CHARS
"""Room for an answer of the greatest length in a single line, escaped."""

_DELETE_TIMEOUT_S = 60.0
"""Removing a hundred gigabytes can take a slow disk that long."""

Part = TypeVar("Part", bound=BaseModel)


class ChatPart(ollama.ChatResponse):
    """One line of a chat. Newer daemons also say how many prompt tokens came from the cache."""

    prompt_eval_cached_count: int | None = None


class Version(BaseModel):
    version: str


class OllamaClient(ollama.AsyncClient):
    """The official client (0.6.3) with what it lacks:

    - `chat` has no `truncate`, `shift` and `prompt_eval_cached_count`, so `stream` sends a body of ours;
    - its line reader ends a line at U+0085 and the like, which models write inside their answers, while
      the protocol ends one at a line feed only; and it buffers a line without end;
    - it sends the OLLAMA_API_KEY of the environment to whatever server it is pointed at.

    `stream` raises only `ProviderError`; the plain calls need `explained` around them.

    Args:
        host: the daemon's address, as OLLAMA_HOST is written.
        timeout_s: how long `stream` waits for the next bytes; the plain calls wait QUICK_TIMEOUT_S.

    Raises:
        ConfigError: the address can't be one.
    """

    def __init__(self, host: str, timeout_s: float) -> None:
        quick = httpx.Timeout(QUICK_TIMEOUT_S)
        try:
            super().__init__(
                host or "http://127.0.0.1:11434",
                follow_redirects=False,
                timeout=quick,
                verify=_trusted_certificates(),
            )
            self._http: httpx.AsyncClient = self._client
            if self._http.base_url.scheme not in ("http", "https"):
                raise ValueError
        except (ValueError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"{host!r} can't be the address of an Ollama server. Write it like http://127.0.0.1:11434."
            ) from error
        self._http.headers.pop("authorization", None)
        self._patient = httpx.Timeout(timeout_s, connect=QUICK_TIMEOUT_S)
        self._timeout_s = timeout_s
        self.url = str(self._http.base_url).rstrip("/")

    async def close(self) -> None:
        await self._http.aclose()

    async def version(self) -> Version:
        return await self._request(Version, "GET", "/api/version")

    async def remove(self, name: str) -> None:
        """`delete` with the time that it takes. Raises ProviderError."""
        limit = httpx.Timeout(_DELETE_TIMEOUT_S, connect=QUICK_TIMEOUT_S)
        with explained(self.url, name, silence_s=_DELETE_TIMEOUT_S):
            response = await self._http.request(
                "DELETE", "/api/delete", content=encoded({"model": name}), timeout=limit
            )
            if not response.is_success:
                raise ResponseError(response.text, response.status_code)

    async def stream(
        self,
        path: str,
        body: bytes,
        model: str,
        kind: type[Part],
        explain_line: Callable[[str], ProviderError] | None = None,
    ) -> AsyncGenerator[tuple[int, Part], None]:
        """POST `body` and yield each line of the reply with its arrival (perf_counter, nanoseconds).

        Close it (contextlib.aclosing) to close the connection. `explain_line` makes the error for an error
        line in mid-stream. An end of the stream is only an end here; what it means is the caller's to say.
        """
        with explained(self.url, model, silence_s=self._timeout_s, settable=True):
            async with self._http.stream("POST", path, content=body, timeout=self._patient) as response:
                if not response.is_success:
                    await response.aread()
                    raise ResponseError(response.text, response.status_code)
                async for arrived, line in _lines(response):
                    yield arrived, self._parse(line, model, kind, explain_line)

    def _parse(
        self, line: bytes, model: str, kind: type[Part], explain_line: Callable[[str], ProviderError] | None
    ) -> Part:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise not_the_protocol(self.url, f"a line is not an object: {line[:80]!r}")
        if error := fields.get("error"):
            text = error if isinstance(error, str) else json.dumps(error)
            raise explain_line(text) if explain_line else explain(self.url, model, NO_STATUS, text)
        return kind(**fields)


@cache
def _trusted_certificates() -> ssl.SSLContext:
    """Read once: it takes longer (80 ms) than all that a page asks of a daemon."""
    return httpx.create_ssl_context()


async def _lines(response: httpx.Response) -> AsyncIterator[tuple[int, bytes]]:
    """Non-empty lines with the time at which the last of their bytes arrived (perf_counter, nanoseconds)."""
    rest, arrived = b"", 0
    async for data in response.aiter_bytes():
        arrived = time.perf_counter_ns()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield arrived, line
        if len(rest) > _MAX_LINE_BYTES:
            raise AnswerTooLong(
                "The server sends a line without end. Lower max tokens, or check what runs at this address."
            )
    if rest.strip():
        yield arrived, rest


def options(params: SamplingParams) -> dict[str, float]:
    """All sampling options by Ollama's names, never a part of them: the daemon's defaults change between
    versions, and other runner options than at the preload would load the model anew.

    Raises:
        BadRequest: a value that is no number, or one outside of what makes sense. The daemon takes most of
            them in silence, or fails with a 500 that does not say whose fault it is.
    """
    chosen = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repeat_penalty": params.repeat_penalty,
        "seed": params.seed,
        "num_predict": params.max_tokens,
        "num_ctx": params.num_ctx,
    }
    for name, value in chosen.items():
        whole = name in ("top_k", "seed", "num_predict", "num_ctx")
        numbers = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers) or not math.isfinite(value):
            raise BadRequest(f"{name} is {value!r}. Give it a {'whole ' if whole else ''}number.")
    if params.num_ctx < 1:
        raise BadRequest(f"num_ctx is {params.num_ctx}. Give the context at least one token.")
    if params.max_tokens < 1 and params.max_tokens != -1:
        raise BadRequest(f"max_tokens is {params.max_tokens}. Give at least 1, or -1 for no limit.")
    return chosen


def chat_body(request: ChatRequest) -> bytes:
    """The body of a streamed chat; `truncate` and `shift` are off so that no prompt is cut in silence.

    Raises:
        BadRequest: the request can't be sent as it is.
    """
    if not request.prompt.strip():
        raise BadRequest("The prompt is empty. Write a template that gives some text for this case.")
    fields: dict[str, Any] = {
        "model": checked_name(request.model),
        "messages": [{"role": "user", "content": request.prompt}],
        "stream": True,
        "truncate": False,
        "shift": False,
        "options": options(request.params),
    }
    think = request.params.think
    if think in (Think.OFF, Think.ON):
        fields["think"] = think is Think.ON
    elif think is not Think.DEFAULT:
        fields["think"] = str(think)
    if request.json_schema is not None:
        fields["format"] = dict(request.json_schema)
    if request.keep_alive_s is not None:
        fields["keep_alive"] = request.keep_alive_s
    return encoded(fields)


def encoded(fields: Mapping[str, Any]) -> bytes:
    """`fields` as JSON; BadRequest where that can't be (half a surrogate pair, a value that is no JSON)."""
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(
            f"This request can't be written as JSON: {error}. Check the prompt and the schema."
        ) from error


def checked_name(name: str) -> str:
    """`name` if it can be that of a model; BadRequest otherwise."""
    if not name or any(c.isspace() or not c.isprintable() for c in name):
        raise BadRequest(f"{name!r} can't be the name of a model. Write it like llama3.2:3b, without spaces.")
    return name
