"""The words of the app as frozen dataclasses, shared by all packages. Units: seconds, tokens, bytes."""

from slam_app.domain.calls import (
    ChatRequest,
    ChatResult,
    FinishReason,
    SamplingParams,
    ServerTimings,
    Think,
)
from slam_app.domain.models import (
    Connection,
    ConnectionKind,
    Model,
    ModelInfo,
    PullProgress,
)
from slam_app.domain.runs import (
    Case,
    Job,
    JobKind,
    JobStatus,
    PendingResponse,
    ResponseStatus,
    Run,
    Template,
    UseCase,
)
from slam_app.domain.studies import (
    RaterItem,
    RaterSlot,
    RaterStudy,
    Screen,
    SlotStatus,
    Study,
    StudyStatus,
)

__all__ = [
    "Case",
    "ChatRequest",
    "ChatResult",
    "Connection",
    "ConnectionKind",
    "FinishReason",
    "Job",
    "JobKind",
    "JobStatus",
    "Model",
    "ModelInfo",
    "PendingResponse",
    "PullProgress",
    "RaterItem",
    "RaterSlot",
    "RaterStudy",
    "ResponseStatus",
    "Run",
    "SamplingParams",
    "Screen",
    "ServerTimings",
    "SlotStatus",
    "Study",
    "StudyStatus",
    "Template",
    "Think",
    "UseCase",
]
