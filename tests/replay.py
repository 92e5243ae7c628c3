"""Replays what a real Ollama daemon said: one recorded exchange of tests/data/ollama over real HTTP.

    with ReplayServer("openai-chat-stream") as server:
        ...talk to server.url (for an OpenAI client: server.url + "/v1")...
        assert server.calls[0].path == "/v1/chat/completions"
        assert server.calls[0].json["stream"] is True

Every request, whatever its path, gets the recorded answer: status, headers, and the chunks as they
arrived. `speed=0` (the default) sends them without the recorded delays, `speed=1` with them,
`speed=10` ten times as fast. What happened to the connection happens again: a broken one is cut
without its last chunk, a refused one is a port that nobody listens on, and after an exchange that the
client closed the server goes silent until the client goes (`server.calls[0].client_gone`).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.loopback import Call, LoopbackServer

DATA = Path(__file__).parent / "data" / "ollama"

_FRAMING = ("transfer-encoding", "content-length")


def names() -> list[str]:
    """All recordings, sorted, without `.json`."""
    return sorted(path.stem for path in DATA.glob("*.json"))


@cache
def recording(name: str) -> dict[str, Any]:
    """One exchange as recorded; README.md beside the data explains the fields. Don't change it."""
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


def body(name: str) -> str:
    """The whole recorded answer as text."""
    return "".join(chunk["body"] for chunk in recording(name)["response"]["chunks"])


def lines(name: str) -> list[Any]:
    """The recorded answer as JSON values: one for a plain answer, one a line for an NDJSON stream."""
    return [json.loads(line) for line in body(name).splitlines() if line.strip()]


class ReplayServer(LoopbackServer):
    """Serves one recording, as often as it is asked; a recording with several `results` is not one answer.

    `elsewhere` names other recordings for some paths, where one call of ours needs several.
    """

    def __init__(self, name: str, speed: float = 0.0, elsewhere: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._speed = speed
        self._response = recording(name)["response"]
        self._elsewhere = elsewhere or {}
        self._refusing: socket.socket | None = None

    def start(self) -> None:
        if "ConnectionRefused" not in self._response.get("transport_error", ""):
            return super().start()
        # Bound but not listening: connections are refused, and nobody else can get the port meanwhile.
        self._refusing = socket.socket()
        self._refusing.bind(("127.0.0.1", 0))
        self._port = self._refusing.getsockname()[1]
        return None

    def stop(self) -> None:
        if self._refusing is not None:
            self._refusing.close()
        super().stop()

    def answer(self, call: Call) -> None:
        began = time.monotonic()
        other = self._elsewhere.get(call.path)
        response = recording(other)["response"] if other else self._response
        headers = {k: v for k, v in response["headers"].items() if k not in _FRAMING}
        chunks = [(chunk["ms"], chunk["body"].encode()) for chunk in response["chunks"]]

        def wait_until(ms: float) -> None:
            # From the start and not from chunk to chunk, or small delays would add up.
            at = began + ms / 1000 / self._speed if self._speed else began
            call.wait(at - time.monotonic())

        wait_until(chunks[0][0] if chunks else response["end_ms"])
        if response["headers"].get("transfer-encoding") != "chunked":
            # Some bodies were shortened after recording, so the length is counted anew.
            return call.send(response["status"], b"".join(data for _, data in chunks), headers)
        call.start(response["status"], headers)
        for ms, data in chunks:
            wait_until(ms)
            call.chunk(data)
        if response.get("client_closed"):
            call.hang()
        wait_until(response["end_ms"])
        return call.cut() if "transport_error" in response else call.end()
