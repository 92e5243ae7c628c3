"""One row per figure, and the table that all benchmarks print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and what it is compared with.

    Attributes:
        figure: with its unit ("131 tokens/s").
        peer: the floor or peer that was measured beside it, with its unit; "" without one.
        ratios: figure / peer, one for each pair that was measured in turn; the table shows their
            median, and how far apart they are.
        target: what the ratio should be ("at least 0.97"); "" without one.
    """

    name: str
    figure: str
    peer: str = ""
    ratios: Sequence[float] = ()
    target: str = ""


def show(rows: Sequence[Row]) -> str:
    """The rows as a text table with aligned columns."""
    cells: list[tuple[str, ...]] = [("name", "figure", "floor or peer", "ratio", "target")]
    cells += [(row.name, row.figure, row.peer, _ratio(row.ratios), row.target) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(cells[0]))]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(cell, widths, strict=True)).rstrip()
        for cell in cells
    )


def _ratio(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    spread = f" ({min(ratios):.3g} to {max(ratios):.3g})" if len(ratios) > 1 else ""
    return f"{median(ratios):.3g}{spread}"
