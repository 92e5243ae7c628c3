"""Use cases, the runs made of them, and the jobs that fill runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slam_app.domain.calls import SamplingParams


class ResponseStatus(StrEnum):
    PENDING = "pending"
    OK = "ok"
    ERROR = "error"


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
        when = self.created_at[:16].replace("T", " ")
        return f"Run {self.id} · {self.use_case} · v{self.template_version} · {when} UTC"


@dataclass(frozen=True, slots=True)
class PendingResponse:
    """One planned call of a run, with all that is needed to make it."""

    id: int
    run_id: int
    connection_id: int
    model_id: int
    model: str
    digest: str
    may_think: bool
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
