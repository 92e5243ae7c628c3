"""The ways in which the wire-level Ollama daemon can be told to break."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.loopback import Call


class Fault(StrEnum):
    # Instead of an answer:
    MODEL_MISSING = "404, the model is not there"
    BUSY = "503, too many requests wait"
    SERVER_ERROR = "500, the model does not fit into memory"
    REFUSED = "403 with an empty body, as for a foreign host name"
    REDIRECT = "307 to another address"
    NO_ANSWER = "silence from the start"
    NOT_JSON = "200 with a web page, as a wrong server gives"
    # In mid-stream:
    RUNNER_DIES = "an error line behind a 200"
    CUT = "the connection breaks"
    ENDS_EARLY = "a proper end of the stream, but no done"
    HANG = "silence after some lines"
    BAD_JSON = "a line that is not JSON"
    HUGE = "text without end"
    STALL = "the last line again and again, then an error: a download that does not move"


@dataclass(frozen=True)
class Injected:
    kind: Fault
    path: str
    after: int


_STALL_LINES = 100
_STALL_PAUSE_S = 0.06
_JSON = {"content-type": "application/json; charset=utf-8"}


def refuse(call: Call, fault: Injected) -> bool:
    """Answer with the fault if it comes in place of an answer; False if it comes later."""
    match fault.kind:
        case Fault.MODEL_MISSING:
            call.send(404, json.dumps({"error": f"model '{call.json['model']}' not found"}).encode(), _JSON)
        case Fault.BUSY:
            text = "server busy, please try again.  maximum pending requests exceeded"
            call.send(503, json.dumps({"error": text}).encode(), _JSON)
        case Fault.SERVER_ERROR:
            text = "model requires more system memory (19.0 GiB) than is available (7.1 GiB)"
            call.send(500, json.dumps({"error": text}).encode(), _JSON)
        case Fault.REFUSED:
            call.send(403)
        case Fault.REDIRECT:
            call.send(307, b"", {"location": f"http://{call.headers['host']}/elsewhere"})
        case Fault.NO_ANSWER:
            call.hang()
        case Fault.NOT_JSON:
            call.send(200, b"<html><body>Welcome</body></html>", {"content-type": "text/html"})
        case _:
            return False
    return True


def break_stream(call: Call, fault: Injected, last: Mapping[str, Any]) -> None:
    """End a stream in the way of the fault; `last` is the last line that was sent."""
    line = json.dumps(last).encode() + b"\n"
    match fault.kind:
        case Fault.RUNNER_DIES:
            text = "an error was encountered while running the model: unexpected EOF"
            call.chunk(json.dumps({"error": text}).encode() + b"\n")
            call.end()
        case Fault.CUT:
            call.cut()
        case Fault.ENDS_EARLY:
            call.end()
        case Fault.HANG:
            call.hang()
        case Fault.BAD_JSON:
            call.chunk(b'{"model":"smollm2:135m","message":{"role":"assist\n')
            call.end()
        case Fault.HUGE:
            long = {**last, "message": {"role": "assistant", "content": "again and again " * 4096}}
            line = json.dumps(long).encode() + b"\n"
            while True:
                call.chunk(line)
        case Fault.STALL:
            for _ in range(_STALL_LINES):
                call.chunk(line)
                call.wait(_STALL_PAUSE_S)
            text = 'max retries exceeded: Get "http://registry": dial tcp: connect: connection refused'
            call.chunk(json.dumps({"error": text}).encode() + b"\n")
            call.end()
        case _:
            raise AssertionError(f"{fault.kind} does not happen in mid-stream")
