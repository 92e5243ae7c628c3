"""One row per figure, and the table that all benchmarks print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and what it is compared with.

    Attributes:
        figure: with its unit ("131 tokens/s").
        peer: the floor or peer that was measured beside it, with its unit; "" without one.
        ratio: figure / peer; where pairs were measured in turn, the median of their ratios.
        target: the least ratio ("at least 0.97") or other aim; "" without one.
    """

    name: str
    figure: str
    peer: str = ""
    ratio: float | None = None
    target: str = ""


def show(rows: Sequence[Row]) -> str:
    """The rows as a text table with aligned columns."""
    cells = [("name", "figure", "floor or peer", "ratio", "target")]
    cells += [
        (row.name, row.figure, row.peer, "" if row.ratio is None else f"{row.ratio:.3g}", row.target)
        for row in rows
    ]
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(cells[0]))]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(cell, widths, strict=True)).rstrip()
        for cell in cells
    )
