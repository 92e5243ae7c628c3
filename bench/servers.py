"""The servers that are measured: ours, and stock Streamlit for comparison."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.serving import ROOT, Server

__all__ = ["ROOT", "Server", "Stock", "memory_mb"]


class Stock(Server):
    """`streamlit run SCRIPT` in a folder without settings: none of ours are in force, and no lifespan.

    Only what a server without a screen needs is set: headless, on loopback.
    """

    def __init__(self, db: Path, script: Path, **env: str) -> None:
        super().__init__(db, PYTHONPATH=str(ROOT), **env)
        self._script = script

    def start(self, wait_s: float = 60.0) -> Stock:
        folder = self.db.parent / "stock"
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "streamlit", "run", str(self._script)]
        options = ["--server.headless=true", "--server.address=127.0.0.1", f"--server.port={self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options],
                cwd=folder,
                env=self._env,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + wait_s
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.stop()
        raise AssertionError(f"stock Streamlit did not start:\n{self.log.read_text()}")


def memory_mb(server: Server) -> float:
    """Resident memory of the server's process in MB; it has no children before a model is loaded."""
    assert server.process is not None
    return float(psutil.Process(server.process.pid).memory_info().rss / 1e6)
