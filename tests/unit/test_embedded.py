"""The embedded engine with real llama.cpp and real weights."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from slam_app.domain import ChatRequest, ChatResult, Connection, FinishReason, SamplingParams
from slam_app.errors import (
    BadRequest,
    ModelMissing,
    PromptTooLong,
    ProviderError,
    PullFailed,
    ServerFailed,
    TimedOut,
    Unsupported,
)
from slam_app.providers.embedded import EmbeddedProvider
from slam_app.providers.llama_server import SERVERS, EmbeddedServers, LlamaServer
from slam_app.providers.weights import Library, Weights
from tests.conftest import GEMMA, SMOLLM2

PARAMS = SamplingParams(temperature=0, max_tokens=20, num_ctx=512)
LONG = "Write a very long story about a dragon, with many details and no end."
ENDLESS = replace(PARAMS, max_tokens=4000, repeat_penalty=1.3)


def run(connection: Connection, work: Callable[[EmbeddedProvider], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with EmbeddedProvider(connection) as provider:
            return await work(provider)

    return asyncio.run(inside())


def chat(connection: Connection, prompt: str, params: SamplingParams = PARAMS, **fields: Any) -> ChatResult:
    request = ChatRequest(SMOLLM2, prompt, params, **fields)
    result: ChatResult = run(connection, lambda provider: provider.chat(request))
    return result


def weights_of(data_dir: Path, name: str = SMOLLM2) -> Path:
    return Library(data_dir / "models").find(name).path


def gone(pid: int, within_s: float = 10) -> bool:
    """Whether the process ends in time; a zombie that its parent has yet to collect counts as ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def slots(server: LlamaServer) -> Any:
    """llama.cpp's own word on what it is doing."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    request = urllib.request.Request(f"{server.address}/slots", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


async def busy(server: LlamaServer, until: bool = True) -> None:
    """Wait until it works on a request, or no longer does."""
    while any(slot["is_processing"] for slot in await asyncio.to_thread(slots, server)) != until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


# Answers


def test_an_answer_with_tokens_and_timings(embedded: Connection) -> None:
    result = chat(embedded, "Name three colours of the rainbow.")

    assert result.text.strip()
    assert result.finish_reason is FinishReason.MAX_TOKENS
    assert result.prompt_tokens == 37
    assert result.output_tokens == 20
    assert result.server_model == SMOLLM2
    assert result.request_id
    assert result.ttft_s is not None and result.e2e_s is not None
    assert 0 < result.ttft_s < result.e2e_s
    assert result.timings.prompt_s and result.timings.decode_s
    # Its decode time is part of what we saw from outside.
    assert result.timings.decode_s < result.e2e_s + 0.05


def test_json_by_schema(embedded: Connection) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
        "required": ["score"],
    }
    result = chat(embedded, "Rate the answer Paris.", replace(PARAMS, max_tokens=60), json_schema=schema)

    assert 0 <= json.loads(result.text)["score"] <= 10


def test_an_answer_that_ends_by_itself(embedded: Connection) -> None:
    result = chat(embedded, "Say hello.", replace(PARAMS, max_tokens=100))

    assert result.finish_reason is FinishReason.STOP


def test_a_prompt_longer_than_the_context_is_refused_with_both_sizes(embedded: Connection) -> None:
    with pytest.raises(PromptTooLong, match=r"\d{3,4} tokens into a context of 512"):
        chat(embedded, "word " * 800)


def test_a_full_context_is_told_from_max_tokens(embedded: Connection) -> None:
    result = chat(embedded, LONG + " word" * 180, replace(ENDLESS, num_ctx=256))

    assert result.finish_reason is FinishReason.CONTEXT_FULL
    assert (result.prompt_tokens or 0) + (result.output_tokens or 0) == 256


def test_a_base_model_answers_too(embedded: Connection) -> None:
    request = ChatRequest(GEMMA, "The capital of France is", replace(PARAMS, max_tokens=5))

    result = run(embedded, lambda provider: provider.chat(request))

    assert result.text.strip()
    assert result.server_model == GEMMA


def test_two_models_are_loaded_side_by_side(embedded: Connection) -> None:
    async def both(provider: EmbeddedProvider) -> list[ChatResult]:
        requests = [ChatRequest(name, "Hello", PARAMS) for name in (SMOLLM2, GEMMA)]
        return await asyncio.gather(*(provider.chat(request) for request in requests))

    results = run(embedded, both)
    loaded = {info.name for info in run(embedded, lambda provider: provider.models()) if info.loaded}

    assert [result.server_model for result in results] == [SMOLLM2, GEMMA]
    assert loaded == {SMOLLM2, GEMMA}


def test_parallel_requests_have_the_whole_context_each(data_dir: Path) -> None:
    servers = EmbeddedServers()
    try:
        assert servers.start(weights_of(data_dir), SMOLLM2, num_ctx=512, parallel=3).context == 512
    finally:
        servers.stop_all()


def test_several_answers_at_once(embedded: Connection) -> None:
    async def two(provider: EmbeddedProvider) -> list[ChatResult]:
        return await asyncio.gather(
            *(provider.chat(ChatRequest(SMOLLM2, "Say hello.", PARAMS)) for _ in range(2))
        )

    results = run(replace(embedded, concurrency=2), two)

    assert all(result.text for result in results)


# Loading


def test_load_and_unload_show_in_the_list_and_free_the_memory(
    embedded: Connection, smollm2: LlamaServer
) -> None:
    async def cycle(provider: EmbeddedProvider) -> None:
        await provider.unload(SMOLLM2)
        assert not (await provider.details(SMOLLM2)).loaded
        await provider.load(SMOLLM2, PARAMS)
        info = await provider.details(SMOLLM2)
        assert info.loaded
        assert info.loaded_context == 512
        assert info.memory_bytes is not None and info.memory_bytes > 50_000_000
        await provider.unload(SMOLLM2)
        await provider.unload(SMOLLM2)

    run(embedded, cycle)

    assert gone(smollm2.pid)


def test_loading_with_the_options_of_the_request_means_no_second_load(
    embedded: Connection, data_dir: Path
) -> None:
    run(embedded, lambda provider: provider.load(SMOLLM2, PARAMS))
    loaded = SERVERS.running(weights_of(data_dir))

    chat(embedded, "Hello")

    assert SERVERS.running(weights_of(data_dir)) is loaded


def test_another_context_loads_anew_and_lets_running_answers_finish(
    embedded: Connection, smollm2: LlamaServer
) -> None:
    async def both(provider: EmbeddedProvider) -> ChatResult:
        long = replace(ENDLESS, max_tokens=60)
        running = asyncio.ensure_future(provider.chat(ChatRequest(SMOLLM2, LONG, long)))
        await busy(smollm2)
        await provider.load(SMOLLM2, replace(PARAMS, num_ctx=768))
        assert (await provider.details(SMOLLM2)).loaded_context == 768
        return await running

    result = run(embedded, both)

    assert result.output_tokens == 60
    assert gone(smollm2.pid)


def test_a_server_that_was_replaced_meanwhile_is_not_used(data_dir: Path) -> None:
    servers = EmbeddedServers()
    weights = weights_of(data_dir)
    try:
        old = servers.start(weights, SMOLLM2, num_ctx=256)
        new = servers.start(weights, SMOLLM2, num_ctx=512)
        with servers.using(old) as old_held, servers.using(new) as new_held:
            assert (old_held, new_held) == (False, True)
    finally:
        servers.stop_all()


def test_a_request_with_no_context_is_refused(embedded: Connection) -> None:
    with pytest.raises(BadRequest, match="num_ctx is 0"):
        chat(embedded, "Hello", replace(PARAMS, num_ctx=0))


def test_weights_that_llama_cpp_refuses_are_said_so_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    servers = EmbeddedServers()

    with pytest.raises(ServerFailed, match=r"could not load broken.*Check the weights file"):
        servers.start(file, "broken", 512)

    assert servers.running(file) is None


def test_a_load_that_takes_too_long_is_ended(data_dir: Path) -> None:
    with pytest.raises(TimedOut, match="did not load"):
        EmbeddedServers().start(weights_of(data_dir), SMOLLM2, 512, timeout_s=0.01)


@pytest.fixture
def slow_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that never becomes ready."""
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("slam_app.providers.llama_server.sys.executable", str(program))


def engines() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.name() == "sleep"]


async def loading() -> None:
    while not await asyncio.to_thread(engines):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("slow_engine")
def test_a_cancelled_load_ends_at_once_with_its_process(embedded: Connection) -> None:
    async def cancelled(provider: EmbeddedProvider) -> None:
        task = asyncio.ensure_future(provider.load(SMOLLM2, replace(PARAMS, num_ctx=384)))
        await loading()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    run(embedded, cancelled)

    assert time.monotonic() - began < 5
    assert engines() == []


@pytest.mark.usefixtures("slow_engine")
def test_unloading_ends_a_load_and_those_that_wait_behind_it(embedded: Connection) -> None:
    async def unloaded(provider: EmbeddedProvider) -> list[Any]:
        wanted = [replace(PARAMS, num_ctx=num_ctx) for num_ctx in (384, 640)]
        tasks = [asyncio.ensure_future(provider.load(SMOLLM2, params)) for params in wanted]
        await loading()
        await asyncio.sleep(0.1)
        await provider.unload(SMOLLM2)
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = run(embedded, unloaded)

    assert [type(error) for error in errors] == [ServerFailed, ServerFailed]
    assert all("unloaded" in str(error) for error in errors)
    assert engines() == []


def test_who_waits_for_a_load_that_another_gives_up_loads_for_itself(
    embedded: Connection, data_dir: Path
) -> None:
    SERVERS.stop(weights_of(data_dir))

    async def one_gives_up(provider: EmbeddedProvider) -> ChatResult:
        first = asyncio.ensure_future(provider.load(SMOLLM2, PARAMS))
        await asyncio.sleep(0.2)
        second = asyncio.ensure_future(provider.chat(ChatRequest(SMOLLM2, "Hello", PARAMS)))
        await asyncio.sleep(0.1)
        first.cancel()
        return await second

    assert run(embedded, one_gives_up).text


# Failures


def test_cancelling_stops_the_decoding(embedded: Connection, smollm2: LlamaServer) -> None:
    async def cancelled(provider: EmbeddedProvider) -> float:
        task = asyncio.ensure_future(provider.chat(ChatRequest(SMOLLM2, LONG, ENDLESS)))
        await busy(smollm2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        started = time.monotonic()
        await busy(smollm2, until=False)
        return time.monotonic() - started

    # Left alone it would go on for 450 tokens; llama.cpp looks once a second whether the client is there.
    assert run(embedded, cancelled) < 3


def test_a_killed_engine_is_an_error_and_the_next_call_starts_it_anew(
    embedded: Connection, smollm2: LlamaServer
) -> None:
    async def killed(provider: EmbeddedProvider) -> ProviderError:
        task = asyncio.ensure_future(provider.chat(ChatRequest(SMOLLM2, LONG, ENDLESS)))
        await busy(smollm2)
        await asyncio.sleep(0.5)
        os.kill(smollm2.pid, signal.SIGKILL)
        with pytest.raises(ProviderError) as caught:
            await task
        assert (await provider.chat(ChatRequest(SMOLLM2, "Hello", PARAMS))).text
        return caught.value

    error = run(embedded, killed)

    assert type(error) is ServerFailed
    assert error.retryable
    assert error.partial is not None and error.partial.text
    assert "killed" in str(error) and "started anew" in str(error)


def test_the_engine_dies_with_its_parent_even_on_kill_9(data_dir: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from slam_app.providers.llama_server import SERVERS;"
        "print(SERVERS.start(Path(sys.argv[1]), 'm', 256).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(weights_of(data_dir))], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
        parent.wait()

        assert gone(child)


def test_the_engine_ends_when_its_parent_exits(data_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from slam_app.providers.llama_server import SERVERS;"
        "print(SERVERS.start(Path(sys.argv[1]), 'm', 256).pid)"
    )
    parent = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(weights_of(data_dir))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert gone(int(parent.stdout))
    assert parent.stderr == ""


def test_only_who_has_the_key_may_use_it(smollm2: LlamaServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{smollm2.address}/v1/models", timeout=10)


# Models


def test_the_list_says_what_people_need(embedded: Connection) -> None:
    smollm2, gemma = run(embedded, lambda provider: provider.models())[:2]

    assert (smollm2.name, smollm2.family, smollm2.quantization) == (SMOLLM2, "llama", "Q4_1")
    assert (smollm2.size_bytes, smollm2.context_length) == (98362432, 8192)
    assert round(smollm2.parameters_b, 3) == 0.135
    assert len(smollm2.digest) == 64
    assert gemma.family == "gemma3 (base)"
    assert gemma.can_chat and not gemma.can_think


def test_unknown_models_are_missing(embedded: Connection) -> None:
    async def asked(provider: EmbeddedProvider) -> None:
        for call in (
            provider.details("nosuch"),
            provider.chat(ChatRequest("nosuch", "Hi", PARAMS)),
            provider.load("nosuch", PARAMS),
            provider.delete("nosuch"),
        ):
            with pytest.raises(ModelMissing, match="nosuch"):
                await call

    run(embedded, asked)


def test_carried_weights_are_not_deleted(
    embedded: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in: should this ever fail, the installed weights must survive it.
    file = tmp_path / "installed.gguf"
    file.write_bytes(b"weights")
    carried = [Weights("stand-in", file, carried=True)]
    monkeypatch.setattr("slam_app.providers.weights._carried", lambda assembled: carried)

    with pytest.raises(Unsupported, match="came with the installation"):
        run(embedded, lambda provider: provider.delete("stand-in"))

    assert file.exists()


def test_a_file_on_this_machine_is_used_where_it_is(
    embedded: Connection, data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "My Model.gguf"
    file.symlink_to(weights_of(data_dir))

    async def used(provider: EmbeddedProvider) -> ChatResult:
        steps = [step.status async for step in provider.pull(str(file))]
        assert steps[-1] == "success"
        result = await provider.chat(ChatRequest("my-model", "Hello", PARAMS))
        await provider.delete("my-model")
        return result

    result = run(embedded, used)

    assert result.server_model == "my-model"
    assert file.exists()
    assert "my-model" not in [info.name for info in run(embedded, lambda provider: provider.models())]


@pytest.mark.parametrize("name", ["smollm2", "owner/repo", "../../etc/passwd", "a/..:b.gguf", ""])
def test_what_names_no_weights_is_said_so(embedded: Connection, name: str) -> None:
    async def pulled(provider: EmbeddedProvider) -> None:
        async for _ in provider.pull(name):
            pass

    with pytest.raises(PullFailed, match=r"owner/repo:file\.gguf"):
        run(embedded, pulled)


def test_a_file_that_is_no_weights_is_said_so(embedded: Connection, tmp_path: Path) -> None:
    file = tmp_path / "notes.gguf"
    file.write_text("shopping list")

    async def pulled(provider: EmbeddedProvider) -> None:
        async for _ in provider.pull(str(file)):
            pass

    with pytest.raises(PullFailed, match="not a GGUF file"):
        run(embedded, pulled)


def test_the_version_names_the_engine(embedded: Connection) -> None:
    assert run(embedded, lambda provider: provider.version()).startswith("llama.cpp in xllamacpp 20")
