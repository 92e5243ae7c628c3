"""The command line as people call it: a process of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slam_app import cli, headless
from slam_app.cli import main
from slam_app.domain import ConnectionKind, ModelInfo
from slam_app.rating import session, studies
from slam_app.store import connections, jobs, rater, runs
from slam_app.store.db import Db, only_process
from tests.conftest import GEMMA, SMOLLM2
from tests.factories import add_connection, fill_all, plan
from tests.serving import ROOT, free_port
from tests.wire_ollama import WireOllama


def slam(*arguments: str, db: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SLAM_DB": str(db), "OLLAMA_HOST": f"http://127.0.0.1:{free_port()}"}
    return subprocess.run(
        [sys.executable, "-m", "slam_app", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=220,
    )


def test_the_demo_does_the_main_job_with_real_inference(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    done = slam("demo", "--db", str(path), "--json", "--max-tokens", "16", db=path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["models"] == [GEMMA, SMOLLM2]
    assert result["responses"] == {"ok": 12, "error": 0}
    assert result["seconds"] > 0

    exported = slam("export", "responses", "--format", "json", db=path)
    rows = json.loads(exported.stdout)
    assert len(rows) == 12
    assert {(row["model"], row["sample"], row["status"]) for row in rows} == {
        (model, sample, "ok") for model in (GEMMA, SMOLLM2) for sample in (1, 2)
    }
    assert all(row["text"] and row["prompt_tokens"] > 50 and row["e2e_s"] > 0 for row in rows)

    checked = slam("check", "--json", db=path)
    assert json.loads(checked.stdout)["ok"] is True


def call(db: Db, *arguments: str) -> Any:
    return CliRunner(env={"SLAM_DB": str(db.path)}).invoke(main, arguments)


@pytest.fixture
def rated(db: Db) -> Db:
    """A run whose second model failed once, and a study with one complete and one begun set."""
    add_connection(db, "http://127.0.0.1:1", "one", "two")
    run_id = plan(db, cases=2)
    fill_all(db, run_id)
    token = studies.launch(db, studies.create(db, run_id=run_id, name="s", raters=2, items_per_rater=2))
    study = session.find_study(db, token)
    for identity, screens in (("a", 2), ("b", 1)):
        slot = session.start(db, study, session.rater_hash(db, study, identity))
        for item in range(1, screens + 1):
            rater.save(db, slot.id, item, [3, 7], 10)
    return db


def test_responses_are_exported_with_the_promised_columns(rated: Db) -> None:
    rows = list(csv.DictReader(io.StringIO(call(rated, "export", "responses").stdout)))
    assert len(rows) == 4
    promised = "id model case sample status text error finish_reason prompt_tokens output_tokens ttft_s e2e_s"
    assert set(promised.split()) <= set(rows[0])


def test_ratings_are_exported_with_unfinished_sets_marked(rated: Db) -> None:
    rows = json.loads(call(rated, "export", "ratings", "--format", "json").stdout)
    assert [row["complete"] for row in rows] == [True] * 4 + [False] * 2
    promised = "study rater slot item position case model response criterion value complete"
    assert set(promised.split()) <= set(rows[0])
    assert {(row["position"], row["value"]) for row in rows} == {(1, 3.0), (2, 7.0)}


def test_cells_that_a_spreadsheet_would_run_are_neutralised(db: Db) -> None:
    from slam_app.exports import to_csv

    texts = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "plain", "a=b"]
    rows = list(csv.reader(io.StringIO(to_csv([{"text": text} for text in texts], ["text"]))))[1:]
    assert [row[0][:1] for row in rows] == ["'"] * 6 + ["p", "a"]


def test_numbers_are_not_neutralised() -> None:
    from slam_app.exports import to_csv

    assert to_csv([{"n": -1.5}], ["n"]).splitlines()[1] == "-1.5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "responses"], "There is no run yet"),
        (["export", "responses", "--run", "7"], "There is no run 7"),
        (["export", "ratings"], "There is no study yet"),
        (["run", "--use-case", "Nothing"], "no use case called 'Nothing'"),
        (["models", "--connection", "Nowhere"], "no connection called 'Nowhere'"),
        (["models", "--pull", "x"], "--connection"),
    ],
)
def test_errors_are_one_line_and_exit_1(db: Db, arguments: list[str], message: str) -> None:
    add_connection(db, "http://127.0.0.1:1")
    done = call(db, *arguments)
    assert done.exit_code == 1
    last = done.stderr.strip().splitlines()[-1]
    assert message in last and last.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_check_reports_a_job_that_nobody_runs(db: Db) -> None:
    jobs.enqueue(db, jobs.JobKind.GENERATE, "lane", {"run": 1})
    jobs.claim(db, "dead", lease_s=-1)
    done = call(db, "check")
    assert done.exit_code == 1
    assert "nobody runs it" in done.stderr


def test_a_command_takes_over_when_the_one_that_worked_ends(db: Db) -> None:
    """Two commands at once: the second waits for the first's runner, which may end without its job."""
    with WireOllama() as daemon:
        add_connection(db, daemon.url, "smollm2:135m")
        run_id = plan(db, cases=1)
        with only_process(db.path):
            waiting = threading.Thread(target=headless.finish_run, args=[db, run_id])
            waiting.start()
            time.sleep(0.5)
            assert waiting.is_alive()
        waiting.join(timeout=20)
        assert not waiting.is_alive()
    assert runs.get(db, run_id).counts["ok"] == 1


def test_run_calls_no_paid_api_unless_it_is_named(db: Db) -> None:
    paid = connections.add(db, name="Paid", kind=ConnectionKind.OPENAI, base_url="https://api.example.org/v1")
    connections.remember_models(db, paid, [ModelInfo("gpt-x")])
    add_connection(db, "http://127.0.0.1:1", "free")
    assert [m.name for m in cli._chosen_models(db, ())] == ["free"]
    assert [m.name for m in cli._chosen_models(db, ("Paid/gpt-x",))] == ["gpt-x"]


def test_check_of_a_missing_file_does_not_create_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check", "--db", str(tmp_path / "none.db")])
    assert done.exit_code == 1
    assert not (tmp_path / "none.db").exists()


def test_every_command_has_help_and_stands_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, command in main.commands.items():
        assert command.help, name
        assert f"slam_app {name}" in readme, name
