"""Studies as admins see them, and as raters do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class StudyStatus(StrEnum):
    DRAFT = "draft"
    OPEN = "open"
    CLOSED = "closed"


class SlotStatus(StrEnum):
    OPEN = "open"
    CLAIMED = "claimed"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Study:
    """As the admin sees it. `slots` counts sets by status; `link_version` grows with each new link.

    `incumbent_model_id` is the one at the launch; a draft has none.
    """

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
    incumbent_model_id: int | None
    link_hash: str
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
