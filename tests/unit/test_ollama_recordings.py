"""What the Ollama provider makes of everything that a real daemon was recorded to say.

`CHATS`, `ERRORS` and `OTHERS` are the table of expected outcomes, written from the recordings by hand and
not through the provider; `EXCEPTIONS` says why a recording is not in it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from slam_app import errors
from slam_app.domain import (
    ChatRequest,
    ChatResult,
    Connection,
    ConnectionKind,
    FinishReason,
    ModelInfo,
    PullProgress,
    SamplingParams,
    ServerTimings,
)
from slam_app.providers.ollama import OllamaProvider
from tests.replay import ReplayServer, body, lines, names, recording
from tests.wire_models import SMOLLM
from tests.wire_ollama import WireOllama

STOP, MAX_TOKENS, CONTEXT = FinishReason.STOP, FinishReason.MAX_TOKENS, FinishReason.CONTEXT_FULL
COLOURS = "1. Red: The most visible"
SCORE = '{\n  "score": 2,\n  "reason"'
RAINBOW = "Red, Blue, Green, Yellow"
THOUGHT = "* The colors are"


@dataclass(frozen=True)
class Answered:
    """An answer: how its text begins and how long it is, why it ended, its tokens and times (seconds, to the
    millisecond: total, load, prompt, decode)."""

    begins: str
    chars: int
    finish: FinishReason
    prompt_tokens: int
    output_tokens: int
    times: tuple[float, float, float, float]
    thinking: str = ""


CHATS = {
    "chat-after-client-gone": Answered("1. Red", 6, MAX_TOKENS, 16, 3, (0.217, 0.072, 0.087, 0.024)),
    "chat-after-runner-died": Answered(COLOURS, 278, MAX_TOKENS, 16, 60, (1.612, 0.436, 0.111, 1.026)),
    "chat-bad-role": Answered("The original", 155, MAX_TOKENS, 10, 40, (0.859, 0.051, 0.054, 0.729)),
    "chat-cold": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (1.691, 0.816, 0.123, 0.724)),
    "chat-context-full": Answered("The Fibonacci", 817, CONTEXT, 27, 230, (7.803, 0.921, 0.208, 6.522)),
    "chat-format-json": Answered('{\n  "id": 2', 234, MAX_TOKENS, 38, 80, (2.447, 0.082, 0.013, 1.375)),
    "chat-format-schema": Answered(SCORE, 63, STOP, 38, 23, (0.835, 0.036, 0.220, 0.317)),
    "chat-format-schema-cut": Answered(SCORE[:13], 13, MAX_TOKENS, 38, 6, (0.598, 0.415, 0.016, 0.108)),
    "chat-format-schema-stream": Answered(SCORE, 63, STOP, 38, 23, (0.693, 0.044, 0.012, 0.394)),
    "chat-logprobs": Answered("1. Red", 6, MAX_TOKENS, 16, 3, (0.179, 0.045, 0.058, 0.025)),
    "chat-num-ctx-change": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (3.712, 0.906, 0.396, 2.381)),
    "chat-num-ctx-same": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (0.907, 0.073, 0.018, 0.785)),
    "chat-stream": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (0.780, 0.066, 0.060, 0.630)),
    "chat-stream-length": Answered("The story", 18, MAX_TOKENS, 14, 5, (0.182, 0.058, 0.068, 0.052)),
    "chat-think-false-unsupported": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (0.840, 0.050, 0.090, 0.674)),
    "chat-thinking": Answered(RAINBOW, 97, STOP, 27, 30, (0.708, 0.048, 0.012, 0.630), THOUGHT),
    "chat-thinking-format": Answered('{\n  "score"', 32, STOP, 41, 22, (0.877, 0.041, 0.093, 0.303), THOUGHT),
    "chat-thinking-format-stream": Answered(
        '{\n  "score"', 32, STOP, 41, 22, (0.942, 0.054, 0.091, 0.430), THOUGHT
    ),
    "chat-thinking-level": Answered(RAINBOW, 97, STOP, 27, 30, (0.548, 0.053, 0.011, 0.464), THOUGHT),
    "chat-thinking-off": Answered("The answer to", 346, MAX_TOKENS, 16, 60, (1.408, 0.055, 0.013, 1.301)),
    "chat-thinking-stream": Answered(RAINBOW, 97, STOP, 27, 30, (1.338, 0.486, 0.140, 0.695), THOUGHT),
    "chat-unknown-option": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (1.526, 0.798, 0.113, 0.589)),
    "chat-warm": Answered(COLOURS, 183, MAX_TOKENS, 16, 40, (0.922, 0.052, 0.016, 0.826)),
}


@dataclass(frozen=True)
class Failed:
    """An error: its class, what people are told (parts of the message), and what had arrived (characters of
    text and of thinking; None: nothing)."""

    kind: type[errors.ProviderError]
    told: tuple[str, ...]
    partial: tuple[int, int] | None = None


MISSING = Failed(errors.ModelMissing, ("does not have the model nosuch:1b", "`ollama pull nosuch:1b`"))
TOO_LONG = Failed(errors.PromptTooLong, ("does not fit into the context", "num_ctx", "shorten"))
FOREIGN = Failed(errors.Refused, ("Host or Origin", "OLLAMA_HOST=0.0.0.0", "localhost"))
NOT_OLLAMA = Failed(errors.BadReply, ("does not speak Ollama's protocol", "address"))
OFFLINE = ("could not be fetched", "can't reach the registry", "internet")

ERRORS = {
    "chat-503": Failed(errors.ServerBusy, ("too many requests", "a little later")),
    "chat-bad-json": Failed(errors.BadRequest, ("unexpected EOF",)),
    "chat-bad-name": Failed(errors.BadRequest, ("invalid model name", "how the name is written")),
    "chat-bad-option-type": Failed(errors.BadRequest, ("must be of type float32", "settings")),
    "chat-daemon-dies": Failed(errors.StreamCut, ("broke off", "try again"), (227, 0)),
    "chat-daemon-stops": Failed(errors.StreamCut, ("broke off", "try again"), (188, 0)),
    "chat-embedding-model": Failed(errors.BadRequest, ("does not support chat", "made for chat")),
    "chat-format-bad": Failed(errors.BadRequest, ("yaml", "JSON schema")),
    "chat-format-bad-schema": Failed(errors.BadRequest, ("invalid JSON schema", "Check the JSON schema")),
    "chat-missing-model": MISSING,
    "chat-missing-model-plain": MISSING,
    "chat-no-model": Failed(errors.BadRequest, ("model is required",)),
    "chat-runner-dies": Failed(errors.ServerFailed, ("unexpected EOF", "Try again"), (17, 0)),
    "chat-runner-dies-plain": Failed(errors.ServerFailed, ("unexpected EOF", "Try again")),
    "chat-think-unsupported": Failed(errors.BadRequest, ("does not support thinking", "default or off")),
    "chat-thinking-cut": Failed(errors.EmptyAnswer, ("thinking", "max tokens"), (0, 102)),
    "chat-thinking-level-bad": Failed(errors.BadRequest, ("extreme", "another level")),
    "chat-too-long-default": Failed(
        errors.PromptTooLong, ("in silence", "num_ctx", "shorten", "update Ollama"), (228, 0)
    ),
    "chat-too-long-refused": TOO_LONG,
    "chat-too-long-refused-stream": TOO_LONG,
    "chat-tools-unsupported": Failed(errors.BadRequest, ("does not support tools",)),
    "daemon-down": Failed(errors.Unreachable, ("Nobody answers at http://127.0.0.1:", "`ollama serve`")),
    "delete-missing": MISSING,
    "host-foreign": FOREIGN,
    "not-found": NOT_OLLAMA,
    "origin-foreign": FOREIGN,
    "pull-bad-name": Failed(errors.BadRequest, ("invalid model name",)),
    "pull-insecure-refused": Failed(errors.PullFailed, OFFLINE),
    "pull-offline": Failed(errors.PullFailed, OFFLINE),
    "pull-registry-dies": Failed(errors.PullFailed, ("stopped answering", "Pull again")),
    "pull-registry-down": Failed(errors.PullFailed, OFFLINE),
    "pull-unknown": Failed(errors.PullFailed, ("no such model", "spelling", "does not exist")),
    "show-missing": MISSING,
    "wrong-method": NOT_OLLAMA,
}

SMOLLM2 = ModelInfo(
    name="smollm2:135m",
    digest="aa4b0f0e4a085003221aeb971c8c2ceedbfdcbc403044b46a421e8b215c128cb",
    family="llama",
    parameters_b=0.13452,
    quantization="Q4_1",
    size_bytes=98363007,
)
PULLED = 98362432 + 102 + 59 + 414
# The recording was thinned: the lines of the smallest layers are among those that were left out.
RESUMED = 98362905

OTHERS: dict[str, Any] = {
    "chat-empty-messages": None,
    "chat-keep-forever": None,
    "chat-unload": None,
    "delete": None,
    "pull-again": PullProgress("success", PULLED, PULLED),
    "pull-plain": PullProgress("success", 0, None),
    "pull-resume": PullProgress("success", RESUMED, RESUMED),
    "show": ("completion",),
    "show-embedder": ("embedding",),
    "show-thinker": ("completion", "thinking"),
    "tags": ["smollm2:135m"],
    "tags-empty": [],
    "tags-newer-server": ["smollm2-thinker:135m", "all-minilm:22m", "smollm2:135m"],
    "tags-pulled": ["127.0.0.1:21500/library/smollm2:135m"],
    "version": "Ollama 0.24.0",
}

EXCEPTIONS = {
    "chat-client-gone": "test_cancel_closes_the_connection",
    "chat-parallel-1": "holds the times of four calls, not what was said",
    "chat-parallel-2": "holds the times of four calls, not what was said",
    "chat-queue-full": "holds the times of eight calls; chat-503 is one of them",
    "copy": "the provider does not copy models",
    "create-embedder": "the provider does not create models",
    "create-stream": "the provider does not create models",
    "create-thinker": "the provider does not create models",
    "embed": "the provider has no embeddings; the shape of the wire daemon is compared",
    "embed-chat-model": "the provider has no embeddings",
    "embed-empty": "the provider has no embeddings",
    "embed-too-long": "the provider has no embeddings",
    "embed-too-long-refused": "the provider has no embeddings",
    "generate-stream": "the provider uses chat, not generate",
    "ps-after-unload": "test_what_is_loaded",
    "ps-embed-loaded": "test_what_is_loaded",
    "ps-empty": "test_what_is_loaded",
    "ps-forever": "test_what_is_loaded",
    "ps-loaded": "test_what_is_loaded",
    "pull-cancel": "test_cancel_closes_the_connection",
    "root": "the provider asks /api/version, which only Ollama answers",
} | {name: "covered by test_openai_recordings" for name in names() if name.startswith("openai-")}


def provider_at(url: str) -> OllamaProvider:
    return OllamaProvider(Connection(1, "recorded", ConnectionKind.OLLAMA, url, timeout_s=10))


def asked(name: str) -> ChatRequest:
    """Our request that comes nearest to the recorded one; a model name that we would refuse is replaced."""
    fields = recording(name)["request"].get("json", {})
    options = fields.get("options", {})
    model = fields.get("model", "").replace("bad name!", "") or "another:1b"
    messages = fields.get("messages") or [{"content": "Hello."}]
    params = SamplingParams(
        temperature=0, seed=7, max_tokens=options.get("num_predict", 60), num_ctx=options.get("num_ctx", 4096)
    )
    return ChatRequest(model, messages[0]["content"], params)


async def do(provider: OllamaProvider, name: str) -> Any:
    """Call what the recording's request corresponds to."""
    request = recording(name)["request"]
    model = asked(name).model
    match request["path"].removeprefix("/api/"):
        case "chat" if request.get("json", {}).get("messages") == []:
            if request["json"].get("keep_alive") == 0:
                return await provider.unload(model)
            return await provider.load(model, SamplingParams(), request["json"].get("keep_alive"))
        case "chat" if request["method"] == "POST":
            return await provider.chat(asked(name))
        case "pull":
            return [progress async for progress in provider.pull(model)]
        case "delete":
            return await provider.delete(model)
        case "show":
            return await provider.details(model)
        case "tags":
            return await provider.models()
        case _:
            return await provider.version()


def outcome(name: str) -> Any:
    async def call() -> Any:
        with ReplayServer(name) as server:
            async with provider_at(server.url) as provider:
                return await do(provider, name)

    return asyncio.run(call())


def details_of(show: str, tags: str, ps: str, model: str) -> ModelInfo:
    async def call() -> ModelInfo:
        with ReplayServer(show, elsewhere={"/api/tags": tags, "/api/ps": ps}) as server:
            async with provider_at(server.url) as provider:
                return await provider.details(model)

    return asyncio.run(call())


def models_of(tags: str, ps: str) -> list[ModelInfo]:
    async def call() -> list[ModelInfo]:
        with ReplayServer(tags, elsewhere={"/api/ps": ps}) as server:
            async with provider_at(server.url) as provider:
                return await provider.models()

    return asyncio.run(call())


def test_every_recording_has_an_expected_outcome_or_a_reason() -> None:
    table = [*CHATS, *ERRORS, *OTHERS, *EXCEPTIONS]

    assert sorted(table) == names()


@pytest.mark.parametrize("name", CHATS)
def test_answer(name: str) -> None:
    expected = CHATS[name]

    result: ChatResult = outcome(name)

    assert (result.text[: len(expected.begins)], len(result.text)) == (expected.begins, expected.chars)
    assert result.thinking == expected.thinking
    assert result.finish_reason is expected.finish
    assert (result.prompt_tokens, result.output_tokens) == (expected.prompt_tokens, expected.output_tokens)
    assert (result.cached_tokens, result.reasoning_tokens) == (None, None)
    times = result.timings
    said = (times.total_s, times.load_s, times.prompt_s, times.decode_s)
    assert said == pytest.approx(expected.times, abs=0.0005)
    assert result.server_model == recording(name)["request"]["json"]["model"]
    assert result.ttft_s is not None and result.ttfa_s is not None and result.e2e_s is not None
    assert 0 < result.ttft_s <= result.ttfa_s <= result.e2e_s


@pytest.mark.parametrize("name", ERRORS)
def test_error(name: str) -> None:
    expected = ERRORS[name]

    with pytest.raises(errors.ProviderError) as raised:
        outcome(name)

    assert type(raised.value) is expected.kind
    for part in expected.told:
        assert part in str(raised.value)
    partial = raised.value.partial
    assert (partial and (len(partial.text), len(partial.thinking))) == expected.partial
    assert raised.value.__cause__ is None or not isinstance(raised.value.__cause__, errors.ProviderError)


def test_a_failed_answer_keeps_text_and_time_but_claims_no_counts() -> None:
    with pytest.raises(errors.ServerFailed) as raised:
        outcome("chat-runner-dies")

    partial = raised.value.partial
    assert partial is not None
    assert partial.text == "The sea is a vast"
    assert partial.finish_reason is FinishReason.OTHER
    assert (partial.prompt_tokens, partial.output_tokens, partial.timings) == (None, None, ServerTimings())
    assert partial.ttft_s is not None


@pytest.mark.parametrize("name", [name for name, value in OTHERS.items() if value is None])
def test_done_without_a_word(name: str) -> None:
    assert outcome(name) is None


@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith("pull-")])
def test_pull_ends_in_success(name: str) -> None:
    last = outcome(name)[-1]

    assert (last.status, last.completed_bytes, last.total_bytes) == (
        OTHERS[name].status,
        OTHERS[name].completed_bytes,
        OTHERS[name].total_bytes,
    )


def test_a_resumed_pull_goes_on_where_it_was_and_never_backwards() -> None:
    progress = outcome("pull-resume")

    done = [step.completed_bytes for step in progress]
    assert done == sorted(done)
    assert next(size for size in done if size) == 13631488


@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith("show")])
def test_details(name: str) -> None:
    """Capabilities decide what a model is offered for; the list does not have them."""
    model = recording(name)["request"]["json"]["model"]

    info = details_of(name, "tags-empty", "ps-empty", model)

    assert info.capabilities == OTHERS[name]
    embedder = name == "show-embedder"
    assert info.can_chat is not embedder
    assert info.can_think is (name == "show-thinker")
    assert info.context_length == (512 if embedder else 8192)
    assert info.parameters_b == pytest.approx(0.02257 if embedder else 0.13452)
    assert (info.family, info.quantization) == (("bert", "F16") if embedder else ("llama", "Q4_1"))
    assert (info.name, info.loaded, info.size_bytes) == (model, False, None)


def test_details_have_size_and_memory_from_the_lists() -> None:
    info = details_of("show", "tags", "ps-loaded", "smollm2:135m")

    assert (info.digest, info.size_bytes, info.memory_bytes) == (SMOLLM2.digest, 98363007, 143762688)
    assert (info.capabilities, info.context_length, info.loaded_context) == (("completion",), 8192, 2048)


@pytest.mark.parametrize("name", [name for name in OTHERS if name.startswith("tags")])
def test_models(name: str) -> None:
    models = models_of(name, "ps-empty")

    assert [model.name for model in models] == OTHERS[name]
    if name == "tags":
        assert models == [SMOLLM2]


def test_capabilities_in_the_list_are_not_believed() -> None:
    """The newer server lists an embedding model as made for completion."""
    models = models_of("tags-newer-server", "ps-empty")

    assert [model.capabilities for model in models] == [(), (), ()]


UNTIL = datetime(2026, 11, 22, 9, 40, 47, 179902, UTC)
UNTIL_LATER = datetime(2026, 11, 22, 9, 48, 55, 715528, UTC)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ps-loaded", (True, 143762688, 0, 2048, UNTIL)),
        ("ps-embed-loaded", (True, 190948608, 0, 4096, UNTIL_LATER)),
        ("ps-forever", (True, 190948608, 0, 4096, None)),
        ("ps-empty", (False, None, None, None, None)),
        ("ps-after-unload", (False, None, None, None, None)),
    ],
)
def test_what_is_loaded(name: str, expected: tuple[Any, ...]) -> None:
    [model] = models_of("tags", name)

    assert (
        model.loaded,
        model.memory_bytes,
        model.vram_bytes,
        model.loaded_context,
        model.kept_until,
    ) == expected


def test_version() -> None:
    assert outcome("version") == OTHERS["version"]


def test_thinking_has_a_time_of_its_own() -> None:
    """Recorded: thinking from 630 ms, the answer from 814 ms to 1324 ms; replayed twice as fast."""
    chunks = recording("chat-thinking-stream")["response"]["chunks"]
    first_answer_ms = next(c["ms"] for c in chunks if '"thinking"' not in c["body"])

    async def call() -> ChatResult:
        with ReplayServer("chat-thinking-stream", speed=2) as server:
            async with provider_at(server.url) as provider:
                return await provider.chat(asked("chat-thinking-stream"))

    result = asyncio.run(call())

    assert result.ttft_s is not None and result.ttfa_s is not None and result.e2e_s is not None
    assert result.ttft_s >= 0.630 / 2
    assert result.ttfa_s >= first_answer_ms / 2000
    assert result.e2e_s >= 1.324 / 2
    assert result.ttft_s < result.ttfa_s < result.e2e_s


@pytest.mark.parametrize("name", ["chat-client-gone", "pull-cancel"])
def test_cancel_closes_the_connection(name: str) -> None:
    """The recorded exchange ends with us closing it; the daemon stops its work when it sees that."""

    async def call() -> bool:
        with ReplayServer(name) as server:
            async with provider_at(server.url) as provider:
                task = asyncio.create_task(do(provider, name))
                await asyncio.to_thread(server.called.wait, 5)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return await asyncio.to_thread(server.calls[0].client_gone.wait, 2)

    assert asyncio.run(call())


@pytest.mark.parametrize(
    ("name", "method", "path", "fields"),
    [
        ("root", "GET", "/", None),
        ("version", "GET", "/api/version", None),
        ("tags", "GET", "/api/tags", None),
        ("ps-loaded", "GET", "/api/ps", None),
        ("not-found", "GET", "/api/nothing", None),
        ("wrong-method", "GET", "/api/chat", None),
        ("show", "POST", "/api/show", None),
        ("show-thinker", "POST", "/api/show", None),
        ("show-embedder", "POST", "/api/show", None),
        ("show-missing", "POST", "/api/show", None),
        ("delete-missing", "DELETE", "/api/delete", None),
        ("embed", "POST", "/api/embed", None),
        ("embed-too-long-refused", "POST", "/api/embed", {"input": ["word " * 2000]}),
        ("pull-again", "POST", "/api/pull", {"model": "smollm2:135m"}),
        ("pull-plain", "POST", "/api/pull", {"model": "smollm2:135m"}),
        ("pull-unknown", "POST", "/api/pull", None),
        ("pull-bad-name", "POST", "/api/pull", None),
        ("chat-cold", "POST", "/api/chat", None),
        ("chat-stream", "POST", "/api/chat", None),
        ("chat-thinking", "POST", "/api/chat", None),
        ("chat-thinking-stream", "POST", "/api/chat", None),
        ("chat-format-schema", "POST", "/api/chat", None),
        ("chat-empty-messages", "POST", "/api/chat", None),
        ("chat-unload", "POST", "/api/chat", None),
        ("chat-missing-model", "POST", "/api/chat", None),
        ("chat-no-model", "POST", "/api/chat", None),
        ("chat-bad-name", "POST", "/api/chat", None),
        ("chat-bad-option-type", "POST", "/api/chat", None),
        ("chat-embedding-model", "POST", "/api/chat", None),
        ("chat-think-unsupported", "POST", "/api/chat", None),
        ("chat-thinking-level-bad", "POST", "/api/chat", None),
        ("chat-tools-unsupported", "POST", "/api/chat", None),
        ("chat-format-bad", "POST", "/api/chat", None),
        ("chat-format-bad-schema", "POST", "/api/chat", None),
        (
            "chat-too-long-refused",
            "POST",
            "/api/chat",
            {"messages": [{"role": "user", "content": "alpha " * 1600}]},
        ),
    ],
)
def test_the_wire_daemon_answers_in_the_shape_of_the_recording(
    name: str, method: str, path: str, fields: dict[str, Any] | None
) -> None:
    """Status, content type, and the keys and types of every kind of line."""
    sent = recording(name)["request"].get("json")
    recorded = recording(name)["response"]

    with WireOllama() as daemon, httpx.Client(base_url=daemon.url, verify=False) as client:
        if name == "ps-loaded":
            client.post("/api/chat", json={"model": SMOLLM.name, "messages": []})
        answer = client.request(method, path, json={**sent, **(fields or {})} if sent else None)

    assert answer.status_code == recorded["status"]
    assert answer.headers["content-type"] == recorded["headers"]["content-type"]
    assert ("transfer-encoding" in answer.headers) == ("transfer-encoding" in recorded["headers"])
    if "json" not in recorded["headers"]["content-type"]:
        assert answer.text == body(name)
        return
    said = [json.loads(line) for line in answer.text.splitlines()]
    assert distinct(said) == distinct(lines(name))
    if "error" in said[-1]:
        assert said[-1] == lines(name)[-1]


def distinct(values: list[Any]) -> list[Any]:
    """The shapes in the order of their first appearance."""
    shapes: list[Any] = []
    for value in values:
        if shape(value) not in shapes:
            shapes.append(shape(value))
    return shapes


def shape(value: Any) -> Any:
    """Keys and types; of a list the shape of its first element."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
