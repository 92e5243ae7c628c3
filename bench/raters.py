"""Rating screens per second, beside the same pages under stock Streamlit; and fifty raters at once."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from bench.sample import Prepared, planned_value, prepare, wrong_ratings
from bench.servers import ROOT, Server, Stock, memory_mb
from bench.tab import PageBroke, Shown, Tab
from bench.table import Row

SCREENS = 10
RATERS = 8
ROUNDS = 3
ROUND_S = 10.0
CROWD = 50


@dataclass(slots=True)
class Load:
    """Raters who never think, one set after the other, at one server.

    Attributes:
        screens_s: seconds of each finished screen, from the click to the next screen's end.
    """

    server: Server
    study: Prepared
    screens_s: list[float] = field(default_factory=list)
    sets: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def rate(self, raters: int, seconds: float | None = None) -> float:
        """Screens per second of so many raters at once, for that long or for one set each."""
        before, begun = len(self.screens_s), time.perf_counter()
        until = None if seconds is None else begun + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(raters):
                group.create_task(self._rater(until))
        return (len(self.screens_s) - before) / (time.perf_counter() - begun)

    async def _rater(self, until: float | None) -> None:
        while await self._one_set(until) and until:
            pass

    async def _one_set(self, until: float | None) -> bool:
        """Open the link, press Start, rate to the end. False when time was up before that."""
        query = f"s={self.study.token}&rater=bench-{next(self._numbers)}"
        async with Tab(self.server.url, "rate", query) as tab:
            shown = await tab.open()
            shown = await tab.press(_button(shown, "Start"), {})
            while "Thank you" not in shown.headings:
                if until and time.perf_counter() > until:
                    return False
                begun = time.perf_counter()
                shown = await self._one_screen(tab, shown)
                self.screens_s.append(time.perf_counter() - begun)
        self.sets += 1
        return True

    async def _one_screen(self, tab: Tab, shown: Shown) -> Shown:
        chosen = {radio.id: radio.options[planned_value(text)] for text, radio in shown.radios}
        return await tab.press(_button(shown, "Save"), chosen)


def _button(shown: Shown, label: str) -> str:
    """The id of the button whose label starts so. Raises PageBroke."""
    for text, widget in shown.buttons.items():
        if text.startswith(label):
            return widget
    raise PageBroke(f"There is no button {label!r} here: {shown.texts[-1:] or shown.headings}")


def speed() -> list[Row]:
    """Ours and stock Streamlit in turn, the same study in both."""
    with tempfile.TemporaryDirectory() as folder, _two_cores():
        loads = []
        try:
            for name, kind in (("ours", _ours), ("stock", _stock)):
                study = prepare(Path(folder) / name, raters=2000, screens=SCREENS)
                load = Load(kind(study), study)
                loads.append(load)
                asyncio.run(_warm(load))
            ours, stock = loads
            pairs = []
            for _ in range(ROUNDS):
                pairs.append(
                    (asyncio.run(ours.rate(RATERS, ROUND_S)), asyncio.run(stock.rate(RATERS, ROUND_S)))
                )
        finally:
            for load in loads:
                load.server.stop()
        for load in loads:
            _check(load)
    return [
        Row(
            f"rating, {RATERS} raters at once, 2 cores",
            f"{median(pair[0] for pair in pairs):.1f} screens/s",
            f"stock Streamlit {median(pair[1] for pair in pairs):.1f} screens/s",
            [a / b for a, b in pairs],
            "at least 8",
        )
    ]


def crowd() -> list[Row]:
    """All sets of a study taken at the same moment."""
    with tempfile.TemporaryDirectory() as folder, _two_cores():
        study = prepare(Path(folder), raters=CROWD, screens=SCREENS)
        load = Load(_ours(study), study)
        try:
            before = memory_mb(load.server)
            rate = asyncio.run(load.rate(CROWD))
            after = memory_mb(load.server)
        finally:
            load.server.stop()
        stored = _check(load)
    answers = CROWD * SCREENS * 2
    return [
        Row(
            f"{CROWD} raters at once",
            f"{load.sets} sets, {stored} ratings, 0 wrong",
            f"planned {CROWD} sets, {answers} ratings",
            [stored / answers],
            "exactly 1",
        ),
        Row(f"{CROWD} raters at once, speed", f"{rate:.1f} screens/s"),
        Row(f"{CROWD} raters at once, a screen, median", f"{median(load.screens_s):.2f} s"),
        Row(f"{CROWD} raters at once, a screen, p95", f"{quantiles(load.screens_s, n=20)[-1]:.2f} s"),
        Row(
            f"memory after {CROWD} raters",
            f"{after:.0f} MB",
            f"after the start {before:.0f} MB",
            [after / before],
        ),
    ]


def _ours(study: Prepared) -> Server:
    return Server(study.db).start()


def _stock(study: Prepared) -> Server:
    return Stock(study.db, ROOT / "slam_app" / "main.py").start()


async def _warm(load: Load) -> None:
    """One finished set, then the admin's Results with its chart and Models: a server in real use has
    pandas and plotly in its memory, whose objects are what stock Streamlit's collector walks."""
    await load.rate(1)
    for page in ("results", "models"):
        async with Tab(load.server.url, page, cookie=load.study.cookie) as tab:
            await tab.open()


def _check(load: Load) -> int:
    """Ratings stored; all as planned. Raises AssertionError."""
    stored, wrong = wrong_ratings(load.study)
    assert not wrong, f"{wrong} of {stored} ratings are not what their rater gave"
    assert stored >= 2 * len(load.screens_s), f"{stored} ratings for {len(load.screens_s)} screens"
    return stored


@contextmanager
def _two_cores() -> Iterator[None]:
    """This process and the servers that it starts on two cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
