"""What every kind of model server can do for us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from slam_app.domain import ChatRequest, ChatResult, ModelInfo, PullProgress, SamplingParams
from slam_app.errors import EmptyAnswer

MAX_ANSWER_CHARS = 1_000_000
"""An answer longer than this is an error; a runaway model must not fill the disk."""

QUICK_TIMEOUT_S = 5.0
"""For everything that a page waits for: lists, details, tests of a connection."""


class Provider(Protocol):
    """One connection, opened with `async with providers.connect(connection) as provider`.

    All methods raise subclasses of `ProviderError` and nothing of the client libraries. Cancelling
    the task that awaits a method closes its HTTP connection at once, which stops the server's work.
    """

    manages_models: bool
    """Whether load, unload, pull and delete mean something here."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def version(self) -> str:
        """What answers at this address, for people ("Ollama 0.24.0"). The test of a connection."""

    async def models(self) -> list[ModelInfo]:
        """All models that the server has, each with its `details` as far as the server gives them."""

    async def details(self, name: str) -> ModelInfo:
        """One model with its capabilities, context length and memory in use."""

    async def chat(self, request: ChatRequest) -> ChatResult:
        """Stream one answer to its end. Never retries; a failure carries what had arrived in `partial`."""

    async def load(self, name: str, params: SamplingParams) -> None:
        """Bring a model into memory with exactly the options that the requests will use."""

    async def unload(self, name: str) -> None:
        """Take a model out of memory. No error when it is not loaded."""

    def pull(self, name: str) -> AsyncIterator[PullProgress]:
        """Fetch a model, ending normally only on success. Cancelled, the next pull goes on where it was."""

    async def delete(self, name: str) -> None:
        """Remove a model from the server for good."""


def require_answer(result: ChatResult) -> ChatResult:
    """`result` if it holds an answer; an empty one is never given to a rater.

    Raises:
        EmptyAnswer: no text came; says whether thinking used up all tokens.
    """
    if result.text.strip():
        return result
    if result.thinking.strip():
        raise EmptyAnswer(
            "The model used all its tokens for thinking and gave no answer. "
            "Raise max tokens, or turn thinking off.",
            partial=result,
        )
    raise EmptyAnswer(
        "The model gave an empty answer. Check the prompt, or whether this model is made for chat.",
        partial=result,
    )
