"""OpenAI and servers that speak its protocol: vLLM, llama.cpp, LM Studio, LiteLLM, Ray Serve and others."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx2
from openai import AsyncOpenAI, AsyncStream, Omit

from slam_app.domain import (
    ChatRequest,
    ChatResult,
    Connection,
    ModelInfo,
    PullProgress,
    SamplingParams,
)
from slam_app.errors import BadReply, ConfigError, ModelMissing, StreamCut, Unsupported
from slam_app.providers.base import QUICK_TIMEOUT_S, require_answer
from slam_app.providers.openai_errors import CLIENT_ERRORS, Origin, translate
from slam_app.providers.openai_request import body_of, dropped_options, refused_field
from slam_app.providers.openai_stream import Collector

_MAKERS = {"llamacpp": "llama.cpp", "vllm": "vLLM", "library": "Ollama", "sglang": "SGLang"}
"""Who says what in the `owned_by` of its models."""


class OpenAIProvider:
    """A connection to one OpenAI-compatible server; see `Provider` for the methods.

    Args:
        api_key: instead of the one that the connection's environment variable holds.
        context: tokens of the server's context where the caller knows it.
    """

    manages_models = False

    def __init__(
        self, connection: Connection, *, api_key: str | None = None, context: int | None = None
    ) -> None:
        url = _checked_url(connection)
        key = api_key if api_key is not None else _key_of(connection)
        self._context = context
        self._refused: dict[str, set[str]] = {}
        self._official = _is_official(url.host)
        self._origin = Origin(
            host=url.host if url.port is None else f"{url.host}:{url.port}",
            key_env=connection.api_key_env,
            key=key,
        )
        timeout = httpx2.Timeout(connection.timeout_s, connect=QUICK_TIMEOUT_S)
        self._client = AsyncOpenAI(
            base_url=url,
            # The client takes an empty or missing key from OPENAI_API_KEY, which is not this server's.
            api_key=key or "none",
            # Neither are OPENAI_ORG_ID and OPENAI_PROJECT_ID.
            default_headers=None
            if self._official
            else {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()},  # type: ignore[dict-item]
            max_retries=0,
            timeout=timeout,
            http_client=httpx2.AsyncClient(
                timeout=timeout,
                follow_redirects=False,
                # Loading the CA bundle takes 20 ms, and plain HTTP has no use for it.
                verify=url.scheme == "https",
                # HTTP_PROXY is not meant for this machine itself.
                trust_env=not _is_loopback(url.host),
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def version(self) -> str:
        found, server = await self._list()
        owner = str(found[0].get("owned_by", "")) if found else ""
        maker = "OpenAI" if self._official else _MAKERS.get(owner, server or "OpenAI-compatible server")
        return f"{maker} at {self._origin.host}, {len(found)} {'model' if len(found) == 1 else 'models'}"

    async def models(self) -> list[ModelInfo]:
        found, _ = await self._list()
        return sorted((_info(entry) for entry in found), key=lambda info: info.name)

    async def details(self, name: str) -> ModelInfo:
        for info in await self.models():
            if info.name == name:
                return info
        raise ModelMissing(
            f"{self._origin.host} does not list the model {name!r}. Refresh the list of models."
        )

    async def chat(self, request: ChatRequest) -> ChatResult:
        """As in base.py. Sampling fields that the model refuses are left out, see `ChatResult.dropped`."""
        refused = self._refused.setdefault(request.model, set())
        while True:
            body = body_of(request, official=self._official, without=refused)
            collector = Collector(time.perf_counter_ns(), self._context, dropped_options(refused, body))
            try:
                stream = await self._client.chat.completions.create(**body)
            except CLIENT_ERRORS as error:
                if field := refused_field(error, body):
                    refused.add(field)
                    continue
                raise translate(error, self._origin, model=request.model) from None
            await self._read(stream, collector, request.model)
            return require_answer(collector.result())

    async def _read(self, stream: AsyncStream[Any], collector: Collector, model: str) -> None:
        """The stream into the collector. Raises ProviderError unless it comes to its proper end."""
        headers = stream.response.headers
        collector.request_id = headers.get("x-request-id", "")
        try:
            async with stream:
                async for chunk in stream:
                    collector.add(chunk, time.perf_counter_ns())
                    if headers.get("server") == "llama.cpp":
                        self._check_model(model, collector)
        except CLIENT_ERRORS as error:
            partial = collector.result() if collector.chunks else None
            raise translate(error, self._origin, model=model, partial=partial, begun=True) from None
        if not collector.chunks and "event-stream" not in headers.get("content-type", ""):
            raise BadReply(
                f"{self._origin.host} did not answer with a stream of events. "
                "Check that the address is that of an OpenAI-compatible API that can stream."
            )
        if not collector.finished:
            raise StreamCut(
                f"The stream of {self._origin.host} ended before the answer did; its model process may have "
                "died. Run it again; if it happens often, look at the server's log.",
                partial=collector.result(),
            )

    async def load(self, name: str, params: SamplingParams) -> None:
        raise self._unsupported()

    async def unload(self, name: str) -> None:
        raise self._unsupported()

    async def pull(self, name: str) -> AsyncIterator[PullProgress]:
        raise self._unsupported()
        yield  # makes this an async generator, as the protocol has it

    async def delete(self, name: str) -> None:
        raise self._unsupported()

    def _unsupported(self) -> Unsupported:
        return Unsupported(
            f"{self._origin.host} is reached through the OpenAI protocol, which can't load, fetch or remove "
            "models. Do that on the server itself."
        )

    def _check_model(self, asked: str, collector: Collector) -> None:
        """llama.cpp's server answers with the model it has, whatever the name; its echo tells."""
        if collector.model and collector.model != asked:
            raise ModelMissing(
                f"{self._origin.host} has no model {asked!r}: {collector.model!r} answered in its place. "
                "Choose one of the models that the connection lists."
            )

    async def _list(self) -> tuple[list[dict[str, Any]], str]:
        """The entries of /models, and the `server` header."""
        try:
            response = await self._client.get(
                "/models", cast_to=httpx2.Response, options={"timeout": QUICK_TIMEOUT_S}
            )
        except CLIENT_ERRORS as error:
            raise translate(error, self._origin) from None
        try:
            found = response.json()
        except (ValueError, RecursionError):
            found = None
        entries = found.get("data") if isinstance(found, dict) else None
        if entries is None and isinstance(found, dict) and found.get("object") == "list":
            entries = []  # Ollama's null when it has no models
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "id" in e for e in entries):
            raise BadReply(
                f"{self._origin.host} did not send a list of models. "
                "Check that the address is that of an OpenAI-compatible API; it usually ends in /v1."
            )
        return entries, response.headers.get("server", "")


def _info(entry: dict[str, Any]) -> ModelInfo:
    """One entry of /models; `meta` is llama.cpp's, `max_model_len` vLLM's."""
    meta = entry.get("meta")
    if not isinstance(meta, dict):
        limit = entry.get("max_model_len")
        return ModelInfo(name=str(entry["id"]), context_length=limit if isinstance(limit, int) else None)
    parameters = meta.get("n_params")
    return ModelInfo(
        name=str(entry["id"]),
        parameters_b=parameters / 1e9 if isinstance(parameters, int) else None,
        quantization=str(meta.get("ftype", "")),
        size_bytes=meta.get("size"),
        context_length=meta.get("n_ctx_train"),
        loaded=True,
        loaded_context=meta.get("n_ctx"),
    )


def _checked_url(connection: Connection) -> httpx2.URL:
    try:
        url = httpx2.URL(connection.base_url.strip())
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"The connection {connection.name!r} has no usable address. "
            "Enter one like https://api.openai.com/v1 or http://localhost:8000/v1."
        )
    return url


def _key_of(connection: Connection) -> str:
    """The key from the variable that the connection names; "" if it names none."""
    if not connection.api_key_env:
        return ""
    key = os.environ.get(connection.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"The connection {connection.name!r} takes its key from the environment variable "
            f"{connection.api_key_env}, which is not set. Set it and restart SLaM."
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"The environment variable {connection.api_key_env} holds more than a key. Set it anew."
        )
    return key


def _is_official(host: str) -> bool:
    """Hosts that answer 400 to a field they don't know."""
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
