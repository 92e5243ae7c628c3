"""What several test files share: the real embedded engine with real weights, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slam_app.domain import Connection, ConnectionKind
from slam_app.providers.llama_server import SERVERS, LlamaServer
from slam_app.providers.weights import Library
from slam_app.store.db import Db

SMOLLM2 = "smollm2-135m-instruct-q4_1"
GEMMA = "gemma-3-270m-q4_k_m"


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SLAM_DATA_DIR for the whole session: no test touches the data of the one who runs it."""
    directory = tmp_path_factory.mktemp("data")
    before = os.environ.get("SLAM_DATA_DIR")
    os.environ["SLAM_DATA_DIR"] = str(directory)
    yield directory
    SERVERS.stop_all()
    if before is None:
        del os.environ["SLAM_DATA_DIR"]
    else:
        os.environ["SLAM_DATA_DIR"] = before


@pytest.fixture(scope="session")
def embedded() -> Connection:
    """A connection to the embedded engine. Models stay loaded from test to test."""
    return Connection(id=1, name="embedded", kind=ConnectionKind.EMBEDDED, timeout_s=120)


@pytest.fixture
def smollm2(data_dir: Path) -> LlamaServer:
    """A running llama.cpp server: SmolLM2 with 512 tokens of context, shared with `embedded`."""
    weights = Library(data_dir / "models").find(SMOLLM2)
    return SERVERS.start(weights.path, weights.name, num_ctx=512)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    """A real, empty database."""
    db = Db(tmp_path / "slam.db")
    yield db
    db.close()
