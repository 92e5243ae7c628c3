from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from slam_app import server
from slam_app.config import Settings
from slam_app.errors import ConfigError
from slam_app.store.db import only_process
from tests.serving import ROOT


def settings(**env: str) -> Settings:
    return Settings.from_env({"SLAM_DB": "unused.db", **env})


@pytest.mark.parametrize(
    ("env", "hosts"),
    [
        ({}, {"localhost", "127.0.0.1", "::1"}),
        ({"SLAM_HOST": "0.0.0.0"}, set()),
        (
            {"SLAM_HOST": "0.0.0.0", "SLAM_PUBLIC_URL": "https://rate.example.org/"},
            {"localhost", "127.0.0.1", "::1", "0.0.0.0", "rate.example.org"},
        ),
    ],
)
def test_host_names_are_limited_where_they_are_known(env: dict[str, str], hosts: set[str]) -> None:
    assert set(server._allowed_hosts(settings(**env))) == hosts


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigError, match="SLAM_PORT"):
            server._require_free_port(settings(SLAM_PORT=port))


@pytest.mark.parametrize(
    "env", [{"SLAM_PORT": "abc"}, {"SLAM_PORT": "0"}, {"SLAM_PUBLIC_URL": "example.org"}]
)
def test_settings_that_cannot_work_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        settings(**env)


def test_a_second_server_ends_with_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "slam.db"
    with only_process(path):
        done = subprocess.run(
            [sys.executable, "-m", "slam_app", "serve", "--db", str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Another SLaM is running")
    assert len(done.stderr.splitlines()) == 1


def test_streamlit_is_configured_whatever_folder_it_starts_in() -> None:
    config = server._streamlit_config()
    assert config["client.showErrorDetails"] == "none"
    assert config["server.fileWatcherType"] == "none"
    assert config["browser.gatherUsageStats"] is False
    assert config["server.maxUploadSize"] <= 20
