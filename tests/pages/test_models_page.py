"""The Models page, against a wire-level Ollama."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from slam_app import inventory
from slam_app.domain import Connection, ConnectionKind, JobKind, JobStatus, Model, ModelInfo
from slam_app.errors import InputError
from slam_app.store import connections, jobs
from slam_app.store.db import Db
from slam_app.ui import models as shown
from slam_app.ui import pulls
from slam_app.ui.connections import checked_address, checked_key_name
from tests.pages.conftest import OpenPage, confirm, log_out_after, texts
from tests.wire_ollama import WireOllama


@pytest.fixture(scope="module")
def daemon() -> Iterator[WireOllama]:
    with WireOllama() as running:
        yield running


@pytest.fixture
def ollama(db: Db, daemon: WireOllama) -> Connection:
    """A connection to the daemon, tested, with its models known."""
    found = connections.get(
        db, connections.add(db, name="Ollama", kind=ConnectionKind.OLLAMA, base_url=daemon.url)
    )
    assert inventory.check(db, found).ok
    return found


def pull_job(db: Db, connection: Connection, progress: dict[str, object] | None = None) -> int:
    job_id = inventory.start_pull(db, connection, "gemma3:1b")
    if progress is not None:
        job = jobs.claim(db, "a test", 60)
        assert job is not None
        jobs.set_progress(db, job, progress)
    return job_id


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_without_models_it_says_what_to_do(open_page: OpenPage) -> None:
    at = open_page("models")

    assert at.title[0].value == "Models"
    assert "No models yet" in texts(at)
    assert not at.dataframe


def test_models_stand_in_the_table(open_page: OpenPage, ollama: Connection) -> None:
    at = open_page("models")

    table = at.dataframe[0].value.set_index("Model")
    assert table.loc["smollm2:135m", "Connection"] == "Ollama"
    assert table.loc["smollm2:135m", "Bits"] == 4
    assert table.loc["smollm2-thinker:135m", "Can"] == "answer, think"
    assert table.loc["all-minilm:22m", "Can"] == "only embed"


def test_a_plain_visit_asks_no_server(open_page: OpenPage, ollama: Connection, daemon: WireOllama) -> None:
    before = len(daemon.calls)

    open_page("models")

    assert len(daemon.calls) == before


def test_loading_uses_the_chosen_context_and_shows_the_memory(
    open_page: OpenPage, db: Db, ollama: Connection, daemon: WireOllama
) -> None:
    model = next(model for model in connections.models(db) if model.name == "smollm2:135m")
    at = open_page("models", model=str(model.id))

    at.number_input(f"context-{model.id}").set_value(2048)
    at.button("load").click().run()

    assert daemon.loads[-1] == ("smollm2:135m", 2048)
    row = at.dataframe[0].value.set_index("Model").loc["smollm2:135m"]
    assert row["Loaded"].startswith("until")
    assert row["Memory, MB"] > 90
    assert row["VRAM"] == "CPU"
    assert "context of 2,048 tokens" in texts(at)


def test_unloading_frees_it(open_page: OpenPage, db: Db, ollama: Connection, daemon: WireOllama) -> None:
    model = next(model for model in connections.models(db) if model.name == "smollm2:135m")
    at = open_page("models", model=str(model.id))
    if at.button("unload").disabled:
        at.button("load").click().run()

    at.button("unload").click().run()

    assert "smollm2:135m" not in daemon.loaded
    assert "Not loaded" in texts(at)


def test_an_embedding_model_can_not_be_loaded_for_answers(
    open_page: OpenPage, db: Db, ollama: Connection
) -> None:
    model = next(model for model in connections.models(db) if model.name == "all-minilm:22m")

    at = open_page("models", model=str(model.id))

    assert at.button("load").disabled
    assert "no run offers it" in texts(at)


def test_deleting_asks_first_and_takes_it_out_of_the_table(open_page: OpenPage, db: Db) -> None:
    with WireOllama() as daemon:
        connection = connections.get(
            db, connections.add(db, name="Ollama", kind=ConnectionKind.OLLAMA, base_url=daemon.url)
        )
        inventory.check(db, connection)
        model = next(model for model in connections.models(db) if model.name == "smollm2:135m")
        at = open_page("models", model=str(model.id))

        at.button("delete").click().run()
        assert "smollm2:135m" in daemon.installed
        confirm(at, "delete", "delete-now")

        assert "smollm2:135m" not in daemon.installed
        assert "smollm2:135m" not in list(at.dataframe[0].value["Model"])


def test_nothing_is_deleted_after_a_logout_elsewhere(
    open_page: OpenPage, db: Db, ollama: Connection, daemon: WireOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = next(model for model in connections.models(db) if model.name == "smollm2:135m")
    at = open_page("models", model=str(model.id))
    at.button("delete").click().run()
    log_out_after(monkeypatch, checks=2)

    confirm(at, "delete", "delete-now")

    assert "smollm2:135m" in daemon.installed
    assert not at.dataframe and not at.exception


def test_no_connection_is_removed_after_a_logout_elsewhere(
    open_page: OpenPage, db: Db, ollama: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = open_page("models")
    at.button(f"remove-{ollama.id}").click().run()
    log_out_after(monkeypatch, checks=3)  # of main.py, of the page, of the polled downloads

    confirm(at, f"remove-{ollama.id}", "remove-now")

    assert connections.all_connections(db) == [ollama]


def test_a_failed_action_shows_the_error(open_page: OpenPage, db: Db, ollama: Connection) -> None:
    with WireOllama() as daemon:
        gone = daemon.url
    connections.add(db, name="Old", kind=ConnectionKind.OLLAMA, base_url=gone)
    old = connections.all_connections(db)[-1]
    connections.remember_models(db, old.id, [ModelInfo("lost:1b", capabilities=("completion",))])
    model = next(model for model in connections.models(db) if model.name == "lost:1b")
    at = open_page("models", model=str(model.id))

    at.button("load").click().run()

    assert "Nobody answers" in at.error[0].value


def test_testing_a_connection_shows_who_answers(open_page: OpenPage, db: Db, daemon: WireOllama) -> None:
    connection_id = connections.add(db, name="Ollama", kind=ConnectionKind.OLLAMA, base_url=daemon.url)
    at = open_page("models")
    assert "Not tested yet" in texts(at)

    at.button(f"test-{connection_id}").click().run()

    assert re.search(r"Ollama 0.24.0 · answered \d s ago", texts(at))
    assert len(connections.models(db)) == 3


def test_a_connection_is_added_and_tested_at_once(open_page: OpenPage, db: Db, daemon: WireOllama) -> None:
    at = open_page("models")

    at.text_input("name-0").set_value("GPU")
    at.text_input("url-0").set_value(f"{daemon.url}/")
    at.number_input("rpm-0").set_value(60)
    at.button("add-0").click().run()

    (added,) = connections.all_connections(db)
    assert (added.name, added.base_url, added.requests_per_minute) == ("GPU", daemon.url, 60)
    assert "Ollama 0.24.0" in texts(at)


def test_an_unusable_address_is_refused_in_words(open_page: OpenPage, db: Db) -> None:
    at = open_page("models")

    at.text_input("name-0").set_value("GPU")
    at.text_input("url-0").set_value("gpu.local:11434")
    at.button("add-0").click().run()

    assert "must look like http://127.0.0.1:11434" in at.error[0].value
    assert connections.all_connections(db) == []


def test_a_key_typed_instead_of_its_name_is_not_kept(open_page: OpenPage, db: Db) -> None:
    at = open_page("models")

    at.text_input("name-0").set_value("API")
    at.text_input("url-0").set_value("https://api.example.com")
    at.text_input("key-0").set_value("sk-canary-0123456789")
    at.button("add-0").click().run()

    assert "not the key" in at.error[0].value
    assert "canary" not in texts(at)
    assert b"canary" not in db.path.read_bytes() + Path(f"{db.path}-wal").read_bytes()


def test_removing_a_connection_asks_first(open_page: OpenPage, db: Db, ollama: Connection) -> None:
    at = open_page("models")

    at.button(f"remove-{ollama.id}").click().run()
    assert connections.all_connections(db) == [ollama]
    confirm(at, f"remove-{ollama.id}", "remove-now")

    assert connections.all_connections(db) == []
    assert "No models yet" in texts(at)


def test_a_preset_fills_in_the_name(open_page: OpenPage, ollama: Connection) -> None:
    at = open_page("models")

    at.selectbox("preset-Small models of today").select("qwen3:4b").run()

    assert at.text_input("pull-name").value == "qwen3:4b"


def test_pull_queues_a_job_for_the_server(open_page: OpenPage, db: Db, ollama: Connection) -> None:
    at = open_page("models")

    at.text_input("pull-name").set_value("gemma3:1b").run()
    at.button("pull").click().run()

    (job,) = jobs.find(db, JobKind.PULL, "model", "gemma3:1b")
    assert job.payload["connection"] == ollama.id
    assert "Waiting to start" in at.get("progress")[0].proto.text


def test_pull_without_a_name_says_so(open_page: OpenPage, ollama: Connection) -> None:
    at = open_page("models")

    at.button("pull").click().run()

    assert "Type the name of a model" in at.error[0].value


def test_a_running_pull_can_be_cancelled(open_page: OpenPage, db: Db, ollama: Connection) -> None:
    progress = {"status": "pulling", "completed_bytes": 1, "total_bytes": 2, "moved_at": ago(0)}
    job_id = pull_job(db, ollama, progress)
    at = open_page("models")

    at.button(f"cancel-pull-{job_id}").click().run()

    assert jobs.cancel_requested(db) == {job_id}


def test_a_failed_pull_says_why_and_can_be_started_again(
    open_page: OpenPage, db: Db, ollama: Connection
) -> None:
    pull_job(db, ollama)
    job = jobs.claim(db, "a test", 60)
    assert job is not None
    jobs.finish(db, job, JobStatus.FAILED, "The registry can't be reached. Check the network.")
    at = open_page("models")
    assert "The registry can't be reached. Check the network." in texts(at)

    at.button(f"again-{job.id}").click().run()

    assert [job.status for job in jobs.find(db, JobKind.PULL, "model", "gemma3:1b")] == [
        JobStatus.QUEUED,
        JobStatus.FAILED,
    ]


@pytest.mark.parametrize(
    ("completed", "total", "idle_s", "share", "words"),
    [
        (250_000_000, 1_000_000_000, 0.0, 0.25, "250 MB of 1,000 MB"),
        (250_000_000, 1_000_000_000, 7.2, 0.25, "no progress for 7 s"),
        (0, None, 5.0, 0.0, "no progress for 5 s"),
    ],
)
def test_progress_in_words(
    db: Db, ollama: Connection, completed: int, total: int | None, idle_s: float, share: float, words: str
) -> None:
    progress = {
        "status": "pulling",
        "completed_bytes": completed,
        "total_bytes": total,
        "moved_at": ago(idle_s),
    }
    job_id = pull_job(db, ollama, progress)

    found = pulls.progress(jobs.get(db, job_id))

    assert found[0] == share
    assert words in found[1]


def test_the_end_of_a_pull_is_no_stall(db: Db, ollama: Connection) -> None:
    job_id = pull_job(
        db,
        ollama,
        {"status": "verifying", "completed_bytes": 9, "total_bytes": 9, "moved_at": ago(20)},
    )

    assert "no progress" not in pulls.progress(jobs.get(db, job_id))[1]


@pytest.mark.parametrize(
    ("name", "bits"),
    [("Q4_K_M", 4), ("Q4_1", 4), ("IQ3_XS", 3), ("F16", 16), ("BF16", 16), ("MXFP4", 4), ("", None)],
)
def test_bits_of_a_quantisation(name: str, bits: int | None) -> None:
    assert shown.bits(name) == bits


def test_how_long_a_model_is_kept() -> None:
    at = datetime(2026, 1, 31, 22, 50, tzinfo=UTC)
    berlin = ZoneInfo("Europe/Berlin")

    def kept(minutes: int) -> str:
        return shown.kept(ModelInfo("m", loaded=True, kept_until=at + timedelta(minutes=minutes)), berlin, at)

    assert shown.kept(ModelInfo("m"), berlin, at) == "no"
    assert shown.kept(ModelInfo("m", loaded=True), berlin, at) == "kept loaded"
    assert kept(5) == "until 23:55"
    assert kept(30) == "until 01 Feb 00:20"
    assert kept(-1) == "no"


def test_share_of_graphics_memory() -> None:
    assert shown.vram(ModelInfo("m", memory_bytes=400, vram_bytes=100)) == "25 %"
    assert shown.vram(ModelInfo("m", memory_bytes=400, vram_bytes=0)) == "CPU"
    assert shown.vram(ModelInfo("m")) == ""


def test_a_model_of_the_installation_can_not_be_deleted(tmp_path: Path) -> None:
    def model(path: Path) -> Model:
        return Model(1, 1, "Embedded", ConnectionKind.EMBEDDED, ModelInfo("m", path=str(path)))

    assert shown.why_not_delete(model(tmp_path / "m.gguf"), tmp_path) == ""
    assert "came with the installation" in shown.why_not_delete(model(Path("/usr/lib/m.gguf")), tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:11434",
        "ftp://host",
        "http://",
        "http://a b",
        "http://u:p@host",
        "http://h/?key=1",
        "http://h:0",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        checked_address(ConnectionKind.OPENAI, url)


def test_an_openai_address_is_not_taken_for_ollama() -> None:
    with pytest.raises(InputError, match="OpenAI-compatible"):
        checked_address(ConnectionKind.OLLAMA, "http://localhost:11434/v1")
    assert (
        checked_address(ConnectionKind.OPENAI, " http://localhost:11434/v1/ ") == "http://localhost:11434/v1"
    )


def test_a_key_variable_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")

    assert checked_key_name(" MY_KEY ") == "MY_KEY"
    assert checked_key_name("") == ""
    with pytest.raises(InputError) as refused:
        checked_key_name("sk-secret")
    assert "sk-secret" not in str(refused.value)
