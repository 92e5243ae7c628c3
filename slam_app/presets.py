"""Models to start from: those of the paper, and current small ones. The rows are in data/presets.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PAPER_NOTE = (
    "As printed in the paper's table of models, where the text speaks of 29 and the table has 28. Some "
    "cells look wrong and are kept: a 3-bit Starling and a Vicuna with 3 billion parameters instead of "
    "7, that Vicuna with 4 bits instead of 3, and two names ending in q2_K_L that are probably q3_K_L."
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A model to pull by `name`.

    `bits` per weight of the usual file, `params_b` in billions, `size_gb` of the download (10^9 bytes),
    `memory_mb` in use while loaded as the paper measured it, `good_for` one line for people.
    """

    name: str
    bits: int
    params_b: float
    size_gb: float
    memory_mb: int | None = None
    good_for: str = ""


def paper_models() -> tuple[Preset, ...]:
    """The 28 rows of "Scaling Down to Scale Up" (2024), in its order. Show PAPER_NOTE beside them."""
    return _rows()["paper"]


def current_models() -> tuple[Preset, ...]:
    """Small open models in the Ollama library, smallest first. Sizes are approximate: tags are updated."""
    return _rows()["ollama"]


def hub_models() -> tuple[Preset, ...]:
    """Instruct models for the embedded engine, smallest first, named `owner/repo:file.gguf` on the hub."""
    return _rows()["hub"]


@cache
def _rows() -> dict[str, tuple[Preset, ...]]:
    lists: dict[str, tuple[Preset, ...]] = {}
    text = files("slam_app").joinpath("data/presets.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        preset = Preset(
            name=row["name"],
            bits=int(row["bits"]),
            params_b=float(row["params_b"]),
            size_gb=float(row["size_gb"]),
            memory_mb=int(row["memory_mb"]) if row["memory_mb"] else None,
            good_for=row["good_for"],
        )
        lists[row["source"]] = (*lists.get(row["source"], ()), preset)
    return lists
