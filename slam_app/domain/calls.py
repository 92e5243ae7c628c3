"""One call of a model: what is asked and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Think(StrEnum):
    """How much a thinking model may think; DEFAULT leaves it to the server (usually on)."""

    DEFAULT = "default"
    OFF = "off"
    ON = "on"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    MAX = "max"


class FinishReason(StrEnum):
    STOP = "stop"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """All options of a call. Every one is sent with each request, so that a server's defaults never matter.

    `num_ctx` is the context in tokens, `max_tokens` the limit of the answer (thinking included).
    `seed` is the base seed of a run; sample k uses seed + k.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 40
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int = 1
    max_tokens: int = 512
    num_ctx: int = 4096
    think: Think = Think.DEFAULT

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "think": str(self.think)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingParams:
        return cls(**{**values, "think": Think(values.get("think", Think.DEFAULT))})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call: a single user message. `json_schema` asks for structured output."""

    model: str
    prompt: str
    params: SamplingParams
    json_schema: Mapping[str, Any] | None = None
    keep_alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class ServerTimings:
    """What the server says of its own time, in seconds; None where it says nothing.

    `prompt_s` covers uncached prompt tokens only. `total_s - load_s - prompt_s - decode_s` is the
    wait for a free place plus overhead.
    """

    total_s: float | None = None
    load_s: float | None = None
    prompt_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True, slots=True)
class ChatResult:
    """One finished call. Times by our own monotonic clock, in seconds from the send.

    `ttft_s`: first non-empty thinking or content chunk. `ttfa_s`: first content chunk.
    `e2e_s`: last chunk that carried text. `output_tokens` contains `reasoning_tokens`.
    `dropped`: options, by the names of `SamplingParams`, that the model refused; it answered without them.
    """

    text: str
    thinking: str = ""
    finish_reason: FinishReason = FinishReason.OTHER
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    timings: ServerTimings = field(default_factory=ServerTimings)
    ttft_s: float | None = None
    ttfa_s: float | None = None
    e2e_s: float | None = None
    server_model: str = ""
    request_id: str = ""
    dropped: tuple[str, ...] = ()
