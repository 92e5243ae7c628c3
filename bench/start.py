"""From the command to the first painted page in Chromium, and the memory of the server then.

The peer is what Streamlit alone needs for a page with one line on it. Ours starts with an empty
database, so that it also creates the tables and the sample use case.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

from bench.servers import Server, Stock, memory_mb
from bench.table import Row
from tests.find_browser import FLAGS, find
from tests.serving import PASSWORD

TIMES = 3
HELLO = "import streamlit as st\n\nst.title('Hello')\n"


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the command to the first page and to the first page of the app behind it; MB."""

    first_s: float
    app_s: float
    memory: float


def run() -> list[Row]:
    ours: list[Start] = []
    hello: list[Start] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=find(), args=FLAGS)
        for number in range(TIMES):
            place = Path(folder) / str(number)
            place.mkdir()
            ours.append(_ours(browser, place))
            hello.append(_hello(browser, place))
        browser.close()
    alone = median(start.app_s for start in hello)
    form, page = median(start.first_s for start in ours), median(start.app_s for start in ours)
    memory, memory_alone = median(start.memory for start in ours), median(start.memory for start in hello)
    peer = f"Streamlit with one line {alone:.1f} s"
    return [
        Row("start to the login form painted", f"{form:.1f} s", peer, [form / alone]),
        Row("start to the first admin page painted", f"{page:.1f} s", peer, [page / alone]),
        Row(
            "memory after the start",
            f"{memory:.0f} MB",
            f"Streamlit with one line {memory_alone:.0f} MB",
            [memory / memory_alone],
        ),
    ]


def _ours(browser: Browser, folder: Path) -> Start:
    server, context = Server(folder / "slam.db"), browser.new_context()
    page = context.new_page()
    begun = time.perf_counter()
    try:
        server.start()
        page.goto(server.url)
        password = page.get_by_label("Admin password")
        password.wait_for()
        first_s = time.perf_counter() - begun
        password.fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Can a small model").wait_for()
        return Start(first_s, time.perf_counter() - begun, memory_mb(server))
    finally:
        context.close()
        server.stop()


def _hello(browser: Browser, folder: Path) -> Start:
    script = folder / "hello.py"
    script.write_text(HELLO)
    server, context = Stock(folder / "unused.db", script), browser.new_context()
    page = context.new_page()
    begun = time.perf_counter()
    try:
        server.start()
        page.goto(server.url)
        page.get_by_role("heading", name="Hello").wait_for()
        shown_s = time.perf_counter() - begun
        return Start(shown_s, shown_s, memory_mb(server))
    finally:
        context.close()
        server.stop()
