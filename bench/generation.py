"""Tokens per second through the app, beside the same requests sent straight to the same server.

Both send the same prompts, parameters and seeds in the same order to llama.cpp's server with the same
settings, freshly started and warmed by the same request, so that its prompt cache is the same too.
Time runs from the first send to the last answer; loading is not in it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from unittest.mock import patch

from openai import OpenAI

from bench.table import Row
from slam_app import first_start, generation, inventory
from slam_app.domain import ConnectionKind, PendingResponse, SamplingParams
from slam_app.jobs import Runner
from slam_app.providers.llama_server import SERVERS, LlamaServer
from slam_app.providers.weights import Library
from slam_app.store import connections, responses, runs, use_cases
from slam_app.store.db import Db

MODEL = "smollm2-135m-instruct-q4_1"
SAMPLES = 1
PAIRS = 7
PARAMS = SamplingParams(temperature=0.7, max_tokens=128, num_ctx=1024, seed=7)


@dataclass(frozen=True, slots=True)
class Pass:
    """All requests once: seconds from the first send to the last answer, tokens and texts that came."""

    seconds: float
    tokens: int
    texts: tuple[str, ...]

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def run() -> list[Row]:
    """Pairs in turn, the order swapped each time, so that a drifting machine favours neither."""
    pairs: list[tuple[Pass, Pass]] = []
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, SLAM_DATA_DIR=folder):
        bench = _Bench(Path(folder))
        try:
            for number in range(PAIRS):
                if number % 2:
                    straight, app = bench.straight(), bench.app()
                else:
                    app, straight = bench.app(), bench.straight()
                pairs.append((app, straight))
        finally:
            SERVERS.stop_all()
            bench.db.close()
    same = all(app.texts == straight.texts for app, straight in pairs)
    if not same:
        print("generate: the texts of app and straight differ", file=sys.stderr)
    return [
        Row(
            f"generation, {len(pairs[0][0].texts)} calls of up to {PARAMS.max_tokens} tokens",
            f"{median(app.speed for app, _ in pairs):.1f} tokens/s",
            f"straight to llama.cpp {median(straight.speed for _, straight in pairs):.1f} tokens/s",
            [app.speed / straight.speed for app, straight in pairs],
            "at least 0.97",
        )
    ]


class _Bench:
    """A database with the sample use case, and the embedded engine as its connection."""

    def __init__(self, folder: Path) -> None:
        self.db = Db(folder / "slam.db")
        self._use_case_id = first_start.install_sample(self.db)
        connection_id = connections.add(self.db, name="Embedded", kind=ConnectionKind.EMBEDDED)
        self._connection = connections.get(self.db, connection_id)
        inventory.refresh(self.db, self._connection)
        self._weights = Library(folder / "models").find(MODEL)
        planned = self._plan()
        self._requests = responses.pending(self.db, planned, connection_id)
        runs.cancel(self.db, planned)

    def app(self) -> Pass:
        """Plan a run and let the app's own runner fill it. It unloads the model at the end."""
        server = self._loaded()
        run_id = self._plan()
        with _runner(self.db):
            while runs.active_jobs(self.db, run_id):
                time.sleep(0.2)
        assert server.exit_code is not None, "the app did not use the server that was loaded for it"
        rows = responses.of_run(self.db, run_id)
        failed = [row["error"] for row in rows if row["status"] != "ok"]
        assert not failed, failed[0]
        first = min(datetime.fromisoformat(row["started_at"]) for row in rows)
        last = max(datetime.fromisoformat(row["finished_at"]) for row in rows)
        return Pass(
            (last - first).total_seconds(),
            sum(row["output_tokens"] for row in rows),
            tuple(row["text"] for row in rows),
        )

    def straight(self) -> Pass:
        """The least that can be done: one client, one request after the other, nothing stored."""
        server = self._loaded()
        with _client(server) as client:
            begun = time.perf_counter()
            answers = [_ask(client, request) for request in self._requests]
            seconds = time.perf_counter() - begun
        SERVERS.stop(self._weights.path)
        return Pass(seconds, sum(tokens for _, tokens in answers), tuple(text for text, _ in answers))

    def _plan(self) -> int:
        return generation.plan_run(
            self.db,
            template=use_cases.templates(self.db, self._use_case_id)[0],
            cases=use_cases.cases(self.db, self._use_case_id),
            model_ids=[model.id for model in connections.models(self.db) if model.name == MODEL],
            samples=SAMPLES,
            params=PARAMS,
        )

    def _loaded(self) -> LlamaServer:
        """The embedded engine as the app starts it, after one short request."""
        server = SERVERS.start(self._weights.path, MODEL, PARAMS.num_ctx, self._connection.concurrency)
        with _client(server) as client:
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
            )
        return server


def _ask(client: OpenAI, planned: PendingResponse) -> tuple[str, int]:
    """One streamed answer and its tokens."""
    params = planned.params
    stream = client.chat.completions.create(
        model=planned.model,
        messages=[{"role": "user", "content": planned.prompt}],
        stream=True,
        stream_options={"include_usage": True},
        temperature=params.temperature,
        top_p=params.top_p,
        seed=params.seed + planned.sample - 1,
        max_tokens=params.max_tokens,
        extra_body={
            "top_k": params.top_k,
            "min_p": params.min_p,
            "repeat_penalty": params.repeat_penalty,
        },
    )
    text, tokens = [], 0
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            text.append(chunk.choices[0].delta.content)
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
    return "".join(text), tokens


def _client(server: LlamaServer) -> OpenAI:
    return OpenAI(base_url=f"{server.address}/v1", api_key=server.api_key, max_retries=0)


@contextmanager
def _runner(db: Db) -> Iterator[None]:
    runner = Runner(db)
    runner.start()
    try:
        yield
    finally:
        runner.stop()
