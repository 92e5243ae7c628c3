"""Connections and the models on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ConnectionKind(StrEnum):
    EMBEDDED = "embedded"
    OLLAMA = "ollama"
    OPENAI = "openai"


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
    def may_think(self) -> bool:
        """Whether think levels are offered and sent: it says that it can, or its server can't say.

        A server that tells neither capabilities nor digests speaks the OpenAI protocol, which has no word
        for thinking; a model there that can't think refuses the level, and is then asked without.
        """
        return self.can_think or not (self.capabilities or self.digest)

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
class PullProgress:
    """One step of fetching a model; bytes of all layers together as far as known."""

    status: str
    completed_bytes: int = 0
    total_bytes: int | None = None
