"""What the wire-level Ollama daemon serves: its models, its texts, and the pieces of its replies."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Complete = Callable[[str, Mapping[str, Any]], str]
_FOREVER_S = 292.27 * 365.2425 * 86400


@dataclass(frozen=True)
class WireModel:
    """A model that the daemon has, or that its registry offers. `layers`: bytes of each part of a pull."""

    name: str = "smollm2:135m"
    capabilities: tuple[str, ...] = ("completion",)
    parameter_size: str = "134.52M"
    quantization: str = "Q4_1"
    context_length: int = 8192
    size: int = 98363007
    layers: tuple[int, ...] = (98362432, 102, 59, 414)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def architecture(self) -> str:
        return "bert" if "embedding" in self.capabilities else "llama"

    @property
    def details(self) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.architecture,
            "families": [self.architecture],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization,
        }


SMOLLM = WireModel()
THINKER = WireModel("smollm2-thinker:135m", ("completion", "thinking"))
EMBEDDER = WireModel("all-minilm:22m", ("embedding",), "22.57M", "F16", 512, 45949702)


@dataclass
class Loaded:
    num_ctx: int
    keep_alive_s: float = 300.0
    until: float = math.inf


def default_complete(prompt: str, params: Mapping[str, Any]) -> str:
    """A short text that depends on prompt and seed only, or the plainest JSON that fits the schema."""
    if "format" in params:
        return json.dumps(example(params["format"]))
    mark = hashlib.sha256(f"{prompt}{params.get('seed', 0)}".encode()).hexdigest()[:6]
    return f"This is answer {mark} to a prompt of {len(prompt.split())} words."


def default_think(prompt: str) -> str:
    return f"The question has {len(prompt.split())} words."


def tokens(text: str) -> list[str]:
    """What the daemon counts and streams: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def part(model: str, message: dict[str, str]) -> dict[str, Any]:
    return {"model": model, "created_at": stamp(), "message": {"role": "assistant", **message}}


def end(reason: str) -> dict[str, Any]:
    return {"done": True, "done_reason": reason}


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A stream as the single object that the daemon gives without streaming."""
    whole = deepcopy(parts[-1])
    for field in ("content", "thinking"):
        text = "".join(part["message"].get(field, "") for part in parts)
        if text or field == "content":
            whole["message"][field] = text
    return whole


def line(part: Mapping[str, Any]) -> bytes:
    # As Go writes it: no escapes for other scripts.
    return json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def stamp(from_now_s: float = 0.0) -> str:
    at = datetime.now(UTC) + timedelta(seconds=min(from_now_s, _FOREVER_S))
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond:06d}000Z"


def seconds(keep_alive: float | str) -> float:
    if isinstance(keep_alive, str):
        number, unit = re.fullmatch(r"(-?[\d.]+)([smh]?)", keep_alive).groups()  # type: ignore[union-attr]
        keep_alive = float(number) * {"": 1, "s": 1, "m": 60, "h": 3600}[unit]
    return _FOREVER_S if keep_alive < 0 else float(keep_alive)


def vector(text: str, size: int = 384) -> list[float]:
    """A unit vector that depends on the words, so that similar texts have similar vectors."""
    sums = [1e-3] * size
    for word in re.findall(r"\w+", text.lower()):
        for byte in hashlib.sha256(word.encode()).digest():
            sums[byte * 7 % size] += 1.0 if byte % 2 else -1.0
    norm = math.sqrt(sum(value * value for value in sums))
    return [value / norm for value in sums]


EXAMPLES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "object": lambda schema: {name: example(part) for name, part in schema.get("properties", {}).items()},
    "array": lambda schema: [example(schema.get("items", {}))] * schema.get("minItems", 1),
    "integer": lambda schema: schema.get("minimum", 0),
    "number": lambda schema: schema.get("minimum", 0.5),
    "string": lambda schema: "text"[: schema.get("maxLength", 4)],
    "boolean": lambda schema: True,
    "null": lambda schema: None,
}


def example(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return {}
    return schema["enum"][0] if "enum" in schema else EXAMPLES[schema.get("type", "object")](schema)
