"""The embedded engine: llama.cpp's own server in child processes, for laptops, demos and tests.

A model is loaded when it is first asked (or by `load`) and stays until `unload`; `keep_alive_s` has no
meaning here. Asked with another `num_ctx` it is loaded anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from slam_app.config import Settings
from slam_app.domain import (
    ChatRequest,
    ChatResult,
    Connection,
    ConnectionKind,
    ModelInfo,
    PullProgress,
    SamplingParams,
)
from slam_app.errors import (
    BadRequest,
    InputError,
    PullFailed,
    ServerFailed,
    StreamCut,
    Unreachable,
)
from slam_app.providers import hub
from slam_app.providers.llama_server import SERVERS, LlamaServer
from slam_app.providers.openai import OpenAIProvider
from slam_app.providers.weights import Library, Weights


class EmbeddedProvider:
    """The engine of this process; see `Provider` for the methods. All instances share the loaded models."""

    manages_models = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._library = Library(Settings.from_env().data_dir / "models")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close: loaded models stay for the next caller."""

    async def version(self) -> str:
        try:
            return f"llama.cpp in xllamacpp {metadata.version('xllamacpp')}"
        except metadata.PackageNotFoundError as error:
            raise Unreachable(
                "The embedded engine is not installed. "
                "Run: pip install --no-deps -r requirements-embedded.txt"
            ) from error

    async def models(self) -> list[ModelInfo]:
        return await asyncio.to_thread(lambda: [self._info(weights) for weights in self._library.all()])

    async def details(self, name: str) -> ModelInfo:
        return await asyncio.to_thread(lambda: self._info(self._library.find(name)))

    async def chat(self, request: ChatRequest) -> ChatResult:
        async with self._serving(request.model, request.params) as server:
            connection = replace(
                self._connection,
                kind=ConnectionKind.OPENAI,
                base_url=f"{server.address}/v1",
                api_key_env="",
            )
            async with OpenAIProvider(connection, api_key=server.api_key, context=server.context) as engine:
                try:
                    return await engine.chat(request)
                except (StreamCut, Unreachable) as error:
                    # The kernel may take a moment from closing its sockets to ending the process.
                    for _ in range(20):
                        if server.exit_code is not None:
                            raise self._died(server, error) from error
                        await asyncio.sleep(0.05)
                    raise

    async def load(self, name: str, params: SamplingParams) -> None:
        async with self._serving(name, params):
            pass

    async def unload(self, name: str) -> None:
        for known in await asyncio.to_thread(self._library.all):
            if known.name == name:
                await asyncio.to_thread(SERVERS.stop, known.path)

    async def pull(self, name: str) -> AsyncIterator[PullProgress]:
        """`name` is "owner/repo:file.gguf" on the Hugging Face hub, or the absolute path of a .gguf file."""
        path = Path(name).expanduser()
        if path.is_absolute():
            yield PullProgress("checking the file")
            try:
                weights = await asyncio.to_thread(self._library.register, path)
                await asyncio.to_thread(self._library.digest, weights)
            except (InputError, OSError) as error:
                raise PullFailed(str(error)) from error
            yield PullProgress("success", weights.size, weights.size)
        elif hub.is_hub_name(name):
            async with aclosing(hub.download(name, self._library.directory)) as steps:
                async for step in steps:
                    yield step
        else:
            raise PullFailed(
                f"{name!r} is neither owner/repo:file.gguf on the Hugging Face hub nor the absolute path of "
                "a .gguf file on this machine. Enter one of the two."
            )

    async def delete(self, name: str) -> None:
        removed = await asyncio.to_thread(self._library.remove, name)
        await asyncio.to_thread(SERVERS.stop, removed)

    @asynccontextmanager
    async def _serving(self, name: str, params: SamplingParams) -> AsyncIterator[LlamaServer]:
        """A running child for the model with this context, kept from being replaced meanwhile."""
        if params.num_ctx < 1:
            raise BadRequest(f"num_ctx is {params.num_ctx}. Give the context at least one token.")
        weights = await asyncio.to_thread(self._library.find, name)
        while True:
            server = await self._started(weights, params.num_ctx)
            with ExitStack() as stack:
                if stack.enter_context(SERVERS.using(server)):
                    yield server
                    return

    async def _started(self, weights: Weights, num_ctx: int) -> LlamaServer:
        """Cancelled, it ends the load too: no thread goes on, and nothing stays in memory unseen."""
        unwanted = threading.Event()

        def start() -> LlamaServer:
            self._library.ready(weights)
            return SERVERS.start(
                weights.path, weights.name, num_ctx, self._connection.concurrency, unwanted=unwanted
            )

        try:
            return await asyncio.to_thread(start)
        except asyncio.CancelledError:
            unwanted.set()
            raise

    def _info(self, weights: Weights) -> ModelInfo:
        info = self._library.info(weights)
        server = SERVERS.running(weights.path)
        if server is None:
            return info
        return replace(info, loaded=True, memory_bytes=server.memory_bytes, loaded_context=server.context)

    def _died(self, server: LlamaServer, error: StreamCut | Unreachable) -> ServerFailed:
        return ServerFailed(
            f"The process of the embedded engine that ran {server.name} ended: {server.last_words} "
            "It is started anew at the next call.",
            partial=error.partial,
        )
