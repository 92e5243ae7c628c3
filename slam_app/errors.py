"""Every error of the app. The message is shown to people: what happened, then what to do next.

SlamError
├── ConfigError              a setting is missing or can't be used
├── StoreError
│   ├── DatabaseInUse        another process runs this database
│   ├── DatabaseFull         the disk (or the file's size limit) is full
│   └── DatabaseUnusable     not a SLaM database, damaged, or not writable
├── InputError               what a person typed or uploaded can't be used
│   ├── TemplateError        the prompt template is broken or lacks a value
│   ├── CasesError           rows of an upload are wrong; holds one message a row
│   └── NotFound             no such use case, run, study ...
├── RatingError              shown to a rater, in a rater's words
│   ├── LinkUnknown          the link names no study
│   ├── StudyNotOpen         not launched yet, paused or closed
│   ├── NoSlotLeft           every set is taken
│   └── SlotLost             the set was given to somebody else
└── ProviderError            a model server did not give a usable answer
    ├── Unreachable          nobody answers at the address
    ├── TimedOut             connected, then silence for too long
    ├── Refused              401 / 403: key, host name or origin not accepted
    ├── ModelMissing         the server does not have this model
    ├── ServerBusy           429 / 503: try again later
    ├── BadRequest           the server does not accept what was asked
    │   └── PromptTooLong    the prompt does not fit into the context
    ├── ServerFailed         the server or its model process broke
    ├── StreamCut            the stream ended before the answer did
    ├── BadReply             what came back is not the protocol
    ├── AnswerTooLong        the answer passed the size limit
    ├── EmptyAnswer          no answer text: everything went into thinking, or nothing came
    ├── PullFailed           a model could not be fetched
    └── Unsupported          this kind of connection can't do that
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slam_app.domain import ChatResult


class SlamError(Exception):
    """Base of all errors whose message is meant for a person."""


class ConfigError(SlamError):
    pass


class StoreError(SlamError):
    pass


class DatabaseInUse(StoreError):
    pass


class DatabaseFull(StoreError):
    pass


class DatabaseUnusable(StoreError):
    pass


class InputError(SlamError):
    pass


class TemplateError(InputError):
    pass


class CasesError(InputError):
    """Rows of an upload that can't be used. `problems` has one message a row; nothing was imported."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        shown = "\n".join(f"- {p}" for p in self.problems[:20])
        more = len(self.problems) - 20
        super().__init__(
            "Nothing was imported. Mend these and upload again:\n"
            + shown
            + (f"\n- and {more} more" if more > 0 else "")
        )


class NotFound(InputError):
    pass


class RatingError(SlamError):
    pass


class LinkUnknown(RatingError):
    pass


class StudyNotOpen(RatingError):
    pass


class NoSlotLeft(RatingError):
    pass


class SlotLost(RatingError):
    pass


class ProviderError(SlamError):
    """A call to a model server failed.

    Attributes:
        partial: what had arrived before the failure (text, tokens, timings), if anything.
        retry_after_s: seconds the server asked to wait, if it said so.
        retryable: whether the same call may succeed a little later.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        partial: ChatResult | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.retry_after_s = retry_after_s


class Unreachable(ProviderError):
    retryable = True


class TimedOut(ProviderError):
    pass


class Refused(ProviderError):
    pass


class ModelMissing(ProviderError):
    pass


class ServerBusy(ProviderError):
    retryable = True


class BadRequest(ProviderError):
    pass


class PromptTooLong(BadRequest):
    pass


class ServerFailed(ProviderError):
    retryable = True


class StreamCut(ProviderError):
    retryable = True


class BadReply(ProviderError):
    pass


class AnswerTooLong(ProviderError):
    pass


class EmptyAnswer(ProviderError):
    pass


class PullFailed(ProviderError):
    pass


class Unsupported(ProviderError):
    pass
