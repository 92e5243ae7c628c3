"""The OpenAI provider against what a real Ollama daemon said on its OpenAI-compatible address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from slam_app.domain import (
    ChatRequest,
    ChatResult,
    Connection,
    ConnectionKind,
    FinishReason,
    SamplingParams,
)
from slam_app.errors import BadReply, ModelMissing, ProviderError, StreamCut
from slam_app.providers.openai import OpenAIProvider
from tests.replay import ReplayServer, names

MODEL = "smollm2:135m"


def provider_on(server: ReplayServer) -> OpenAIProvider:
    connection = Connection(
        id=1, name="recorded", kind=ConnectionKind.OPENAI, base_url=f"{server.url}/v1", timeout_s=10
    )
    return OpenAIProvider(connection)


def chat(name: str, model: str = MODEL, speed: float = 0.0) -> ChatResult:
    async def once(server: ReplayServer) -> ChatResult:
        async with provider_on(server) as provider:
            return await provider.chat(ChatRequest(model, "Name three colours.", SamplingParams()))

    with ReplayServer(name, speed=speed) as server:
        return asyncio.run(once(server))


def error_of(name: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        chat(name)
    return caught.value


def streamed() -> None:
    result = chat("openai-chat-stream")
    assert result.text == (
        "1. Red: The most visible colour in the rainbow, representing the blood that flows through the veins"
    )
    assert result.finish_reason is FinishReason.MAX_TOKENS
    assert (result.prompt_tokens, result.output_tokens) == (16, 20)
    assert result.server_model == MODEL
    assert result.request_id == "chatcmpl-843"


def thinking_is_kept_apart() -> None:
    result = chat("openai-chat-thinking-stream", model="smollm2-thinker:135m")
    assert result.thinking == "* The colors are"
    assert result.text.startswith("Red,")
    assert result.finish_reason is FinishReason.STOP
    assert (result.prompt_tokens, result.output_tokens) == (27, 30)


def runner_dies() -> None:
    """The stream ends properly and the client raises nothing; only the missing finish_reason tells."""
    error = error_of("openai-chat-runner-dies")
    assert type(error) is StreamCut
    assert error.retryable
    assert error.partial is not None
    assert error.partial.text == "The old tavern in the"


def missing_model() -> None:
    error = error_of("openai-chat-missing")
    assert type(error) is ModelMissing
    assert "model 'nosuch:1b' not found" in str(error)


def models_are_listed() -> None:
    async def listed(server: ReplayServer) -> tuple[list[str], str]:
        async with provider_on(server) as provider:
            return [info.name for info in await provider.models()], await provider.version()

    with ReplayServer("openai-models") as server:
        found, version = asyncio.run(listed(server))
    assert found == [MODEL]
    assert version == f"Ollama at {server.url.removeprefix('http://')}, 1 model"


def not_streamed(name: str) -> Callable[[], None]:
    """Whoever answers a streamed request with one piece of JSON gives no time to first token."""

    def check() -> None:
        error = error_of(name)
        assert type(error) is BadReply
        assert "stream" in str(error)

    return check


CHECKS: dict[str, Callable[[], None]] = {
    "openai-chat": not_streamed("openai-chat"),
    "openai-chat-missing": missing_model,
    "openai-chat-runner-dies": runner_dies,
    "openai-chat-schema": not_streamed("openai-chat-schema"),
    "openai-chat-stream": streamed,
    "openai-chat-thinking-stream": thinking_is_kept_apart,
    "openai-chat-too-long": not_streamed("openai-chat-too-long"),
    "openai-embeddings": not_streamed("openai-embeddings"),
    "openai-models": models_are_listed,
}


@pytest.mark.parametrize("name", CHECKS)
def test_recording(name: str) -> None:
    CHECKS[name]()


def test_every_recording_of_that_address_is_checked() -> None:
    assert sorted(CHECKS) == [name for name in names() if name.startswith("openai-")]


def test_times_are_those_of_the_recording() -> None:
    result = chat("openai-chat-thinking-stream", model="smollm2-thinker:135m", speed=1.0)

    assert result.ttft_s == pytest.approx(0.609, abs=0.15)
    assert result.ttfa_s == pytest.approx(0.679, abs=0.15)
    assert result.e2e_s is not None
    assert result.ttft_s < result.ttfa_s < result.e2e_s
    assert result.e2e_s == pytest.approx(1.28, abs=0.2)
