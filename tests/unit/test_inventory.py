"""What a refresh costs the servers and what it keeps; addresses; time limits that hold."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from slam_app import first_start, inventory
from slam_app.config import Settings
from slam_app.domain import Connection, ConnectionKind, ModelInfo, SamplingParams
from slam_app.errors import ConfigError, InputError, TimedOut
from slam_app.store import connections
from slam_app.store.db import Db
from tests.conftest import SMOLLM2
from tests.loopback import Call, LoopbackServer
from tests.wire_faults import Fault
from tests.wire_models import EMBEDDER, THINKER, WireModel
from tests.wire_ollama import WireOllama


class ModelList(LoopbackServer):
    """An OpenAI-compatible server with 80 models."""

    def answer(self, call: Call) -> None:
        body = {"object": "list", "data": [{"id": f"m-{number}"} for number in range(80)]}
        call.send(200, json.dumps(body).encode(), {"content-type": "application/json"})


class Repulled(WireModel):
    """Other weights than before under the same name."""

    @property
    def digest(self) -> str:
        return "other"


class SlowShow(WireOllama):
    """Counts how many are asking for details at the same time."""

    def __init__(self, count: int) -> None:
        super().__init__(models=[WireModel(f"m{number}:1b") for number in range(count)])
        self.most = 0
        self._asking = 0
        self._count = threading.Lock()

    def answer(self, call: Call) -> None:
        if call.path != "/api/show":
            return super().answer(call)
        with self._count:
            self._asking += 1
            self.most = max(self.most, self._asking)
        call.wait(0.03)
        with self._count:
            self._asking -= 1
        return super().answer(call)


def added(db: Db, kind: ConnectionKind, url: str) -> Connection:
    return connections.get(db, connections.add(db, name="here", kind=kind, base_url=url))


def known(db: Db) -> dict[str, ModelInfo]:
    return {model.name: model.info for model in connections.models(db)}


# Refreshing


def test_a_refresh_lists_the_models_of_an_openai_server_once(db: Db) -> None:
    with ModelList() as server:
        inventory.refresh(db, added(db, ConnectionKind.OPENAI, f"{server.url}/v1"))

    assert [call.path for call in server.calls] == ["/v1/models"]
    assert len(known(db)) == 80


def test_a_refresh_of_ollama_asks_for_each_model_once_and_four_at_a_time(db: Db) -> None:
    with SlowShow(12) as daemon:
        inventory.refresh(db, added(db, ConnectionKind.OLLAMA, daemon.url))

    paths = [call.path for call in daemon.calls]
    assert sorted(paths) == ["/api/ps"] + ["/api/show"] * 12 + ["/api/tags"]
    assert daemon.most == 4


def test_what_a_model_can_do_stays_known_when_the_daemon_does_not_say_it_this_time(db: Db) -> None:
    with WireOllama() as daemon:
        ollama = added(db, ConnectionKind.OLLAMA, daemon.url)
        inventory.refresh(db, ollama)
        before = known(db)
        daemon.inject(Fault.SERVER_ERROR, "/api/show", times=3)
        told = inventory.refresh(db, ollama)

    assert known(db) == before
    assert not before[EMBEDDER.name].can_chat and before[THINKER.name].can_think
    assert {info.name: info.capabilities for info in told} == {
        name: info.capabilities for name, info in before.items()
    }


def test_nothing_is_taken_over_from_another_version_of_a_model(db: Db) -> None:
    with WireOllama(models=[THINKER]) as daemon:
        ollama = added(db, ConnectionKind.OLLAMA, daemon.url)
        inventory.refresh(db, ollama)
        daemon.installed = {THINKER.name: Repulled(THINKER.name)}
        daemon.inject(Fault.SERVER_ERROR, "/api/show")
        inventory.refresh(db, ollama)

    assert known(db)[THINKER.name].capabilities == ()


# Time limits


def test_a_load_that_hangs_ends_with_its_time_limit_and_leaves_no_process(
    db: Db, embedded: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nexec sleep 60\n")
    engine.chmod(0o755)
    monkeypatch.setattr("slam_app.providers.llama_server.sys.executable", str(engine))
    monkeypatch.setattr(inventory, "LOAD_TIMEOUT_S", 0.5)

    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"0\.5 s"):
        inventory.load(db, embedded, SMOLLM2, SamplingParams(num_ctx=384))

    assert time.monotonic() - began < 5
    assert [child for child in psutil.Process(os.getpid()).children() if child.name() == "sleep"] == []


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:11434",
        "ftp://host",
        "http://",
        "http://a b",
        "http://user:secret@host",
        "http://host/?key=secret",
        "http://h:0",
        "http://h:99999",
    ],
)
@pytest.mark.parametrize("kind", [ConnectionKind.OLLAMA, ConnectionKind.OPENAI])
def test_addresses_that_are_refused(kind: ConnectionKind, url: str) -> None:
    with pytest.raises(InputError) as refused:
        inventory.checked_address(kind, url)

    assert "secret" not in str(refused.value)


def test_an_openai_address_is_not_taken_for_ollama() -> None:
    url = " http://localhost:11434/v1/ "

    with pytest.raises(InputError, match="OpenAI-compatible"):
        inventory.checked_address(ConnectionKind.OLLAMA, url)
    assert inventory.checked_address(ConnectionKind.OPENAI, url) == "http://localhost:11434/v1"


def settings_with(tmp_path: Path, **env: str) -> Settings:
    return Settings.from_env({"SLAM_DB": str(tmp_path / "slam.db"), **env})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://0.0.0.0:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("gpu.local:8080", "http://gpu.local:8080"),
        ("[::1]", "http://[::1]:11434"),
        ("https://gpu.local/", "https://gpu.local"),
    ],
)
def test_the_first_start_takes_ollama_host_as_ollama_does(
    db: Db, tmp_path: Path, host: str, url: str
) -> None:
    first_start.prepare(db, settings_with(tmp_path, OLLAMA_HOST=host))

    assert [c.base_url for c in connections.all_connections(db) if c.kind is ConnectionKind.OLLAMA] == [url]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OLLAMA_HOST", "http://user:secret@gpu"),
        ("OLLAMA_HOST", "user:secret@gpu"),
        ("OLLAMA_HOST", "ftp://gpu"),
        ("OPENAI_BASE_URL", "https://user:secret@gateway/v1"),
        ("OPENAI_BASE_URL", "gateway/v1"),
    ],
)
def test_the_first_start_stores_no_address_that_the_page_would_refuse(
    db: Db, tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=name) as refused:
        first_start.prepare(db, settings_with(tmp_path, OPENAI_API_KEY="k", **{name: value}))

    assert "secret" not in str(refused.value)
    assert connections.all_connections(db) == []
