"""Child processes that run llama.cpp's own server, one per weights file, and their manager.

A crash of the engine takes only its child along, and a child ends with its parent, however that ends.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

import slam_app
from slam_app.errors import ServerFailed, TimedOut
from slam_app.providers import llama_child
from slam_app.providers.llama_child import READY

START_TIMEOUT_S = 300.0
"""A large file on a slow disk takes minutes."""

_LOOK_EVERY_S = 0.05
"""How soon a load that nobody wants any more ends."""


class LlamaServer:
    """One running child.

    Attributes:
        address: "http://127.0.0.1:PORT".
        api_key: what it wants as a bearer token, so that no other user of the machine can use it.
        context: tokens of context per request as llama.cpp made it: the asked number rounded up to a
            multiple of 256, and no more than the model was trained for.
    """

    def __init__(self, weights: Path, name: str, num_ctx: int, parallel: int) -> None:
        self.wanted = (name, num_ctx, parallel)
        self.name = name
        self.api_key = secrets.token_urlsafe(24)
        self.address = ""
        self.context = 0
        self.users = 0
        self.retired = False
        self._lines: deque[str] = deque(maxlen=40)
        self._started = threading.Event()
        root = str(Path(slam_app.__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", llama_child.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
            # Ctrl-C in the terminal is for the parent, which then stops its children in its own order.
            start_new_session=True,
        )
        threading.Thread(target=self._listen, name=f"llama-{self._process.pid}", daemon=True).start()
        config = {
            "weights": str(weights),
            "name": name,
            "num_ctx": num_ctx,
            "parallel": parallel,
            "threads": _threads(),
            "api_key": self.api_key,
        }
        assert self._process.stdin is not None
        with suppress(OSError):  # it is dead already; wait_ready says so with its last words
            self._process.stdin.write(json.dumps(config) + "\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    @property
    def memory_bytes(self) -> int | None:
        """Resident memory, the weights in use included; None when it is gone."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return None

    def wait_ready(self, timeout_s: float, unwanted: threading.Event) -> None:
        """Return when it can answer; when it can't, it is stopped.

        Raises:
            ServerFailed: it ended, with its last words, or `unwanted` was set meanwhile.
            TimedOut: it takes too long.
        """
        until = time.monotonic() + timeout_s
        while not self._started.wait(_LOOK_EVERY_S) and time.monotonic() < until and not unwanted.is_set():
            pass
        if self.address and not unwanted.is_set():
            return
        ended = self._started.is_set()
        self.stop()
        if unwanted.is_set():
            raise _unwanted(self.name)
        if not ended:
            raise TimedOut(
                f"The embedded engine did not load {self.name} within {timeout_s:.0f} s. "
                "Use a smaller model or context, or look at what else this machine does."
            )
        raise ServerFailed(f"The embedded engine could not load {self.name}: {self.last_words}")

    @property
    def last_words(self) -> str:
        """Why it ended, as far as it said so, and what to do."""
        if self.exit_code == -signal.SIGKILL:
            return "it was killed, perhaps because memory ran out. Use a smaller model or context."
        # llama.cpp's first complaint is the cause, what follows only passes it on.
        errors = [line.split(" E ")[1] for line in self._lines if " E " in line] or list(self._lines)[-1:]
        said = errors[0].strip() if errors else ""
        return f"{said or f'exit code {self.exit_code}'}. Check the weights file, or choose another model."

    def stop(self) -> None:
        """End it at once: it keeps nothing that a slower end would save."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin and not self._process.stdin.closed:
            with suppress(OSError):  # a line that it never read
                self._process.stdin.close()

    def _listen(self) -> None:
        """Read its output for ever, so that the pipe never fills, and keep only the last lines."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.startswith(READY):
                    said = json.loads(line.removeprefix(READY))
                    self.context = said["context"]
                    self.address = said["address"]
                    self._started.set()
                else:
                    self._lines.append(line.strip()[:400])
        self._process.wait()
        self._started.set()


class EmbeddedServers:
    """The children of this process, at most one current per weights file; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starting: dict[Path, threading.Lock] = {}
        self._asking: list[tuple[Path, threading.Event]] = []
        self._current: dict[Path, LlamaServer] = {}
        self._retired: list[LlamaServer] = []

    def start(
        self,
        weights: Path,
        name: str,
        num_ctx: int,
        parallel: int = 1,
        timeout_s: float = START_TIMEOUT_S,
        unwanted: threading.Event | None = None,
    ) -> LlamaServer:
        """The child for these weights, started unless it runs already with this context.

        One that runs with another context is replaced, and ends when its last request has. Setting
        `unwanted`, or `stop`, gives up a start that is under way.

        Raises:
            ServerFailed, TimedOut: it could not be started, or was given up.
        """
        unwanted = unwanted or threading.Event()
        asked = (weights, unwanted)
        with self._lock:
            starting = self._starting.setdefault(weights, threading.Lock())
            self._asking.append(asked)
        try:
            while not starting.acquire(timeout=_LOOK_EVERY_S):
                if unwanted.is_set():
                    raise _unwanted(name)
            try:
                return self._start(weights, (name, num_ctx, parallel), timeout_s, unwanted)
            finally:
                starting.release()
        finally:
            with self._lock:
                self._asking.remove(asked)

    def running(self, weights: Path) -> LlamaServer | None:
        """The living current child for these weights."""
        with self._lock:
            server = self._current.get(weights)
            if server and server.exit_code is not None:
                server.stop()
                del self._current[weights]
                return None
            return server

    @contextmanager
    def using(self, server: LlamaServer) -> Iterator[bool]:
        """Keeps `server` alive while it is replaced; gives False if that has happened already."""
        with self._lock:
            held = not server.retired
            server.users += held
        try:
            yield held
        finally:
            with self._lock:
                server.users -= held
                self._end_unused()

    def stop(self, weights: Path) -> None:
        """End the child of these weights now, with the requests on it and the loads that wait for it."""
        with self._lock:
            self._give_up_starts(weights)
            server = self._current.pop(weights, None)
            if server:
                server.retired = True
                server.stop()

    def stop_all(self) -> None:
        with self._lock:
            self._give_up_starts()
            for server in [*self._current.values(), *self._retired]:
                server.stop()
            self._current.clear()
            self._retired.clear()

    def _start(
        self, weights: Path, wanted: tuple[str, int, int], timeout_s: float, unwanted: threading.Event
    ) -> LlamaServer:
        if unwanted.is_set():
            raise _unwanted(wanted[0])
        running = self.running(weights)
        if running and running.wanted == wanted:
            return running
        self._retire(weights)
        server = LlamaServer(weights, *wanted)
        try:
            server.wait_ready(timeout_s, unwanted)
            with self._lock:
                # `stop` sets it under the lock: it either finds the server in its place, or is seen here.
                if unwanted.is_set():
                    raise _unwanted(wanted[0])
                self._current[weights] = server
        except BaseException:
            server.stop()
            raise
        return server

    def _give_up_starts(self, weights: Path | None = None) -> None:
        for asked, unwanted in self._asking:
            if weights in (None, asked):
                unwanted.set()

    def _retire(self, weights: Path) -> None:
        with self._lock:
            server = self._current.pop(weights, None)
            if server:
                server.retired = True
                self._retired.append(server)
                self._end_unused()

    def _end_unused(self) -> None:
        for server in [server for server in self._retired if not server.users]:
            server.stop()
            self._retired.remove(server)


SERVERS = EmbeddedServers()
"""Those of this process: pages, jobs and the command line share them. They end with it."""


def _unwanted(name: str) -> ServerFailed:
    return ServerFailed(f"{name} was unloaded while it was being loaded. Load it again when it is needed.")


def _threads() -> int:
    """All cores but one. llama.cpp's threads wait for each other at every step of a token, so one that
    shares its core holds up all: with two threads on two busy cores it decoded 3 tokens/s, with one 38."""
    return max(1, (psutil.cpu_count(logical=False) or os.cpu_count() or 1) - 1)
