"""An Ollama daemon as a provider."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import ollama

from slam_app.domain import (
    ChatRequest,
    ChatResult,
    Connection,
    ModelInfo,
    PullProgress,
    SamplingParams,
)
from slam_app.errors import ProviderError, StreamCut
from slam_app.providers.ollama_answer import Answer
from slam_app.providers.ollama_client import ChatPart, OllamaClient, chat_body, checked_name, encoded, options
from slam_app.providers.ollama_errors import cut_off, explain_pull, explained
from slam_app.providers.ticking import ticking

_FOREVER = timedelta(days=100 * 365)
"""A model that is kept for ever expires, in Ollama's words, in 292 years."""

_DETAILS_AT_ONCE = 4
_DETAILS_S = 8.0
"""For the details of all models together, so that a slow daemon still gives its list while a page waits."""

_PULL_TICK_S = 1.0
"""A pull reports at least this often, also while the daemon is silent."""

_TO_THE_END_S = 1.0
"""For the end of a reply after its last line; reading it leaves the connection usable for the next call."""

_BILLIONS = {"K": 1e-6, "M": 1e-3, "B": 1.0, "T": 1e3}


class OllamaProvider:
    """Implements `Provider` (base.py) with Ollama's native API.

    An answer fails if it was cut, empty or not the protocol: there is no answer without the daemon's own
    word that it is complete.

    Raises:
        ConfigError: the connection's address can't be one.
    """

    manages_models = True

    def __init__(self, connection: Connection) -> None:
        self._client = OllamaClient(connection.base_url, connection.timeout_s)
        self._url = self._client.url

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
        with explained(self._url):
            return f"Ollama {(await self._client.version()).version}"

    async def models(self) -> list[ModelInfo]:
        """As in base.py, by one request a model. One whose details don't come has no capabilities."""
        until = asyncio.get_running_loop().time() + _DETAILS_S
        places = asyncio.Semaphore(_DETAILS_AT_ONCE)

        async def described(info: ModelInfo) -> ModelInfo:
            try:
                async with asyncio.timeout_at(until), places:
                    return await self._with_details(info)
            except (ProviderError, TimeoutError):
                return info

        return list(await asyncio.gather(*(described(info) for info in await self._installed())))

    async def details(self, name: str) -> ModelInfo:
        detailed = await self._with_details(ModelInfo(checked_name(name)))
        for info in await self._installed():
            if _full(info.name) == _full(name):
                return replace(
                    info, context_length=detailed.context_length, capabilities=detailed.capabilities
                )
        return detailed

    async def _installed(self) -> list[ModelInfo]:
        """Without capabilities: the daemon's list can get them wrong."""
        with explained(self._url):
            installed = (await self._client.list()).models
            loaded = {_full(model.model or ""): model for model in (await self._client.ps()).models}
        return [_model_info(model, loaded.get(_full(model.model or ""))) for model in installed]

    async def _with_details(self, info: ModelInfo) -> ModelInfo:
        with explained(self._url, info.name):
            shown = await self._client.show(info.name)
        about = shown.modelinfo or {}
        context = about.get(f"{about.get('general.architecture')}.context_length")
        return replace(
            info,
            **_described(shown.details),
            context_length=context if isinstance(context, int) else None,
            capabilities=tuple(shown.capabilities or ()),
        )

    async def chat(self, request: ChatRequest) -> ChatResult:
        body = chat_body(request)
        answer = Answer(request)
        try:
            parts = self._client.stream("/api/chat", body, request.model, ChatPart)
            async with aclosing(parts):
                async for arrived, part in parts:
                    answer.add(arrived, part)
                    if part.done:
                        with suppress(ProviderError, TimeoutError):
                            async with asyncio.timeout(_TO_THE_END_S):
                                await anext(parts, None)
                        return answer.finished()
            raise cut_off(self._url)
        except ProviderError as error:
            error.partial = answer.result() if answer.begun else None
            raise

    async def load(self, name: str, params: SamplingParams, keep_alive_s: float | None = None) -> None:
        """As in base.py; `keep_alive_s` is how long to keep it unused (seconds, negative: for ever)."""
        await self._without_messages(name, {"options": options(params)}, keep_alive_s)

    async def unload(self, name: str) -> None:
        await self._without_messages(name, {}, 0)

    async def pull(self, name: str) -> AsyncGenerator[PullProgress, None]:
        """As in base.py, at least once a second. Close the iterator to cancel.

        Raises:
            PullFailed: the daemon gave up; says why and what helps.
            StreamCut: the stream ended without success.
        """
        body = encoded({"model": checked_name(name), "stream": True})
        lines = self._client.stream(
            "/api/pull", body, name, ollama.ProgressResponse, lambda said: explain_pull(name, said)
        )
        progress = _Pull()
        async with aclosing(lines), aclosing(ticking(lines, _PULL_TICK_S)) as steps:
            async for step in steps:
                yield progress.after(step[1] if step else None)
        if progress.status != "success":
            raise StreamCut(
                f"The download of {name} ended before it was complete. Pull again: it goes on where it was."
            )

    async def delete(self, name: str) -> None:
        await self._client.remove(checked_name(name))

    async def _without_messages(self, name: str, fields: dict[str, Any], keep_alive_s: float | None) -> None:
        """A chat with no messages generates nothing: it loads the model or, at keep_alive 0, unloads it."""
        if keep_alive_s is not None:
            fields = {**fields, "keep_alive": keep_alive_s}
        body = encoded({"model": checked_name(name), "messages": [], "stream": True, **fields})
        parts = self._client.stream("/api/chat", body, name, ChatPart)
        async with aclosing(parts):
            async for _, part in parts:
                if part.done:
                    return
        raise cut_off(self._url)


class _Pull:
    """Adds up the layers of a download."""

    def __init__(self) -> None:
        self.status = ""
        self._layers: dict[str, tuple[int, int]] = {}

    def after(self, line: ollama.ProgressResponse | None) -> PullProgress:
        """The progress after one more line, or after a tick without one."""
        if line:
            self.status = line.status or self.status
            if line.digest:
                total, completed = self._layers.get(line.digest, (0, 0))
                self._layers[line.digest] = (line.total or total, line.completed or completed)
        total = sum(total for total, _ in self._layers.values())
        completed = sum(completed for _, completed in self._layers.values())
        return PullProgress(self.status, total if self.status == "success" else completed, total or None)


def _model_info(model: ollama.ListResponse.Model, loaded: ollama.ProcessResponse.Model | None) -> ModelInfo:
    info = ModelInfo(
        name=model.model or "",
        digest=model.digest or "",
        size_bytes=None if model.size is None else int(model.size),
        **_described(model.details),
    )
    if loaded is None:
        return info
    until = loaded.expires_at
    return replace(
        info,
        loaded=True,
        memory_bytes=None if loaded.size is None else int(loaded.size),
        vram_bytes=None if loaded.size_vram is None else int(loaded.size_vram),
        loaded_context=loaded.context_length,
        kept_until=None if until is None or until - datetime.now(UTC) > _FOREVER else until,
    )


def _described(details: Any) -> dict[str, Any]:
    """Family, size and quantization from the `details` that list and show have in common."""
    if details is None:
        return {}
    found = re.fullmatch(r"([\d.]+)\s*([KMBT])", details.parameter_size or "", re.IGNORECASE)
    return {
        "family": details.family or "",
        "parameters_b": float(found[1]) * _BILLIONS[found[2].upper()] if found else None,
        "quantization": details.quantization_level or "",
    }


def _full(name: str) -> str:
    """`llama3.2` and `llama3.2:latest` are the same model to the daemon."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
