"""The OpenAI provider against a small server of its own that speaks the protocol and breaks on demand."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slam_app.domain import (
    ChatRequest,
    ChatResult,
    Connection,
    ConnectionKind,
    FinishReason,
    ModelInfo,
    SamplingParams,
    Think,
)
from slam_app.errors import (
    AnswerTooLong,
    BadReply,
    BadRequest,
    ConfigError,
    EmptyAnswer,
    ModelMissing,
    PromptTooLong,
    ProviderError,
    Refused,
    ServerBusy,
    ServerFailed,
    StreamCut,
    TimedOut,
    Unreachable,
    Unsupported,
)
from slam_app.providers import base
from slam_app.providers.openai import OpenAIProvider
from slam_app.providers.openai_errors import Origin, retry_after_s, translate
from tests.loopback import Call, LoopbackServer

CANARY = "sk-canary-2b7e151628aed2a6"
EVENTS = {"content-type": "text/event-stream"}
Answer = Callable[[Call], None]


class Wire(LoopbackServer):
    """Answers every request the way the test says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self._answer = answer

    def answer(self, call: Call) -> None:
        self._answer(call)


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return event({"id": "c-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]})


def usage(**fields: Any) -> bytes:
    return event({"id": "c-1", "model": "m-1", "choices": [], "usage": fields})


DONE = event("[DONE]")
HELLO = (delta(content="Hel"), delta(content="lo"), delta(finish="stop"))


def stream(*chunks: bytes, headers: dict[str, str] | None = None, then: Answer = Call.end) -> Answer:
    def answer(call: Call) -> None:
        call.start(200, {**EVENTS, **(headers or {})})
        for chunk in chunks:
            call.chunk(chunk)
        then(call)

    return answer


def refusal(status: int, message: Any = "no", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = json.dumps({"error": {"message": message, **fields}}).encode()
    return lambda call: call.send(status, body, {"content-type": "application/json", **(headers or {})})


def connection(url: str, **fields: Any) -> Connection:
    return Connection(
        id=1, name="here", kind=ConnectionKind.OPENAI, base_url=url, **{"timeout_s": 5, **fields}
    )


def ask(
    answer: Answer, params: SamplingParams | None = None, *, context: int | None = None, **fields: Any
) -> ChatResult:
    async def once(url: str) -> ChatResult:
        async with OpenAIProvider(connection(url, **fields), context=context) as provider:
            return await provider.chat(ChatRequest("m-1", "Hi", params or SamplingParams()))

    with Wire(answer) as server:
        return asyncio.run(once(f"{server.url}/v1"))


def sent(params: SamplingParams, monkeypatch: pytest.MonkeyPatch, official: bool = False) -> dict[str, Any]:
    """The body that goes out."""
    if official:
        monkeypatch.setattr("slam_app.providers.openai._is_official", lambda host: True)
    bodies: list[dict[str, Any]] = []

    def answer(call: Call) -> None:
        bodies.append(call.json)
        stream(*HELLO)(call)

    ask(answer, params)
    return bodies[0]


# What is made of a good answer


def test_a_streamed_answer_with_all_its_counts() -> None:
    counts = {
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    result = ask(stream(*HELLO, usage(**counts), DONE, headers={"x-request-id": "req-7"}))

    assert result.text == "Hello"
    assert result.finish_reason is FinishReason.STOP
    assert (result.prompt_tokens, result.output_tokens) == (9, 12)
    assert (result.cached_tokens, result.reasoning_tokens) == (4, 5)
    assert (result.server_model, result.request_id) == ("m-1", "req-7")


def test_an_answer_without_usage_is_whole_but_uncounted() -> None:
    result = ask(stream(*HELLO))

    assert result.text == "Hello"
    assert (result.prompt_tokens, result.output_tokens) == (None, None)


def test_text_in_the_finishing_chunk_is_kept() -> None:
    assert ask(stream(delta(content="Hel"), delta(content="lo", finish="stop"), DONE)).text == "Hello"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thinking_is_kept_apart_under_either_name(name: str) -> None:
    result = ask(stream(delta(**{name: "Hm. "}), delta(**{name: "Yes."}), *HELLO))

    assert (result.thinking, result.text) == ("Hm. Yes.", "Hello")


def test_a_refusal_in_its_own_field_is_the_answer() -> None:
    assert ask(stream(delta(refusal="I can't help with that."), delta(finish="stop"))).text == (
        "I can't help with that."
    )


def test_llama_cpp_timings_are_taken_in_seconds() -> None:
    timings = {"cache_n": 24, "prompt_n": 15, "prompt_ms": 90.5, "predicted_n": 20, "predicted_ms": 1500}
    last = event({"id": "c-1", "model": "m-1", "choices": [], "timings": timings})
    result = ask(stream(*HELLO, last, DONE))

    assert (result.timings.prompt_s, result.timings.decode_s) == (0.0905, 1.5)
    assert (result.prompt_tokens, result.cached_tokens, result.output_tokens) == (39, 24, 20)


def test_times_are_stamped_as_the_chunks_arrive() -> None:
    def answer(call: Call) -> None:
        call.start(200, EVENTS)
        for chunk in (delta(role="assistant"), delta(reasoning="Hm."), *HELLO):
            call.wait(0.1)
            call.chunk(chunk)
        call.end()

    result = ask(answer)

    assert result.ttft_s == pytest.approx(0.2, abs=0.08)
    assert result.ttfa_s == pytest.approx(0.3, abs=0.08)
    assert result.e2e_s == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize(
    ("finish", "context", "expected"),
    [
        ("stop", 30, FinishReason.STOP),
        ("length", None, FinishReason.MAX_TOKENS),
        ("length", 31, FinishReason.MAX_TOKENS),
        ("length", 30, FinishReason.CONTEXT_FULL),
        ("content_filter", 30, FinishReason.OTHER),
    ],
)
def test_why_an_answer_ended(finish: str, context: int | None, expected: FinishReason) -> None:
    chunks = (delta(content="Hi"), delta(finish=finish), usage(prompt_tokens=10, completion_tokens=20), DONE)

    assert ask(stream(*chunks), context=context).finish_reason is expected


# What goes out


def test_other_servers_get_every_sampling_option(monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(
        temperature=0.3,
        top_p=0.8,
        top_k=7,
        min_p=0.05,
        repeat_penalty=1.1,
        seed=5,
        max_tokens=33,
        think=Think.OFF,
    )

    body = sent(params, monkeypatch)

    assert body == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.3,
        "top_p": 0.8,
        "seed": 5,
        "max_tokens": 33,
        "top_k": 7,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
        "repetition_penalty": 1.1,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_openai_gets_only_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    body = sent(SamplingParams(max_tokens=33, think=Think.HIGH), monkeypatch, official=True)

    assert set(body) == {
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "seed",
        "max_completion_tokens",
        "reasoning_effort",
    }
    assert body["reasoning_effort"] == "high"


def test_no_reasoning_effort_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "reasoning_effort" not in sent(SamplingParams(), monkeypatch, official=True)


# Parameters that a model does not take


class Picky(LoopbackServer):
    """Refuses these fields one at a time, as hosted APIs do, then answers."""

    def __init__(self, *refusals: tuple[str, Answer]) -> None:
        super().__init__()
        self._refusals = refusals

    def answer(self, call: Call) -> None:
        body = call.json
        for name, refuse in self._refusals:
            if name in body:
                return refuse(call)
        return stream(*HELLO)(call)


def unsupported(name: str, code: str = "unsupported_parameter") -> tuple[str, Answer]:
    """Word for word what OpenAI says."""
    said = f"Unsupported parameter: '{name}' is not supported with this model."
    return name, refusal(400, said, type="invalid_request_error", param=name, code=code)


TEMPERATURE_IS_ONE = (
    "temperature",
    refusal(
        400,
        "Unsupported value: 'temperature' does not support 0.7 with this model. "
        "Only the default (1) value is supported.",
        type="invalid_request_error",
        param="temperature",
        code="unsupported_value",
    ),
)


def ask_picky(server: LoopbackServer, params: SamplingParams, times: int = 1) -> list[ChatResult]:
    async def all_times() -> list[ChatResult]:
        async with OpenAIProvider(connection(f"{server.url}/v1")) as provider:
            return [await provider.chat(ChatRequest("m-1", "Hi", params)) for _ in range(times)]

    with server:
        return asyncio.run(all_times())


def test_what_a_reasoning_model_refuses_is_left_out_and_said() -> None:
    server = Picky(TEMPERATURE_IS_ONE, unsupported("top_p"), unsupported("seed"))

    first, second = ask_picky(server, SamplingParams(), times=2)

    assert first.text == second.text == "Hello"
    assert first.dropped == second.dropped == ("temperature", "top_p", "seed")
    assert len(server.calls) == 5, "what a model refused is not sent to it again"
    assert {"temperature", "top_p", "seed"} & set(server.calls[-1].json) == set()
    assert server.calls[-1].json["max_tokens"] == 512


def test_nothing_is_dropped_that_nobody_refused() -> None:
    assert ask(stream(*HELLO)).dropped == ()


@pytest.mark.parametrize(
    ("refused", "field", "dropped"),
    [
        (refusal(400, "property 'top_k' is unsupported"), "top_k", ("top_k",)),
        (refusal(400, 'Unknown name "min_p": Cannot find field.'), "min_p", ("min_p",)),
        (
            lambda call: call.send(
                422,
                b'{"detail":[{"type":"extra_forbidden","loc":["body","repeat_penalty"],'
                b'"msg":"Extra inputs are not permitted","input":1.1}]}',
                {"content-type": "application/json"},
            ),
            "repeat_penalty",
            (),  # vLLM's name for the same option still goes out
        ),
        (refusal(400, "Unrecognized request argument: reasoning_effort"), "reasoning_effort", ("think",)),
    ],
)
def test_other_servers_refuse_in_other_words(refused: Answer, field: str, dropped: tuple[str, ...]) -> None:
    server = Picky((field, refused))

    (result,) = ask_picky(server, SamplingParams(think=Think.HIGH))

    assert result.dropped == dropped
    assert [field in call.json for call in server.calls] == [True, False]


@pytest.mark.parametrize(
    "refused",
    [
        refusal(400, "temperature must be between 0 and 2", param="temperature", code="invalid_value"),
        refusal(
            400,
            "Unsupported value: 'reasoning_effort' does not support 'high' with this model.",
            param="reasoning_effort",
            code="unsupported_value",
        ),
        refusal(400, "Unsupported parameter: 'max_tokens'", param="max_tokens", code="unsupported_parameter"),
        refusal(401, "temperature is not supported for this key"),
    ],
)
def test_other_refusals_are_errors_at_once(refused: Answer) -> None:
    server = Picky(("model", refused))

    with pytest.raises((BadRequest, Refused)):
        ask_picky(server, SamplingParams(think=Think.HIGH))

    assert len(server.calls) == 1


def test_a_server_that_names_the_same_parameter_for_ever_is_asked_twice() -> None:
    server = Picky(("model", unsupported("seed")[1]))

    with pytest.raises(BadRequest, match="seed"):
        ask_picky(server, SamplingParams())

    assert len(server.calls) == 2


def test_the_time_of_an_answer_does_not_contain_the_refusal() -> None:
    def slowly(call: Call) -> None:
        call.wait(0.4)
        TEMPERATURE_IS_ONE[1](call)

    (result,) = ask_picky(Picky(("temperature", slowly)), SamplingParams())

    assert result.ttft_s is not None and result.ttft_s < 0.35


@pytest.mark.parametrize(
    ("info", "may"),
    [
        (ModelInfo("m", capabilities=("completion", "thinking")), True),
        (ModelInfo("m", capabilities=("completion",)), False),
        (ModelInfo("m"), True),
        (ModelInfo("m", digest="abc"), False),
    ],
)
def test_a_server_that_says_nothing_of_thinking_may_be_asked_for_it(info: ModelInfo, may: bool) -> None:
    assert info.may_think is may


def test_a_schema_is_sent_as_response_format() -> None:
    bodies: list[Any] = []
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}

    async def once(url: str) -> None:
        async with OpenAIProvider(connection(url)) as provider:
            await provider.chat(ChatRequest("m-1", "Hi", SamplingParams(), json_schema=schema))

    with Wire(lambda call: (bodies.append(call.json), stream(*HELLO)(call))[1]) as server:  # type: ignore[func-returns-value]
        asyncio.run(once(server.url))

    assert bodies[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def test_the_key_of_the_named_variable_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", CANARY)
    with Wire(stream(*HELLO)) as server:

        async def once() -> None:
            async with OpenAIProvider(connection(server.url, api_key_env="MY_KEY")) as provider:
                await provider.chat(ChatRequest("m-1", "Hi", SamplingParams()))

        asyncio.run(once())

    assert server.calls[0].headers["authorization"] == f"Bearer {CANARY}"


def test_nothing_of_the_environment_of_openai_goes_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, CANARY)
    with Wire(stream(*HELLO)) as server:

        async def once() -> None:
            async with OpenAIProvider(connection(server.url)) as provider:
                await provider.chat(ChatRequest("m-1", "Hi", SamplingParams()))

        asyncio.run(once())

    assert CANARY not in str(server.calls[0].headers)


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert ask(stream(*HELLO)).text == "Hello"


# What is wrong before anything is sent


def test_an_unset_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)

    with pytest.raises(ConfigError, match="MY_KEY, which is not set"):
        OpenAIProvider(connection("http://localhost:1", api_key_env="MY_KEY"))


def test_a_key_with_a_line_break_inside_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", f"{CANARY}\nX-Evil: 1")

    with pytest.raises(ConfigError, match="MY_KEY") as caught:
        OpenAIProvider(connection("http://localhost:1", api_key_env="MY_KEY"))

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no usable address"):
        OpenAIProvider(connection(url))


@pytest.mark.parametrize(
    "fields",
    [
        {"params": SamplingParams(temperature=float("nan"))},
        {"json_schema": {"enum": {1, 2}}},
        {"prompt": "half a character: \ud83d"},
    ],
)
def test_what_is_no_json_is_a_bad_request(fields: dict[str, Any]) -> None:
    async def once(url: str) -> None:
        request = ChatRequest(**{"model": "m-1", "prompt": "Hi", "params": SamplingParams(), **fields})
        async with OpenAIProvider(connection(url)) as provider:
            await provider.chat(request)

    with Wire(stream(*HELLO)) as server, pytest.raises(BadRequest, match="JSON"):
        asyncio.run(once(server.url))

    assert server.calls == []


# What is made of failures


def hang_at_once(call: Call) -> None:
    call.hang()


FAILURES: dict[str, tuple[Answer, type[ProviderError], str]] = {
    "401": (refusal(401, f"Incorrect API key provided: {CANARY}"), Refused, "MY_KEY"),
    "403": (refusal(403, f"Country not supported for {CANARY}"), Refused, "Country not supported"),
    "403 without a word": (lambda call: call.send(403), Refused, "MY_KEY"),
    "404": (refusal(404, "The model `m-1` does not exist"), ModelMissing, "'m-1'"),
    "429": (refusal(429, "Rate limit reached", {"retry-after": "7"}), ServerBusy, "rate limit"),
    "429 without money": (
        refusal(429, "You exceeded your current quota", code="insufficient_quota"),
        Refused,
        "billing",
    ),
    "503": (refusal(503, "Loading model"), ServerBusy, "Loading model"),
    "400": (refusal(400, "Unsupported value: temperature"), BadRequest, "Unsupported value: temperature"),
    "422": (refusal(422, "min_p: not permitted"), BadRequest, "min_p"),
    "408": (refusal(408), TimedOut, "time limit"),
    "409": (refusal(409), BadRequest, "409"),
    "500": (refusal(500, "out of memory"), ServerFailed, "out of memory"),
    "502 with a page": (
        lambda call: call.send(502, b"<html>Bad Gateway</html>", {"content-type": "text/html"}),
        ServerFailed,
        "502",
    ),
    "redirect": (
        lambda call: call.send(307, b"", {"location": f"https://elsewhere.example/{CANARY}"}),
        BadRequest,
        "elsewhere.example",
    ),
    "a page": (
        lambda call: call.send(200, b"<html>Welcome</html>", {"content-type": "text/html"}),
        BadReply,
        "/v1|stream",
    ),
    "broken before the answer": (Call.cut, Unreachable, "No answer"),
    "silence": (hang_at_once, TimedOut, "silent"),
    "silence in mid-stream": (stream(HELLO[0], then=hang_at_once), TimedOut, "silent"),
    "broken in mid-stream": (stream(HELLO[0], then=Call.cut), StreamCut, "broke"),
    "ended without a finish reason": (stream(HELLO[0]), StreamCut, "before the answer did"),
    "an empty stream": (stream(), StreamCut, "before the answer did"),
    "an error object in the stream": (
        stream(HELLO[0], event({"error": {"message": f"CUDA error {CANARY}", "code": 500}})),
        ServerFailed,
        "CUDA error",
    ),
    "an error text in the stream": (stream(HELLO[0], event({"error": "boom"})), ServerFailed, "boom"),
    "a line that is not JSON": (stream(HELLO[0], event("{nonsense")), BadReply, "protocol"),
    "a line that is not UTF-8": (stream(HELLO[0], b"data: \xff\xfe\n\n"), BadReply, "protocol"),
    "a line of endless depth": (stream(HELLO[0], event("[" * 100_000)), BadReply, "protocol"),
    "a chunk that is a list": (stream(event([1, 2])), BadReply, "protocol"),
    "a text that is a number": (stream(delta(content=5)), BadReply, "protocol"),
    "choices of another kind": (stream(event({"id": "c", "choices": ["x"]})), BadReply, "protocol"),
    "bad compression": (
        lambda call: call.send(200, b"not gzip", {**EVENTS, "content-encoding": "gzip"}),
        BadReply,
        "protocol",
    ),
    "nothing but thinking": (
        stream(delta(reasoning="Hm."), delta(finish="length")),
        EmptyAnswer,
        "thinking",
    ),
    "an empty answer": (stream(delta(finish="stop"), DONE), EmptyAnswer, "empty"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_becomes_our_error_and_never_shows_the_key(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, expected, says = FAILURES[name]
    monkeypatch.setenv("MY_KEY", CANARY)

    with pytest.raises(ProviderError, match=says) as caught:
        ask(answer, api_key_env="MY_KEY", timeout_s=0.3)

    assert type(caught.value) is expected
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "<html" not in str(caught.value)


@pytest.mark.parametrize("name", ["silence in mid-stream", "broken in mid-stream", "a line that is not JSON"])
def test_a_failure_in_mid_stream_carries_what_had_arrived(name: str) -> None:
    with pytest.raises(ProviderError) as caught:
        ask(FAILURES[name][0], timeout_s=0.3)

    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"
    assert caught.value.partial.ttft_s is not None


def test_nobody_at_the_address() -> None:
    with Wire(stream()) as server:
        url = server.url

    async def once() -> None:
        async with OpenAIProvider(connection(url)) as provider:
            for call in (provider.version(), provider.models(), provider.details("m-1")):
                with pytest.raises(Unreachable, match="Check that the server runs"):
                    await call
            await provider.chat(ChatRequest("m-1", "Hi", SamplingParams()))

    with pytest.raises(Unreachable):
        asyncio.run(once())


@pytest.mark.parametrize(
    ("message", "fields", "sizes"),
    [
        (  # llama.cpp
            "request (631 tokens) exceeds the available context size (256 tokens), try increasing it",
            {"type": "exceed_context_size_error", "n_prompt_tokens": 631, "n_ctx": 256},
            ("631", "256"),
        ),
        (  # OpenAI
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 10013 "
            "tokens. Please reduce the length of the messages.",
            {"code": "context_length_exceeded"},
            ("10013", "8192"),
        ),
        (
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300015 "
            "tokens.",
            {"code": "context_length_exceeded"},
            ("300015", "272000"),
        ),
        (  # vLLM, three ages of it
            "This model's maximum context length is 4096 tokens. However, you requested 5003 tokens (4903 in "
            "the messages, 100 in the completion). Please reduce the length of the messages or completion.",
            {"type": "BadRequestError"},
            ("5003", "4096"),
        ),
        (
            "The decoder prompt (length 3013) is longer than the maximum model length of 2048.",
            {},
            ("3013", "2048"),
        ),
        (
            "This model's maximum context length is 2048 tokens. However, your request has 3014 input "
            "tokens.",
            {},
            ("3014", "2048"),
        ),
    ],
)
def test_a_prompt_that_does_not_fit_is_said_with_both_sizes(
    message: str, fields: dict[str, Any], sizes: tuple[str, str]
) -> None:
    with pytest.raises(PromptTooLong) as caught:
        ask(refusal(400, message, **fields))

    assert f"{sizes[0]} tokens into a context of {sizes[1]}" in str(caught.value)


def test_too_large_max_tokens_is_no_fault_of_the_prompt() -> None:
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is "
        "4096 tokens and your request has 12 input tokens"
    )
    with pytest.raises(BadRequest, match="too large: 5000") as caught:
        ask(refusal(400, message))

    assert type(caught.value) is BadRequest


def test_llama_cpp_answering_with_another_model_is_a_missing_model() -> None:
    chunks = [chunk.replace(b'"m-1"', b'"other"') for chunk in HELLO]

    with pytest.raises(ModelMissing, match="'other' answered in its place"):
        ask(stream(*chunks, headers={"server": "llama.cpp"}))


def test_a_dated_name_from_another_server_is_no_other_model() -> None:
    chunks = [chunk.replace(b'"m-1"', b'"m-1-2026-08-01"') for chunk in HELLO]

    assert ask(stream(*chunks)).server_model == "m-1-2026-08-01"


def test_an_endless_answer_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slam_app.providers.openai_stream.MAX_ANSWER_CHARS", 1000)
    gone: list[bool] = []

    def babble(call: Call) -> None:
        call.start(200, EVENTS)
        try:
            for _ in range(100_000):
                call.chunk(delta(content="again and "))
        finally:
            gone.append(call.client_gone.wait(0))

    with pytest.raises(AnswerTooLong, match="1,000 characters") as caught:
        ask(babble)

    assert caught.value.partial is not None
    assert len(caught.value.partial.text) == 1000
    assert gone == [True]
    assert base.MAX_ANSWER_CHARS == 1_000_000


def test_cancelling_closes_the_connection_at_once() -> None:
    async def cancelled(server: Wire) -> None:
        async with OpenAIProvider(connection(server.url)) as provider:
            task = asyncio.ensure_future(provider.chat(ChatRequest("m-1", "Hi", SamplingParams())))
            assert await asyncio.to_thread(arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.calls[0].client_gone.wait, 2)

    arrived = threading.Event()

    def answer(call: Call) -> None:
        arrived.set()
        stream(HELLO[0], then=hang_at_once)(call)

    with Wire(answer) as server:
        asyncio.run(cancelled(server))


def test_nothing_is_tried_twice() -> None:
    with Wire(refusal(500)) as server:

        async def once() -> None:
            async with OpenAIProvider(connection(server.url)) as provider:
                await provider.chat(ChatRequest("m-1", "Hi", SamplingParams()))

        with pytest.raises(ServerFailed):
            asyncio.run(once())

    assert len(server.calls) == 1


# The time to wait


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"x-ratelimit-reset-requests": "20ms", "x-ratelimit-reset-tokens": "6m1.5s"}, 361.5),
        ({"x-ratelimit-reset-requests": "12"}, 12.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_the_server_says_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


def test_a_busy_server_passes_its_wait_on() -> None:
    with pytest.raises(ServerBusy) as caught:
        ask(FAILURES["429"][0])

    assert caught.value.retry_after_s == 7.0


# Every error of the client


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from subclasses(sub)


def instance(kind: type[Exception]) -> Exception:
    """One of `kind`, made as its own constructor wants it."""
    request = httpx2.Request("POST", "http://localhost/v1")
    status = getattr(kind, "status_code", 500)
    response = httpx2.Response(status if isinstance(status, int) else 500, request=request)
    for arguments, named in (
        (("text",), {"response": response, "body": None}),
        ((), {"response": response, "body": None}),
        (("text", request), {"body": None}),
        ((), {"request": request}),
        (("text",), {"request": request}),
        (("text",), {}),
        ((), {}),
    ):
        try:
            return kind(*arguments, **named)
        except TypeError:
            continue
    return kind.__new__(kind)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "kind",
    [*subclasses(openai.OpenAIError), *subclasses(httpx2.HTTPError), *subclasses(httpx2.StreamError)],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_every_error_of_the_client_and_its_transport_is_mapped(kind: type[Exception], begun: bool) -> None:
    ours = translate(instance(kind), Origin("host"), model="m-1", begun=begun)

    assert isinstance(ours, ProviderError)
    assert type(ours) is not ProviderError
    assert "host" in str(ours)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (openai.AuthenticationError, Refused),
        (openai.OAuthError, Refused),
        (openai.PermissionDeniedError, Refused),
        (openai.NotFoundError, ModelMissing),
        (openai.RateLimitError, ServerBusy),
        (openai.BadRequestError, BadRequest),
        (openai.UnprocessableEntityError, BadRequest),
        (openai.ConflictError, BadRequest),
        (openai.InternalServerError, ServerFailed),
        (openai.APIError, ServerFailed),
        (openai.APIResponseValidationError, BadReply),
        (openai.APIConnectionError, Unreachable),
        (openai.APITimeoutError, TimedOut),
        (httpx2.ConnectTimeout, Unreachable),
        (httpx2.ReadTimeout, TimedOut),
        (httpx2.RemoteProtocolError, Unreachable),
        (httpx2.DecodingError, BadReply),
    ],
)
def test_to_what_the_usual_ones_are_mapped(kind: type[Exception], expected: type[ProviderError]) -> None:
    assert type(translate(instance(kind), Origin("host"), model="m-1")) is expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "model", "choices", "delta", "content", "usage", "timings", "finish_reason", "error"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(events=st.lists(json_values, max_size=4))
def test_whatever_json_is_streamed_only_our_errors_come_out(events: list[Any]) -> None:
    with contextlib.suppress(ProviderError):
        ask(stream(*(event(json.dumps(value)) for value in events)))


# Lists, and what this protocol can't do


def listing(body: Any, headers: dict[str, str] | None = None) -> Answer:
    content = gzip.compress(json.dumps(body).encode())
    return lambda call: call.send(
        200, content, {"content-type": "application/json", "content-encoding": "gzip", **(headers or {})}
    )


def test_models_with_what_llama_cpp_and_vllm_say_of_them() -> None:
    meta = {"n_params": 134515008, "size": 96576768, "n_ctx_train": 8192, "n_ctx": 512, "ftype": "Q4_1"}
    entries = [{"id": "b", "meta": meta}, {"id": "a", "max_model_len": 4096}, {"id": "c", "meta": None}]

    async def listed(url: str) -> list[Any]:
        async with OpenAIProvider(connection(url)) as provider:
            assert (await provider.details("b")).name == "b"
            with pytest.raises(ModelMissing, match="'z'"):
                await provider.details("z")
            return await provider.models()

    with Wire(listing({"object": "list", "data": entries})) as server:
        a, b, c = asyncio.run(listed(server.url))

    assert (a.name, a.context_length, a.loaded) == ("a", 4096, False)
    assert (b.parameters_b, b.size_bytes, b.context_length) == (0.134515008, 96576768, 8192)
    assert (b.quantization, b.loaded, b.loaded_context) == ("Q4_1", True, 512)
    assert c.name == "c"


@pytest.mark.parametrize(
    "answer",
    [
        listing({"data": "nothing"}),
        listing([]),
        listing({"data": [{"name": "no id"}]}),
        lambda call: call.send(200, b"<html>", {"content-type": "text/html"}),
        lambda call: call.send(200, b"[" * 100_000, {"content-type": "application/json"}),
    ],
)
def test_what_is_no_list_of_models_is_said_so(answer: Answer) -> None:
    async def listed(url: str) -> None:
        async with OpenAIProvider(connection(url)) as provider:
            await provider.models()

    with Wire(answer) as server, pytest.raises(BadReply, match="list of models"):
        asyncio.run(listed(server.url))


def test_an_address_without_the_api_is_said_so() -> None:
    async def tested(url: str) -> str:
        async with OpenAIProvider(connection(url)) as provider:
            return await provider.version()

    with (
        Wire(lambda call: call.send(404, b"404 page not found")) as server,
        pytest.raises(BadRequest, match="usually ends in /v1"),
    ):
        asyncio.run(tested(server.url))


def test_a_page_does_not_wait_for_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slam_app.providers.openai.QUICK_TIMEOUT_S", 0.2)

    async def tested(url: str) -> None:
        async with OpenAIProvider(connection(url, timeout_s=300)) as provider:
            await provider.models()

    started = time.monotonic()
    with Wire(hang_at_once) as server, pytest.raises(TimedOut):
        asyncio.run(tested(server.url))

    assert time.monotonic() - started < 2


def test_models_can_only_be_managed_on_the_server_itself() -> None:
    async def tried() -> None:
        async with OpenAIProvider(connection("http://localhost:1")) as provider:
            assert not provider.manages_models
            for call in (provider.load("m", SamplingParams()), provider.unload("m"), provider.delete("m")):
                with pytest.raises(Unsupported, match="on the server itself"):
                    await call
            with pytest.raises(Unsupported):
                async for _ in provider.pull("m"):
                    pass

    asyncio.run(tried())
