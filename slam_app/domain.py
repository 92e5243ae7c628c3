"""The words of the app as frozen dataclasses, shared by all packages. Units: seconds, tokens, bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class ConnectionKind(StrEnum):
    EMBEDDED = "embedded"
    OLLAMA = "ollama"
    OPENAI = "openai"


class Think(StrEnum):
    """How much a thinking model may think; DEFAULT leaves it to the server (usually on)."""

    DEFAULT = "default"
    OFF = "off"
    ON = "on"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    MAX = "max"


class ResponseStatus(StrEnum):
    PENDING = "pending"
    OK = "ok"
    ERROR = "error"


class FinishReason(StrEnum):
    STOP = "stop"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"
    OTHER = "other"


class JobKind(StrEnum):
    GENERATE = "generate"
    PULL = "pull"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (JobStatus.DONE, JobStatus.CANCELLED, JobStatus.FAILED)


class StudyStatus(StrEnum):
    DRAFT = "draft"
    OPEN = "open"
    CLOSED = "closed"


class SlotStatus(StrEnum):
    OPEN = "open"
    CLAIMED = "claimed"
    COMPLETE = "complete"


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
class Connection:
    """A model server. `api_key_env` is the NAME of the environment variable that holds its key."""

    id: int
    name: str
    kind: ConnectionKind
    base_url: str = ""
    api_key_env: str = ""
    concurrency: int = 1
    timeout_s: float = 300.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a server says about one of its models; None where it does not say.

    `memory_bytes` and `vram_bytes` are those in use while loaded; `kept_until` is None when not
    loaded or kept for ever. `path` is the weights file of an embedded model.
    """

    name: str
    digest: str = ""
    family: str = ""
    parameters_b: float | None = None
    quantization: str = ""
    size_bytes: int | None = None
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    loaded: bool = False
    memory_bytes: int | None = None
    vram_bytes: int | None = None
    loaded_context: int | None = None
    kept_until: datetime | None = None
    path: str = ""

    @property
    def can_think(self) -> bool:
        return "thinking" in self.capabilities

    @property
    def can_chat(self) -> bool:
        """Embedding models can't; a server that does not list capabilities gets the benefit of the doubt."""
        return not self.capabilities or "completion" in self.capabilities


@dataclass(frozen=True, slots=True)
class Model:
    """A model on a connection, as last seen."""

    id: int
    connection_id: int
    connection: str
    kind: ConnectionKind
    info: ModelInfo
    seen_at: str = ""

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def label(self) -> str:
        return f"{self.info.name} · {self.connection}"


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


@dataclass(frozen=True, slots=True)
class PullProgress:
    """One step of fetching a model; bytes of all layers together as far as known.

    `idle_s` counts the seconds since bytes last moved.
    """

    status: str
    completed_bytes: int = 0
    total_bytes: int | None = None
    idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class UseCase:
    id: int
    name: str
    description: str
    incumbent_model_id: int | None = None


@dataclass(frozen=True, slots=True)
class Template:
    id: int
    use_case_id: int
    version: int
    body: str
    used: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    id: int
    use_case_id: int
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    id: int
    use_case_id: int
    use_case: str
    template_version: int
    samples: int
    params: SamplingParams
    created_at: str
    counts: Mapping[ResponseStatus, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def label(self) -> str:
        return f"Run {self.id} · {self.use_case} · v{self.template_version} · {self.created_at[:16]}"


@dataclass(frozen=True, slots=True)
class PendingResponse:
    """One planned call of a run, with all that is needed to make it."""

    id: int
    run_id: int
    connection_id: int
    model_id: int
    model: str
    digest: str
    can_think: bool
    prompt: str
    sample: int
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Job:
    id: int
    kind: JobKind
    lane: str
    payload: Mapping[str, Any]
    status: JobStatus
    cancel_requested: bool
    progress: Mapping[str, Any]
    message: str
    fence: int
    created_at: str
    started_at: str | None
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class Study:
    """As the admin sees it. `slots` counts sets by status; `link_version` grows with each new link."""

    id: int
    run_id: int
    use_case_id: int
    name: str
    status: StudyStatus
    raters: int
    items_per_rater: int
    scale_max: int
    completion_code: str
    link_version: int
    protocol_hash: str
    created_at: str
    launched_at: str | None
    slots: Mapping[SlotStatus, int]


@dataclass(frozen=True, slots=True)
class Screen:
    """One item to plan: one answer of each model to the same case, by response id."""

    case_id: int
    sample: int
    response_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RaterStudy:
    """A study as its raters may see it: no study name, no run, no model."""

    id: int
    status: StudyStatus
    title: str
    description: str
    scale_max: int
    items: int


@dataclass(frozen=True, slots=True)
class RaterSlot:
    id: int
    status: SlotStatus
    items: int
    finished: int


@dataclass(frozen=True, slots=True)
class RaterItem:
    """One screen: the texts in the order shown, and the values given so far (None where none is)."""

    position: int
    prompt: str
    texts: tuple[str, ...]
    values: tuple[int | None, ...]
