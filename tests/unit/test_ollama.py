"""Rules of the Ollama provider that single recordings can't show: what it sends, refuses and closes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

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
    Think,
)
from slam_app.providers import base, connect, ollama, ollama_client
from slam_app.providers.ollama import OllamaProvider
from slam_app.providers.ollama_errors import NO_STATUS, explain, explain_pull, explained
from tests.loopback import Call, LoopbackServer
from tests.wire_faults import Fault
from tests.wire_models import EMBEDDER, SMOLLM, THINKER, WireModel
from tests.wire_ollama import WireOllama

T = TypeVar("T")
PARAMS = SamplingParams(
    temperature=0.3,
    top_p=0.8,
    top_k=7,
    min_p=0.05,
    repeat_penalty=1.2,
    seed=11,
    max_tokens=64,
    num_ctx=2048,
)
SENT = {
    "temperature": 0.3,
    "top_p": 0.8,
    "top_k": 7,
    "min_p": 0.05,
    "repeat_penalty": 1.2,
    "seed": 11,
    "num_predict": 64,
    "num_ctx": 2048,
}
REQUEST = ChatRequest(SMOLLM.name, "Say something.", PARAMS)


class Says(LoopbackServer):
    """Answers every call with these bytes as a chunked stream; then ends it, or stays silent."""

    def __init__(self, *chunks: bytes, then_hangs: bool = False) -> None:
        super().__init__()
        self._chunks = chunks
        self._then_hangs = then_hangs

    def answer(self, call: Call) -> None:
        call.start(200, {"content-type": "application/x-ndjson"})
        for chunk in self._chunks:
            call.chunk(chunk)
        if self._then_hangs:
            call.hang()
        call.end()


def line(content: str = "", **fields: Any) -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"model": "m", "message": message, **fields}, ensure_ascii=False).encode() + b"\n"


DONE: dict[str, Any] = {"done": True, "done_reason": "stop"}


def use(server: LoopbackServer, call: Callable[[OllamaProvider], Awaitable[T]], timeout_s: float = 10) -> T:
    """Run `call` with a provider on a running server."""

    async def within() -> T:
        async with OllamaProvider(
            Connection(1, "c", ConnectionKind.OLLAMA, server.url, timeout_s=timeout_s)
        ) as p:
            return await call(p)

    return asyncio.run(within())


def chat(server: LoopbackServer, request: ChatRequest = REQUEST, timeout_s: float = 10) -> ChatResult:
    return use(server, lambda provider: provider.chat(request), timeout_s)


def chat_said(*chunks: bytes, request: ChatRequest = REQUEST) -> ChatResult:
    with Says(*chunks) as server:
        return chat(server, request)


async def pulled(provider: OllamaProvider, name: str) -> list[PullProgress]:
    return [progress async for progress in provider.pull(name)]


# What is sent


def test_every_option_is_sent_and_nothing_is_cut_in_silence() -> None:
    with WireOllama() as daemon:
        chat(daemon)

    assert daemon.calls[0].json == {
        "model": SMOLLM.name,
        "messages": [{"role": "user", "content": "Say something."}],
        "stream": True,
        "truncate": False,
        "shift": False,
        "options": SENT,
    }


@pytest.mark.parametrize(
    ("think", "sent"),
    [
        (Think.DEFAULT, None),
        (Think.OFF, False),
        (Think.ON, True),
        (Think.LOW, "low"),
        (Think.MEDIUM, "medium"),
        (Think.HIGH, "high"),
        (Think.MAX, "max"),
    ],
)
def test_think(think: Think, sent: bool | str | None) -> None:
    with WireOllama() as daemon:
        result = chat(daemon, ChatRequest(THINKER.name, "Why?", replace(PARAMS, think=think)))

    assert daemon.calls[0].json.get("think") == sent
    assert ("think" in daemon.calls[0].json) is (sent is not None)
    assert bool(result.thinking) is (think is not Think.OFF)
    assert "question" not in result.text


def test_a_schema_and_keep_alive_are_sent_when_given() -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}
    with WireOllama() as daemon:
        result = chat(daemon, replace(REQUEST, json_schema=schema, keep_alive_s=-1))

    assert daemon.calls[0].json["format"] == schema
    assert daemon.calls[0].json["keep_alive"] == -1
    assert json.loads(result.text) == {"score": 0}


def test_preload_has_the_options_of_the_requests_so_that_nothing_is_loaded_twice() -> None:
    async def both(provider: OllamaProvider) -> None:
        await provider.load(SMOLLM.name, PARAMS)
        await provider.chat(REQUEST)

    with WireOllama() as daemon:
        use(daemon, both)

    preload, request = (call.json for call in daemon.calls)
    assert preload["options"] == request["options"] == SENT
    assert (preload["messages"], "keep_alive" in preload) == ([], False)
    assert daemon.loads == [(SMOLLM.name, 2048)]


def test_a_model_is_kept_as_long_as_asked_and_released() -> None:
    async def keep_and_release(provider: OllamaProvider) -> list[Any]:
        await provider.load(SMOLLM.name, PARAMS, keep_alive_s=-1)
        kept = await provider.details(SMOLLM.name)
        await provider.load(SMOLLM.name, PARAMS, keep_alive_s=60)
        passing = await provider.details(SMOLLM.name)
        await provider.unload(SMOLLM.name)
        await provider.unload(SMOLLM.name)
        return [kept, passing, await provider.details(SMOLLM.name)]

    with WireOllama() as daemon:
        kept, passing, released = use(daemon, keep_and_release)

    assert (kept.loaded, kept.loaded_context, kept.kept_until) == (True, 2048, None)
    assert passing.loaded and passing.kept_until is not None
    assert (released.loaded, released.memory_bytes) == (False, None)
    assert daemon.calls[-4].json == {"model": SMOLLM.name, "messages": [], "stream": True, "keep_alive": 0}


def test_a_key_of_the_environment_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "secret")

    with WireOllama() as daemon:
        chat(daemon)
        use(daemon, lambda provider: provider.models())

    assert [call.headers.get("authorization") for call in daemon.calls] == [None] * len(daemon.calls)


def test_a_redirect_is_not_followed() -> None:
    with WireOllama() as daemon:
        for path, call in (("/api/chat", chat), ("/api/tags", lambda d: use(d, lambda p: p.models()))):
            daemon.inject(Fault.REDIRECT, path)
            with pytest.raises(errors.BadReply, match="redirect"):
                call(daemon)

    assert [call.path for call in daemon.calls] == ["/api/chat", "/api/tags"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (replace(REQUEST, model=""), "name of a model"),
        (replace(REQUEST, model="bad name!"), "name of a model"),
        (replace(REQUEST, model="a\nb"), "name of a model"),
        (replace(REQUEST, prompt=" \n"), "prompt is empty"),
        (replace(REQUEST, prompt="\ud83d"), "JSON"),
        (replace(REQUEST, json_schema={"enum": {1, 2}}), "JSON"),
        (replace(REQUEST, params=replace(PARAMS, temperature="hot")), "temperature"),  # type: ignore[arg-type]
        (replace(REQUEST, params=replace(PARAMS, temperature=float("nan"))), "temperature"),
        (replace(REQUEST, params=replace(PARAMS, top_p=True)), "top_p"),
        (replace(REQUEST, params=replace(PARAMS, top_k=1.5)), "top_k"),  # type: ignore[arg-type]
        (replace(REQUEST, params=replace(PARAMS, num_ctx=0)), "num_ctx"),
        (replace(REQUEST, params=replace(PARAMS, max_tokens=0)), "max_tokens"),
    ],
)
def test_what_the_daemon_would_take_in_silence_is_refused_before_it_goes_out(
    request_: ChatRequest, said: str
) -> None:
    with WireOllama() as daemon, pytest.raises(errors.BadRequest, match=said):
        chat(daemon, request_)

    assert daemon.calls == []


@pytest.mark.parametrize(
    "call",
    [
        lambda provider: provider.load("", PARAMS),
        lambda provider: provider.load(SMOLLM.name, replace(PARAMS, num_ctx=-1)),
        lambda provider: provider.unload(""),
        lambda provider: provider.details(""),
        lambda provider: provider.delete("a b"),
        lambda provider: pulled(provider, ""),
    ],
)
def test_every_call_checks_its_input(call: Callable[[OllamaProvider], Awaitable[Any]]) -> None:
    with WireOllama() as daemon, pytest.raises(errors.BadRequest):
        use(daemon, call)

    assert daemon.calls == []


@pytest.mark.parametrize("address", ["ftp://host", "http://host:port", "http://[::1", "http://host:99999"])
def test_an_address_that_can_be_none_is_a_config_error(address: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"http://127\.0\.0\.1:11434"):
        connect(Connection(1, "c", ConnectionKind.OLLAMA, address))


# What is made of the answer


def test_the_last_line_may_carry_text() -> None:
    result = chat_said(line("Hello"), line(" world", **DONE, prompt_eval_count=3, eval_count=2))

    assert (result.text, result.finish_reason) == ("Hello world", FinishReason.STOP)


def test_what_the_daemon_leaves_out_stays_unknown() -> None:
    result = chat_said(line("Hello", **DONE, total_duration=1500000000))

    assert (result.timings.total_s, result.timings.load_s) == (1.5, None)
    assert (result.timings.prompt_s, result.timings.decode_s) == (None, None)
    assert (result.prompt_tokens, result.output_tokens, result.cached_tokens) == (None, None, None)


def test_a_newer_daemon_tells_how_much_of_the_prompt_was_cached() -> None:
    result = chat_said(line("Hello", **DONE, prompt_eval_count=20, prompt_eval_cached_count=16))

    assert (result.prompt_tokens, result.cached_tokens) == (20, 16)


@pytest.mark.parametrize(
    ("reason", "prompt_tokens", "output_tokens", "finish"),
    [
        ("stop", 2040, 8, FinishReason.STOP),
        ("length", 1900, 64, FinishReason.MAX_TOKENS),
        ("length", 2000, 48, FinishReason.CONTEXT_FULL),
        ("length", 2000, 64, FinishReason.CONTEXT_FULL),
        ("length", None, 64, FinishReason.MAX_TOKENS),
        ("something new", 1, 1, FinishReason.OTHER),
    ],
)
def test_finish_reason(
    reason: str, prompt_tokens: int | None, output_tokens: int, finish: FinishReason
) -> None:
    counts: dict[str, Any] = {"eval_count": output_tokens} | (
        {"prompt_eval_count": prompt_tokens} if prompt_tokens else {}
    )

    result = chat_said(line("Hello", done=True, done_reason=reason, **counts))

    assert result.finish_reason is finish


@pytest.mark.parametrize("max_tokens", [512, -1])
def test_a_context_that_the_daemon_made_smaller_is_told_from_max_tokens(max_tokens: int) -> None:
    """It gives no more context than the model was trained for, whatever num_ctx asks."""
    counts = {"prompt_eval_count": 2000, "eval_count": 49}
    params = replace(PARAMS, num_ctx=8192, max_tokens=max_tokens)

    said = line("Hello", done=True, done_reason="length", **counts)
    result = chat_said(said, request=replace(REQUEST, params=params))

    assert result.finish_reason is FinishReason.CONTEXT_FULL


def test_only_a_line_feed_ends_a_line() -> None:
    """Models write U+0085 and U+2028, and the daemon does not escape all of them."""
    text = "one\u0085two\u2028three"

    result = chat_said(line(text), line(**DONE))

    assert result.text == text


def test_lines_may_arrive_in_pieces_and_several_at_once() -> None:
    whole = line("Grüße ") + line("an alle") + line(**DONE)
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]

    assert chat_said(*pieces).text == chat_said(whole).text == "Grüße an alle"


def test_an_answer_without_text_is_an_error() -> None:
    with pytest.raises(errors.EmptyAnswer, match="empty answer"):
        chat_said(line(" \n", **DONE))


def test_an_answer_that_is_all_thinking_is_an_error_that_keeps_the_thinking() -> None:
    short = replace(PARAMS, max_tokens=3)
    with WireOllama() as daemon, pytest.raises(errors.EmptyAnswer, match="max tokens") as raised:
        chat(daemon, ChatRequest(THINKER.name, "Why?", short))

    partial = raised.value.partial
    assert partial is not None and partial.thinking == "The question has"
    assert (partial.finish_reason, partial.output_tokens) == (FinishReason.MAX_TOKENS, 3)
    assert partial.ttft_s is not None and partial.ttfa_s is None


def test_an_answer_without_end_is_stopped_and_kept_up_to_the_limit() -> None:
    with WireOllama() as daemon:
        daemon.inject(Fault.HUGE)
        with pytest.raises(errors.AnswerTooLong, match="1,000,000") as raised:
            chat(daemon)
        assert daemon.calls[0].client_gone.wait(2)

    partial = raised.value.partial
    assert partial is not None and len(partial.text) == base.MAX_ANSWER_CHARS


def test_a_line_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_client, "_MAX_LINE_BYTES", 10_000)

    with Says(line("Hello"), *[b"x" * 4096] * 4, then_hangs=True) as server:
        with pytest.raises(errors.AnswerTooLong, match="without end"):
            chat(server)
        assert server.calls[0].client_gone.wait(2)


def test_a_prompt_that_does_not_fit_is_refused_and_a_full_context_is_told() -> None:
    with WireOllama(complete=lambda prompt, params: "word " * 500) as daemon:
        with pytest.raises(errors.PromptTooLong, match="num_ctx"):
            chat(daemon, replace(REQUEST, prompt="word " * 300, params=replace(PARAMS, num_ctx=256)))
        full = chat(daemon, replace(REQUEST, params=replace(PARAMS, num_ctx=64, max_tokens=-1)))
        cut = chat(daemon)

    assert (full.finish_reason, cut.finish_reason) == (FinishReason.CONTEXT_FULL, FinishReason.MAX_TOKENS)


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault.MODEL_MISSING, errors.ModelMissing, "ollama pull"),
        (Fault.BUSY, errors.ServerBusy, "later"),
        (Fault.SERVER_ERROR, errors.ServerFailed, "too little memory"),
        (Fault.REFUSED, errors.Refused, "OLLAMA_HOST"),
        (Fault.NOT_JSON, errors.BadReply, "protocol"),
        (Fault.RUNNER_DIES, errors.ServerFailed, "unexpected EOF"),
        (Fault.CUT, errors.StreamCut, "broke off"),
        (Fault.ENDS_EARLY, errors.StreamCut, "broke off"),
        (Fault.BAD_JSON, errors.BadReply, "protocol"),
        (Fault.HANG, errors.TimedOut, "0.3 s"),
        (Fault.NO_ANSWER, errors.TimedOut, "0.3 s"),
    ],
)
def test_a_failure_has_its_own_error_and_keeps_what_had_arrived(
    fault: Fault, kind: type[errors.ProviderError], said: str
) -> None:
    before = {Fault.RUNNER_DIES, Fault.CUT, Fault.ENDS_EARLY, Fault.BAD_JSON, Fault.HANG}
    with WireOllama(complete=lambda prompt, params: "one two three four") as daemon:
        daemon.inject(fault)
        with pytest.raises(errors.ProviderError, match=said) as raised:
            chat(daemon, timeout_s=0.3 if kind is errors.TimedOut else 10)
        again = chat(daemon)

    assert type(raised.value) is kind
    partial = raised.value.partial
    assert (partial and partial.text) == ("one two" if fault in before else None)
    assert again.text == "one two three four"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"[1, 2]\n", "not an object"),
        (b"null\n", "not an object"),
        (b'"text"\n', "not an object"),
        (b'{"model":"m","done":true}\n', "message"),
        (b'{"message":{"role":"assistant","content":["x"]}}\n', "content"),
        (b"\xff{}\n", "decode"),
        (b'{"a":' * 100_000 + b"\n", "recursion"),
    ],
)
def test_lines_that_are_not_the_protocol(said: bytes, why: str) -> None:
    with pytest.raises(errors.BadReply, match=why):
        chat_said(said)


def test_an_error_line_may_hold_an_object() -> None:
    with pytest.raises(errors.ServerFailed, match="broken"):
        chat_said(line("Hello"), b'{"error": {"message": "broken"}}\n')


@pytest.mark.parametrize("body", [b"[]", b"null", b"{}", b'{"models": 3}', b"no json", b"\xff"])
def test_lists_that_are_not_the_protocol(body: bytes) -> None:
    with Says(body) as server:
        for call in (OllamaProvider.models, OllamaProvider.version):
            with pytest.raises(errors.BadReply):
                use(server, call)
        with pytest.raises(errors.BadReply):
            use(server, lambda provider: provider.details("m"))


def test_pages_do_not_wait_for_a_daemon_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists, details and tests have a short timeout of their own, whatever the connection's is."""
    monkeypatch.setattr(ollama_client, "QUICK_TIMEOUT_S", 0.4)

    with WireOllama() as daemon:
        for path, call in (
            ("/api/tags", OllamaProvider.models),
            ("/api/ps", OllamaProvider.models),
            ("/api/version", OllamaProvider.version),
        ):
            daemon.inject(Fault.NO_ANSWER, path)
            with pytest.raises(errors.TimedOut):
                use(daemon, call, timeout_s=60)


def test_loading_may_take_as_long_as_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_client, "QUICK_TIMEOUT_S", 0.4)

    with WireOllama() as daemon:
        daemon.load_delay_s = 0.8
        use(daemon, lambda provider: provider.load(SMOLLM.name, PARAMS))

        daemon.load_delay_s = 2
        with pytest.raises(errors.TimedOut, match="timeout"):
            use(daemon, lambda provider: provider.load(SMOLLM.name, replace(PARAMS, num_ctx=512)), 0.3)


def test_a_daemon_that_is_down_is_unreachable_and_found_again_when_it_is_back() -> None:
    daemon = WireOllama()
    daemon.start()
    daemon.stop()
    for call in (
        OllamaProvider.version,
        OllamaProvider.models,
        lambda provider: provider.chat(REQUEST),
        lambda provider: provider.load(SMOLLM.name, PARAMS),
        lambda provider: provider.delete(SMOLLM.name),
        lambda provider: pulled(provider, SMOLLM.name),
    ):
        with pytest.raises(errors.Unreachable, match="ollama serve"):
            use(daemon, call)

    with daemon:
        assert use(daemon, OllamaProvider.version) == "Ollama 0.24.0"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectError("refused"), errors.Unreachable),
        (httpx.ConnectTimeout("slow"), errors.Unreachable),
        (ConnectionError("down"), errors.Unreachable),
        (httpx.ReadTimeout("slow"), errors.TimedOut),
        (httpx.WriteTimeout("slow"), errors.TimedOut),
        (httpx.PoolTimeout("slow"), errors.TimedOut),
        (httpx.ReadError("reset"), errors.StreamCut),
        (httpx.WriteError("reset"), errors.StreamCut),
        (httpx.CloseError("reset"), errors.StreamCut),
        (httpx.RemoteProtocolError("cut"), errors.StreamCut),
        (httpx.LocalProtocolError("bug"), errors.StreamCut),
        (httpx.ProxyError("proxy"), errors.StreamCut),
        (httpx.UnsupportedProtocol("gopher"), errors.StreamCut),
        (httpx.DecodingError("gzip"), errors.BadReply),
        (httpx.TooManyRedirects("loop"), errors.BadReply),
    ],
)
def test_no_error_of_the_transport_escapes(raised: Exception, kind: type[errors.ProviderError]) -> None:
    with pytest.raises(errors.ProviderError) as mapped, explained("http://host"):
        raise raised

    assert type(mapped.value) is kind
    assert mapped.value.__cause__ is raised


def test_every_error_of_the_transport_is_in_the_table_above() -> None:
    def leaves(kind: type[Exception]) -> set[type[Exception]]:
        return {kind} if not kind.__subclasses__() else set().union(*map(leaves, kind.__subclasses__()))

    table = test_no_error_of_the_transport_escapes.pytestmark[0].args[1]  # type: ignore[attr-defined]

    assert leaves(httpx.RequestError) <= {type(raised) for raised, _ in table}


@pytest.mark.parametrize(
    ("status", "text", "kind", "said"),
    [
        (401, "no key", errors.Refused, "no key"),
        (403, "forbidden", errors.Refused, "access rules"),
        (429, "slow down", errors.ServerBusy, "later"),
        (502, "<html>", errors.ServerFailed, "read its log"),
        (500, "", errors.ServerFailed, "status 500"),
        (500, "input length exceeds maximum context length", errors.PromptTooLong, "num_ctx"),
        (500, "cudaMalloc failed: out of memory", errors.ServerFailed, "smaller model"),
        (404, 'model "m" not found, try pulling it first', errors.ModelMissing, "ollama pull m"),
        (404, "page not found", errors.BadReply, "protocol"),
        (NO_STATUS, "an error was encountered", errors.ServerFailed, "Try again"),
    ],
)
def test_statuses_are_read_together_with_their_words(
    status: int, text: str, kind: type[errors.ProviderError], said: str
) -> None:
    error = explain("http://host", "m", status, text)

    assert type(error) is kind
    assert said in str(error)


def test_a_secure_connection_that_fails_says_so() -> None:
    with pytest.raises(errors.Unreachable, match="http://"), explained("https://host"):
        raise httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number")


def test_cancelling_closes_the_connection() -> None:
    """That stops the daemon's work."""

    async def cancelled(provider: OllamaProvider) -> None:
        task = asyncio.create_task(provider.chat(REQUEST))
        await asyncio.to_thread(daemon.called.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The provider is still open here: it is the call's own connection that is closed.
        assert await asyncio.to_thread(daemon.calls[0].client_gone.wait, 2)

    with WireOllama() as daemon:
        daemon.token_delay_s = 30
        use(daemon, cancelled)


def test_the_connection_is_used_again_after_an_answer() -> None:
    async def twice(provider: OllamaProvider) -> None:
        await provider.chat(REQUEST)
        await provider.chat(REQUEST)

    with WireOllama() as daemon:
        use(daemon, twice)

    assert daemon.calls[0].client == daemon.calls[1].client


def test_a_complete_answer_is_not_lost_to_a_stream_that_does_not_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ollama, "_TO_THE_END_S", 0.05)

    with Says(line("Hello"), line(**DONE), then_hangs=True) as server:
        result = use(server, lambda provider: asyncio.wait_for(provider.chat(REQUEST), 5), timeout_s=60)

    assert result.text == "Hello"


# Models


def test_a_missing_model_is_told_by_every_call() -> None:
    absent = "absent:1b"
    with WireOllama() as daemon:
        for call in (
            lambda provider: provider.chat(replace(REQUEST, model=absent)),
            lambda provider: provider.load(absent, PARAMS),
            lambda provider: provider.unload(absent),
            lambda provider: provider.details(absent),
            lambda provider: provider.delete(absent),
        ):
            with pytest.raises(errors.ModelMissing, match="ollama pull absent:1b"):
                use(daemon, call)


def test_delete() -> None:
    with WireOllama() as daemon:
        use(daemon, lambda provider: provider.delete(SMOLLM.name))

    assert list(daemon.installed) == [THINKER.name, EMBEDDER.name]


def test_deleting_a_huge_model_may_take_longer_than_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_client, "QUICK_TIMEOUT_S", 0.2)

    class Slow(WireOllama):
        def answer(self, call: Call) -> None:
            call.wait(0.6)
            super().answer(call)

    with Slow() as daemon:
        use(daemon, lambda provider: provider.delete(SMOLLM.name))
        monkeypatch.setattr(ollama_client, "_DELETE_TIMEOUT_S", 0.2)
        with pytest.raises(errors.TimedOut, match=r"0\.2 s"):
            use(daemon, lambda provider: provider.delete(THINKER.name))

    assert SMOLLM.name not in daemon.installed


def test_the_list_has_what_the_details_have() -> None:
    async def both(provider: OllamaProvider) -> tuple[list[ModelInfo], list[ModelInfo]]:
        listed = await provider.models()
        return listed, [await provider.details(info.name) for info in listed]

    with WireOllama() as daemon:
        listed, detailed = use(daemon, both)

    assert listed == detailed
    assert [info.can_think for info in listed] == [False, True, False]


def test_one_model_that_can_not_be_shown_is_listed_all_the_same() -> None:
    with WireOllama() as daemon:
        daemon.inject(Fault.SERVER_ERROR, "/api/show")
        listed = use(daemon, OllamaProvider.models)

    assert len(listed) == 3
    assert sorted(bool(info.capabilities) for info in listed) == [False, True, True]


def test_details_that_take_too_long_do_not_hold_up_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama, "_DETAILS_S", 0.3)

    with WireOllama() as daemon:
        daemon.inject(Fault.NO_ANSWER, "/api/show", times=3)
        listed = use(daemon, OllamaProvider.models)

    assert [info.capabilities for info in listed] == [(), (), ()]


def test_a_name_without_a_tag_is_the_latest() -> None:
    with WireOllama(models=[WireModel("llama3.2:latest", size=2_000_000_000)]) as daemon:
        info = use(daemon, lambda provider: provider.details("llama3.2"))

    assert (info.name, info.size_bytes) == ("llama3.2:latest", 2_000_000_000)


@pytest.mark.parametrize(
    ("size", "billions"),
    [("134.52M", 0.13452), ("7B", 7.0), ("1.2T", 1200.0), ("500K", 0.0005), ("", None), ("huge", None)],
)
def test_parameters_are_in_billions(size: str, billions: float | None) -> None:
    with WireOllama(models=[WireModel(parameter_size=size)]) as daemon:
        [info] = use(daemon, OllamaProvider.models)

    assert info.parameters_b == (None if billions is None else pytest.approx(billions))


# Pull

BIG = WireModel("big:7b", layers=(1000, 200, 30))


def test_pull_adds_up_the_layers_and_the_model_is_there() -> None:
    with WireOllama(registry=[BIG]) as daemon:
        steps = use(daemon, lambda provider: pulled(provider, BIG.name))

    done = [step.completed_bytes for step in steps]
    assert daemon.calls[0].json == {"model": BIG.name, "stream": True}
    assert done == sorted(done)
    assert (steps[0].status, steps[0].completed_bytes, steps[0].total_bytes) == ("pulling manifest", 0, None)
    assert (steps[-1].status, steps[-1].completed_bytes, steps[-1].total_bytes) == ("success", 1230, 1230)
    assert BIG.name in daemon.installed


def test_a_cancelled_pull_closes_the_connection_and_the_next_goes_on() -> None:
    async def begin(provider: OllamaProvider) -> None:
        async with aclosing(provider.pull(BIG.name)) as steps:
            async for step in steps:
                if step.completed_bytes >= 400:
                    break
        assert await asyncio.to_thread(daemon.calls[0].client_gone.wait, 2)

    with WireOllama(registry=[BIG]) as daemon:
        daemon.pull_delay_s = 0.05
        use(daemon, begin)
        daemon.pull_delay_s = 0
        steps = use(daemon, lambda provider: pulled(provider, BIG.name))

    assert next(step.completed_bytes for step in steps if step.completed_bytes) >= 400


def test_a_pull_reports_although_the_daemon_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama, "_PULL_TICK_S", 0.05)

    async def until_ticks(provider: OllamaProvider) -> list[PullProgress]:
        seen = []
        async with aclosing(provider.pull(BIG.name)) as steps:
            async for step in steps:
                seen.append(step)
                if len(seen) == 8:
                    break
        assert await asyncio.to_thread(daemon.calls[0].client_gone.wait, 2)
        return seen

    with WireOllama(registry=[BIG]) as daemon:
        daemon.inject(Fault.HANG, "/api/pull", after=3)
        seen = use(daemon, until_ticks)

    assert {(step.status, step.completed_bytes) for step in seen[3:]} == {(seen[2].status, 100)}


def test_a_silent_pull_is_cancelled_at_once() -> None:
    async def cancelled(provider: OllamaProvider) -> None:
        silent = asyncio.Event()

        async def follow() -> None:
            async for step in provider.pull(BIG.name):
                if step.completed_bytes:
                    silent.set()

        task = asyncio.create_task(follow())
        await asyncio.wait_for(silent.wait(), 5)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        assert await asyncio.to_thread(daemon.calls[0].client_gone.wait, 2)

    with WireOllama(registry=[BIG]) as daemon:
        daemon.inject(Fault.HANG, "/api/pull", after=3)
        use(daemon, cancelled, timeout_s=60)


def test_a_layer_keeps_its_bytes_when_a_line_does_not_name_them() -> None:
    layer = {"status": "pulling a", "digest": "sha256:a", "total": 10}
    said = [layer, {**layer, "completed": 4}, layer, {"status": "success"}]

    with Says(*[json.dumps(fields).encode() + b"\n" for fields in said]) as server:
        steps = use(server, lambda provider: pulled(provider, "m"))

    assert [step.completed_bytes for step in steps] == [0, 4, 4, 10]


def test_a_silent_pull_times_out() -> None:
    with WireOllama(registry=[BIG]) as daemon:
        daemon.inject(Fault.HANG, "/api/pull", after=3)
        with pytest.raises(errors.TimedOut):
            use(daemon, lambda provider: pulled(provider, BIG.name), timeout_s=0.3)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.ENDS_EARLY])
def test_a_pull_ends_well_only_on_success(fault: Fault) -> None:
    with WireOllama(registry=[BIG]) as daemon:
        daemon.inject(fault, "/api/pull", after=5)
        with pytest.raises(errors.StreamCut):
            use(daemon, lambda provider: pulled(provider, BIG.name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("write /models/blobs: no space left on device", "disk"),
        ("The model you are attempting to pull requires a newer version of Ollama", "Update Ollama"),
        ("something else", "Check the name"),
    ],
)
def test_why_a_pull_failed(text: str, said: str) -> None:
    error = explain_pull("big:7b", text)

    assert said in str(error) and text in str(error)
