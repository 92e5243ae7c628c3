"""One streamed answer of Ollama: its parts put together, with what they say about time and tokens."""

from __future__ import annotations

import time

from slam_app.domain import ChatRequest, ChatResult, FinishReason, SamplingParams, ServerTimings
from slam_app.errors import AnswerTooLong, PromptTooLong
from slam_app.providers.base import MAX_ANSWER_CHARS, require_answer
from slam_app.providers.ollama_client import ChatPart


class Answer:
    """Gathers the parts of one answer and the times of their arrival."""

    def __init__(self, request: ChatRequest) -> None:
        self._params = request.params
        self._sent = time.perf_counter_ns()
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._chars = 0
        self._first: int | None = None
        self._first_text: int | None = None
        self._last: int | None = None
        self._end: ChatPart | None = None
        self._model = ""

    @property
    def begun(self) -> bool:
        return self._first is not None or self._end is not None

    def add(self, arrived: int, part: ChatPart) -> None:
        """Raises AnswerTooLong; thinking counts, since it fills the disk as well."""
        text, thinking = part.message.content or "", part.message.thinking or ""
        self._model = part.model or self._model
        if part.done:
            self._end = part
        if not text and not thinking:
            return
        self._first = self._first or arrived
        self._last = arrived
        if text:
            self._first_text = self._first_text or arrived
        room = MAX_ANSWER_CHARS - self._chars
        self._chars += len(text) + len(thinking)
        self._thinking.append(thinking[:room])
        self._text.append(text[: max(0, room - len(thinking))])
        if self._chars > MAX_ANSWER_CHARS:
            raise AnswerTooLong(
                f"The answer passed {MAX_ANSWER_CHARS:,} characters and was stopped. Lower max tokens, or "
                "see whether the model repeats itself."
            )

    def finished(self) -> ChatResult:
        """The answer after its last part.

        Raises:
            PromptTooLong: the daemon cut the prompt to the size of the context, although asked not to.
            EmptyAnswer: there is no answer text in it.
        """
        result = self.result()
        if (result.prompt_tokens or 0) >= self._params.num_ctx:
            raise PromptTooLong(
                "The prompt does not fit into the context of the model, and Ollama cut it in silence. Raise "
                "the context (num_ctx) or shorten the prompt, and update Ollama."
            )
        return require_answer(result)

    def result(self) -> ChatResult:
        """What has arrived so far."""
        end = self._end
        return ChatResult(
            text="".join(self._text),
            thinking="".join(self._thinking),
            finish_reason=_finish_reason(end, self._params) if end else FinishReason.OTHER,
            prompt_tokens=end.prompt_eval_count if end else None,
            output_tokens=end.eval_count if end else None,
            cached_tokens=end.prompt_eval_cached_count if end else None,
            timings=_timings(end) if end else ServerTimings(),
            ttft_s=self._since_sent(self._first),
            ttfa_s=self._since_sent(self._first_text),
            e2e_s=self._since_sent(self._last),
            server_model=self._model,
        )

    def _since_sent(self, at: int | None) -> float | None:
        return None if at is None else (at - self._sent) / 1e9


def _finish_reason(end: ChatPart, params: SamplingParams) -> FinishReason:
    """`length` says only that a limit was hit; the counts tell which.

    Fewer tokens than asked for mean a full context also when num_ctx had room left: the daemon makes it no
    larger than what the model was trained for, and says so only in /api/ps.
    """
    if end.done_reason == "stop":
        return FinishReason.STOP
    if end.done_reason != "length":
        return FinishReason.OTHER
    used = (end.prompt_eval_count or 0) + (end.eval_count or 0)
    ended_early = end.eval_count is not None and end.eval_count < params.max_tokens
    if used >= params.num_ctx or ended_early or params.max_tokens < 0:
        return FinishReason.CONTEXT_FULL
    return FinishReason.MAX_TOKENS


def _timings(end: ChatPart) -> ServerTimings:
    def seconds(nanoseconds: int | None) -> float | None:
        return None if nanoseconds is None else nanoseconds / 1e9

    return ServerTimings(
        total_s=seconds(end.total_duration),
        load_s=seconds(end.load_duration),
        prompt_s=seconds(end.prompt_eval_duration),
        decode_s=seconds(end.eval_duration),
    )
