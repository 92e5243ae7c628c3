"""Downloads from a small server that answers like the Hugging Face hub: a redirect, ranges, hashes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from slam_app.domain import PullProgress
from slam_app.errors import PullFailed
from slam_app.providers import hub
from slam_app.providers.hub import download
from tests.conftest import SMOLLM2
from tests.loopback import Call, LoopbackServer
from tests.unit.test_gguf import gguf, text

NAME = "owner/repo:dir/Tiny-Q8_0.gguf"
WEIGHTS = gguf(text("general.architecture") + b"\x08\0\0\0" + text("tiny"), data=400_000)


class Hub(LoopbackServer):
    """`resolve` answers with the hash and a redirect to `/store`, which serves the bytes."""

    def __init__(self, content: bytes = WEIGHTS) -> None:
        super().__init__()
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.status = 302
        self.pause_s = 0.0
        self.cut_after: int | None = None
        self.ranges = True

    def answer(self, call: Call) -> None:
        if call.path == "/owner/repo/resolve/main/dir/Tiny-Q8_0.gguf":
            headers = {"location": f"http://127.0.0.1:{self._port}/store?signed=1"}
            if self.status == 302:
                headers |= {"x-linked-etag": f'"{self.sha256}"', "x-linked-size": str(len(self.content))}
            return call.send(self.status, b"", headers)
        if call.path == "/old/name/resolve/main/dir/Tiny-Q8_0.gguf":
            return call.send(307, b"", {"location": "/owner/repo/resolve/main/dir/Tiny-Q8_0.gguf"})
        if call.path == "/store?signed=1":
            return self._store(call)
        return call.send(404)

    def _store(self, call: Call) -> None:
        wanted = call.headers.get("range", "")
        first = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if self.ranges else 0
        call.start(206 if first else 200)
        for index, at in enumerate(range(first, len(self.content), 40_000)):
            if index == self.cut_after:
                return call.cut()
            call.chunk(self.content[at : at + 40_000])
            call.wait(self.pause_s)
        return call.end()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def fetched(directory: Path, name: str = NAME, tick_s: float = 1.0) -> list[PullProgress]:
    async def all_steps() -> list[PullProgress]:
        return [step async for step in download(name, directory, tick_s)]

    return asyncio.run(all_steps())


def test_a_download_ends_as_a_file_of_the_right_hash(server: Hub, tmp_path: Path) -> None:
    steps = fetched(tmp_path)

    assert (tmp_path / "tiny-q8_0.gguf").read_bytes() == WEIGHTS
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny-q8_0.gguf"]
    assert steps[-1] == PullProgress("success", len(WEIGHTS), len(WEIGHTS))
    moving = [step.completed_bytes for step in steps if step.status == "downloading"]
    assert moving == sorted(moving) and moving[-1] == len(WEIGHTS)


def test_a_renamed_repository_is_followed(server: Hub, tmp_path: Path) -> None:
    assert fetched(tmp_path, "old/name:dir/Tiny-Q8_0.gguf")[-1].status == "success"


def test_the_same_file_again_is_only_checked(server: Hub, tmp_path: Path) -> None:
    fetched(tmp_path)
    calls = len(server.calls)

    assert fetched(tmp_path)[-1].status == "success"
    assert [call.method for call in server.calls[calls:]] == ["HEAD"]


def test_a_cancelled_download_goes_on_where_it_was(server: Hub, tmp_path: Path) -> None:
    async def cancelled() -> int:
        async def some() -> None:
            async for step in download(NAME, tmp_path):
                if step.completed_bytes >= 120_000:
                    reached.set()

        reached = asyncio.Event()
        task = asyncio.ensure_future(some())
        await asyncio.wait_for(reached.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return next(tmp_path.glob(".*.part")).stat().st_size

    server.pause_s = 0.05
    had = asyncio.run(cancelled())
    server.pause_s = 0.0
    fetched(tmp_path)

    assert 120_000 <= had < len(WEIGHTS)
    assert server.calls[-1].headers["range"] == f"bytes={had}-"
    assert (tmp_path / "tiny-q8_0.gguf").read_bytes() == WEIGHTS


def test_a_broken_download_goes_on_where_it_was(server: Hub, tmp_path: Path) -> None:
    server.cut_after = 3
    with pytest.raises(PullFailed, match="goes on where it was"):
        fetched(tmp_path)
    server.cut_after = None

    fetched(tmp_path)

    assert server.calls[-1].headers["range"].startswith("bytes=")
    assert (tmp_path / "tiny-q8_0.gguf").read_bytes() == WEIGHTS


def test_a_store_without_ranges_starts_over(server: Hub, tmp_path: Path) -> None:
    server.cut_after, server.ranges = 3, False
    with pytest.raises(PullFailed):
        fetched(tmp_path)
    server.cut_after = None

    fetched(tmp_path)

    assert (tmp_path / "tiny-q8_0.gguf").read_bytes() == WEIGHTS


def test_a_wrong_hash_leaves_nothing(server: Hub, tmp_path: Path) -> None:
    server.sha256 = "0" * 64

    with pytest.raises(PullFailed, match="not what the hub announced"):
        fetched(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_weights_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Hub(b"shopping list") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        with pytest.raises(PullFailed, match="not a GGUF file"):
            fetched(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_another_model_of_the_name_is_not_overwritten(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "tiny-q8_0.gguf").write_bytes(b"mine")

    with pytest.raises(PullFailed, match="Delete it first"):
        fetched(tmp_path)

    assert (tmp_path / "tiny-q8_0.gguf").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("status", "says"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "has no"), (500, "Try again later")]
)
def test_what_the_hub_refuses_is_said_so(server: Hub, tmp_path: Path, status: int, says: str) -> None:
    server.status = status

    with pytest.raises(PullFailed, match=says):
        fetched(tmp_path)


def test_a_machine_without_internet_is_told_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)

    with pytest.raises(PullFailed, match="enter the path"):
        fetched(tmp_path)


def test_too_little_room_is_said_before_anything_is_fetched(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())

    with pytest.raises(PullFailed, match="lacks room"):
        fetched(tmp_path)

    assert [call.method for call in server.calls] == ["HEAD"]


def test_a_stalled_download_goes_on_reporting(server: Hub, tmp_path: Path) -> None:
    server.pause_s = 0.25

    steps = fetched(tmp_path, tick_s=0.1)

    done = [step.completed_bytes for step in steps if step.status == "downloading"]
    assert any(before == after for before, after in pairwise(done))


def test_the_token_goes_to_the_hub_and_not_to_the_store(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-canary")
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("127.0.0.1", "localhost"))

    fetched(tmp_path)

    hub_calls = [call for call in server.calls if "resolve" in call.path]
    store_calls = [call for call in server.calls if "store" in call.path]
    assert all(call.headers["authorization"] == "Bearer hf-canary" for call in hub_calls)
    assert all("authorization" not in call.headers for call in store_calls)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (NAME, True),
        ("bartowski/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct-Q8_0.gguf", True),
        ("owner/repo", False),
        ("owner/repo:file.bin", False),
        ("owner/repo:../x.gguf", False),
        ("hf.co/owner/repo:x.gguf", False),
        (SMOLLM2, False),
    ],
)
def test_names_of_the_hub(name: str, is_one: bool) -> None:
    assert hub.is_hub_name(name) is is_one
