"""What every provider must do, asked of all three in the same words.

All texts are SmolLM2's: the embedded provider runs it, the OpenAI provider talks to the same llama.cpp
server over its API, and the Ollama provider to the wire-level daemon, whose texts come from it too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from slam_app.domain import ChatRequest, ChatResult, Connection, ConnectionKind, FinishReason, SamplingParams
from slam_app.errors import ModelMissing, PromptTooLong, ProviderError, Unsupported
from slam_app.providers import Provider, connect
from slam_app.providers.llama_server import SERVERS, LlamaServer
from tests.conftest import SMOLLM2
from tests.loopback import LoopbackServer
from tests.wire_ollama import WireOllama

PARAMS = SamplingParams(temperature=0, max_tokens=12, num_ctx=512, seed=3)
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["score"],
}


@dataclass(frozen=True)
class Ground:
    """A server to test against, a model it has, and the way to take the server away."""

    connection: Connection
    model: str
    take_away: Callable[[], Connection]


def closed_port() -> str:
    with LoopbackServer() as server:
        return server.url


@pytest.fixture
def embedded_ground(embedded: Connection, smollm2: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> Ground:
    def take_away() -> Connection:
        SERVERS.stop_all()
        monkeypatch.setattr("slam_app.providers.llama_server.sys.executable", "/bin/false")
        return embedded

    return Ground(embedded, SMOLLM2, take_away)


@pytest.fixture
def openai_ground(smollm2: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("CONTRACT_KEY", smollm2.api_key)
    connection = Connection(
        id=2,
        name="llama.cpp",
        kind=ConnectionKind.OPENAI,
        base_url=f"{smollm2.address}/v1",
        api_key_env="CONTRACT_KEY",
        timeout_s=60,
    )
    return Ground(connection, SMOLLM2, lambda: replace(connection, base_url=f"{closed_port()}/v1"))


@pytest.fixture
def ollama_ground(embedded: Connection) -> Iterator[Ground]:
    def complete(prompt: str, params: Mapping[str, Any]) -> str:
        # The daemon counts words, of which there are fewer than tokens: enough for it to have some to cut.
        limit = min(4 * params["num_predict"], 100)
        sampling = replace(PARAMS, max_tokens=limit, seed=params["seed"], temperature=params["temperature"])
        request = ChatRequest(SMOLLM2, prompt, sampling, json_schema=params.get("format"))
        return asked(embedded, lambda provider: provider.chat(request)).text

    with WireOllama(complete=complete) as daemon:
        connection = Connection(
            id=3, name="ollama", kind=ConnectionKind.OLLAMA, base_url=daemon.url, timeout_s=60
        )
        yield Ground(connection, "smollm2:135m", lambda: replace(connection, base_url=closed_port()))


@pytest.fixture(params=list(ConnectionKind))
def ground(request: pytest.FixtureRequest) -> Ground:
    found: Ground = request.getfixturevalue(f"{request.param}_ground")
    return found


def asked(connection: Connection, work: Callable[[Provider], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with connect(connection) as provider:
            return await work(provider)

    return asyncio.run(inside())


def chat(ground: Ground, prompt: str = "Tell me about rainbows.", **fields: Any) -> ChatResult:
    request = ChatRequest(**{"model": ground.model, "prompt": prompt, "params": PARAMS, **fields})
    result: ChatResult = asked(ground.connection, lambda provider: provider.chat(request))
    return result


def test_the_version_says_what_answers(ground: Ground) -> None:
    assert asked(ground.connection, lambda provider: provider.version()).strip()


def test_the_list_has_the_model_with_its_size(ground: Ground) -> None:
    models = asked(ground.connection, lambda provider: provider.models())

    (info,) = (info for info in models if info.name == ground.model)
    assert info.size_bytes > 50_000_000
    assert info.parameters_b == pytest.approx(0.1345, abs=0.001)
    assert info.quantization == "Q4_1"
    assert info.can_chat


def test_the_details_have_the_context_length(ground: Ground) -> None:
    info = asked(ground.connection, lambda provider: provider.details(ground.model))

    assert info.name == ground.model
    assert info.context_length == 8192


def test_an_answer_has_text_counts_and_times(ground: Ground) -> None:
    result = chat(ground)

    assert result.text.strip()
    assert result.thinking == ""
    assert result.prompt_tokens and result.output_tokens
    assert result.ttft_s is not None and result.ttfa_s is not None and result.e2e_s is not None
    assert 0 < result.ttft_s <= result.ttfa_s <= result.e2e_s
    assert result.server_model == ground.model
    assert result.timings.decode_s


def test_an_answer_stopped_by_max_tokens_says_so(ground: Ground) -> None:
    result = chat(ground, params=replace(PARAMS, max_tokens=4))

    assert result.finish_reason is FinishReason.MAX_TOKENS
    assert result.output_tokens == 4


def test_the_same_seed_gives_the_same_text(ground: Ground) -> None:
    assert chat(ground).text == chat(ground).text


def test_a_schema_gives_json(ground: Ground) -> None:
    result = chat(ground, "Rate this answer.", params=replace(PARAMS, max_tokens=40), json_schema=SCHEMA)

    assert 0 <= json.loads(result.text)["score"] <= 10


def test_an_unknown_model_is_missing(ground: Ground) -> None:
    with pytest.raises(ModelMissing, match="nosuch"):
        chat(ground, model="nosuch:1b")
    with pytest.raises(ModelMissing, match="nosuch"):
        asked(ground.connection, lambda provider: provider.details("nosuch:1b"))


def test_a_prompt_that_does_not_fit_is_refused(ground: Ground) -> None:
    with pytest.raises(PromptTooLong):
        chat(ground, "word " * 1000)


def test_a_cancelled_call_returns_at_once_and_leaves_the_provider_usable(ground: Ground) -> None:
    async def cancelled(provider: Provider) -> float:
        long = ChatRequest(ground.model, "Write a long story.", replace(PARAMS, max_tokens=300))
        task = asyncio.ensure_future(provider.chat(long))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waited = time.monotonic() - began
        assert (await provider.chat(ChatRequest(ground.model, "Say hello.", PARAMS))).text
        return waited

    assert asked(ground.connection, cancelled) < 2


def test_loading_and_unloading_or_a_word_that_it_is_not_possible(ground: Ground) -> None:
    async def cycle(provider: Provider) -> None:
        if not provider.manages_models:
            for call in (provider.load(ground.model, PARAMS), provider.unload(ground.model)):
                with pytest.raises(Unsupported):
                    await call
            return
        await provider.load(ground.model, PARAMS)
        info = await provider.details(ground.model)
        assert info.loaded and info.loaded_context == 512 and info.memory_bytes
        await provider.unload(ground.model)
        await provider.unload(ground.model)
        assert not (await provider.details(ground.model)).loaded

    asked(ground.connection, cycle)


def test_only_our_errors_come_out_when_the_server_is_gone(ground: Ground) -> None:
    connection = ground.take_away()

    async def all_calls(provider: Provider) -> list[BaseException | None]:
        async def pull() -> None:
            async for _ in provider.pull("nosuch:1b"):
                pass

        request = ChatRequest(ground.model, "Hi", PARAMS)
        calls: list[Awaitable[Any]] = [
            provider.version(),
            provider.models(),
            provider.details(ground.model),
            provider.chat(request),
            provider.load(ground.model, PARAMS),
            provider.unload(ground.model),
            provider.delete("nosuch:1b"),
            pull(),
        ]
        return [
            result if isinstance(result, BaseException) else None
            for result in await asyncio.gather(*calls, return_exceptions=True)
        ]

    errors = asked(connection, all_calls)

    assert all(error is None or isinstance(error, ProviderError) for error in errors), errors
    assert isinstance(errors[3], ProviderError)
