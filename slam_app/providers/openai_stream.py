"""Puts the chunks of one OpenAI-compatible stream together and stamps when they came."""

from __future__ import annotations

from typing import Any

from slam_app.domain import ChatResult, FinishReason, ServerTimings
from slam_app.errors import AnswerTooLong, BadReply
from slam_app.providers.base import MAX_ANSWER_CHARS


class Collector:
    """One answer as it grows.

    Args:
        sent_ns: `time.perf_counter_ns()` when the request went out.
        context: tokens of the context, where it is known: with it a full context is told from max tokens.
        dropped: options that the model refused, see `ChatResult`.
    """

    def __init__(self, sent_ns: int, context: int | None, dropped: tuple[str, ...] = ()) -> None:
        self.finished = False
        self.model = ""
        self.chunks = 0
        self.request_id = ""
        self._sent_ns = sent_ns
        self._context = context
        self._dropped = dropped
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._chars = 0
        self._reason = ""
        self._usage: Any = None
        self._timings: dict[str, Any] = {}
        self._first: float | None = None
        self._first_answer: float | None = None
        self._last: float | None = None

    def add(self, chunk: Any, now_ns: int) -> None:
        """Take one parsed chunk, received at `now_ns`.

        The client does not check what it parsed, so any field may be of any type.

        Raises:
            AnswerTooLong: more than MAX_ANSWER_CHARS have come.
            BadReply: the chunk is not what the protocol says.
        """
        try:
            self._add(chunk, (now_ns - self._sent_ns) / 1e9)
        except (AttributeError, TypeError, IndexError, KeyError) as error:
            raise BadReply(
                "The server sent a chunk that does not follow the OpenAI protocol. "
                "Check that the address is that of an OpenAI-compatible API.",
                partial=self.result(),
            ) from error

    def result(self) -> ChatResult:
        """All that has come so far."""
        usage, timings = self._usage, self._timings
        prompt = _count(getattr(usage, "prompt_tokens", None))
        output = _count(getattr(usage, "completion_tokens", None))
        cached = _count(getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None))
        reasoning = _count(
            getattr(getattr(usage, "completion_tokens_details", None), "reasoning_tokens", None)
        )
        if timings:
            cache_n, prompt_n = _count(timings.get("cache_n")), _count(timings.get("prompt_n"))
            cached = cached if cached is not None else cache_n
            output = output if output is not None else _count(timings.get("predicted_n"))
            if prompt is None and prompt_n is not None:
                prompt = prompt_n + (cache_n or 0)
        return ChatResult(
            text="".join(self._text),
            thinking="".join(self._thinking),
            finish_reason=self._finish_reason(prompt, output),
            prompt_tokens=prompt,
            output_tokens=output,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
            timings=ServerTimings(
                prompt_s=_seconds(timings.get("prompt_ms")), decode_s=_seconds(timings.get("predicted_ms"))
            ),
            ttft_s=self._first,
            ttfa_s=self._first_answer,
            e2e_s=self._last,
            server_model=self.model,
            request_id=self.request_id,
            dropped=self._dropped,
        )

    def _add(self, chunk: Any, at: float) -> None:
        self.chunks += 1
        self.model = self.model or _text(chunk.model)
        if not self.request_id:
            self.request_id = _text(chunk.id)
        self._usage = chunk.usage or self._usage
        timings = (chunk.model_extra or {}).get("timings")  # llama.cpp's server
        self._timings = timings if isinstance(timings, dict) else self._timings
        if not chunk.choices:  # the last chunk of a stream with usage has none
            return
        choice = chunk.choices[0]
        if choice.finish_reason:
            self.finished = True
            self._reason = _text(choice.finish_reason)
        delta = choice.delta
        if delta is None:
            return
        extra = delta.model_extra or {}
        thought = _text(extra.get("reasoning")) or _text(extra.get("reasoning_content"))
        # A refusal is the model's answer too; structured output puts it into a field of its own.
        answer = _text(delta.content) or _text(delta.refusal)
        if thought or answer:
            self._first = at if self._first is None else self._first
            self._last = at
            self._keep(self._thinking, thought)
        if answer:
            self._first_answer = at if self._first_answer is None else self._first_answer
            self._keep(self._text, answer)

    def _keep(self, parts: list[str], text: str) -> None:
        parts.append(text[: MAX_ANSWER_CHARS - self._chars])
        self._chars += len(text)
        if self._chars > MAX_ANSWER_CHARS:
            raise AnswerTooLong(
                f"The answer passed {MAX_ANSWER_CHARS:,} characters and was stopped. "
                "Lower max tokens, or check the model: it may be repeating itself.",
                partial=self.result(),
            )

    def _finish_reason(self, prompt: int | None, output: int | None) -> FinishReason:
        if self._reason == "stop":
            return FinishReason.STOP
        if self._reason != "length":
            return FinishReason.OTHER
        if self._context and prompt is not None and output is not None and prompt + output >= self._context:
            return FinishReason.CONTEXT_FULL
        return FinishReason.MAX_TOKENS


def _text(value: Any) -> str:
    """`value`, where None means nothing. TypeError for what is not text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _seconds(milliseconds: Any) -> float | None:
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool) and milliseconds >= 0:
        return milliseconds / 1000
    return None
