from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from slam_app.domain import ChatResult, ConnectionKind, JobKind, ModelInfo, SamplingParams
from slam_app.errors import DatabaseFull, DatabaseInUse, DatabaseUnusable, InputError
from slam_app.store import connections, jobs, responses, runs, settings, use_cases
from slam_app.store.db import Db, IntegrityError, only_process, sqlite3
from tests.factories import add_connection, add_use_case, fill_all, plan

SCHEMA = Path(__file__).parent.parent / "golden" / "schema.sql"


def test_the_migrations_give_the_expected_schema(db: Db) -> None:
    with db.read() as con:
        rows = con.execute(
            """SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_sqlite%' ESCAPE '\\'
               AND tbl_name NOT LIKE '\\_sqlite%' ESCAPE '\\' ORDER BY name"""
        ).fetchall()
    schema = "\n".join(re.sub(r"\s+", " ", sql) + ";" for (sql,) in rows) + "\n"
    assert schema == SCHEMA.read_text()


def test_every_table_is_strict(db: Db) -> None:
    with db.read() as con:
        loose = [
            row[0]
            for row in con.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict")
        ]
    assert [name for name in loose if not name.startswith(("sqlite_", "_sqlite"))] == []


def test_an_error_inside_a_write_rolls_all_of_it_back(db: Db) -> None:
    with pytest.raises(ZeroDivisionError), db.write() as con:
        con.table("settings").insert({"key": "a", "value": "1"})
        raise ZeroDivisionError
    assert settings.get(db, "a") is None
    settings.put(db, "a", "2")
    assert settings.get(db, "a") == "2"


def test_a_read_connection_cannot_write(db: Db) -> None:
    with pytest.raises((DatabaseUnusable, sqlite3.OperationalError)), db.read() as con:
        con.execute("INSERT INTO settings VALUES ('a', '1')")
    assert settings.get(db, "a") is None


def test_writers_that_read_first_never_lose_an_update(db: Db) -> None:
    """Also not with two openings of the file, as when a command runs beside the server."""
    settings.put(db, "n", "0")
    other = Db(db.path)

    def add(db: Db) -> None:
        for _ in range(25):
            with db.write() as con:
                (value,) = con.execute("SELECT value FROM settings WHERE key = 'n'").fetchone()
                con.execute("UPDATE settings SET value = ? WHERE key = 'n'", [str(int(value) + 1)])

    threads = [threading.Thread(target=add, args=[opened]) for opened in (db, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert settings.get(db, "n") == "100"


def test_a_row_that_points_nowhere_cannot_be_written(db: Db) -> None:
    with pytest.raises(IntegrityError):
        use_cases.add_cases(db, 99, [("lost", {})])


def test_a_full_disk_is_said_and_loses_nothing(db: Db) -> None:
    settings.put(db, "kept", "yes")
    with db.write() as con:
        pages = con.execute("PRAGMA page_count").fetchone()[0]
    db._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DatabaseFull, match="Free some space"):
        settings.put(db, "big", "x" * 1_000_000)
    assert settings.get(db, "kept") == "yes"
    db._writer.execute("PRAGMA max_page_count = 1000000")
    settings.put(db, "big", "x" * 1_000_000)
    assert db.check() == []


def test_a_second_server_on_the_same_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slam.db"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\nfrom slam_app.store.db import only_process\n"
            "with only_process(pathlib.Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n    sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DatabaseInUse, match="Another SLaM is running"), only_process(path):
            pass
        holder.kill()
    with only_process(path):
        pass


def test_a_database_of_a_newer_version_is_left_alone(db: Db) -> None:
    with db.write() as con:
        con.execute(
            """INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
               VALUES ('slam', 'm999_later', '')"""
        )
    with pytest.raises(DatabaseUnusable, match="newer SLaM"):
        Db(db.path)


def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are my notes " * 100)
    with pytest.raises(DatabaseUnusable, match="can't be used"):
        Db(path)
    assert path.read_text().startswith("these are my notes")


@pytest.mark.parametrize("open_it", [Db, lambda path: only_process(path).__enter__()])
def test_a_folder_that_cannot_be_written_is_named(open_it: Callable[[Path], object]) -> None:
    with pytest.raises(DatabaseUnusable, match=r"/proc/none.*SLAM_DB"):
        open_it(Path("/proc/none/slam.db"))


def test_check_finds_a_row_that_points_nowhere(db: Db) -> None:
    assert db.check() == []
    raw = sqlite3.connect(str(db.path))
    raw.execute("INSERT INTO templates (use_case_id, version, body, created_at) VALUES (99, 1, 'x', '')")
    raw.commit()
    raw.close()
    assert db.check() == ["templates row 1 points to a missing row of use_cases"]


def test_two_connections_cannot_share_a_name(db: Db) -> None:
    connections.add(db, name="Lab", kind=ConnectionKind.OLLAMA)
    with pytest.raises(InputError, match="already a connection called 'Lab'"):
        connections.add(db, name="Lab ", kind=ConnectionKind.OPENAI)


def test_a_removed_connection_frees_its_name_and_keeps_its_answers(db: Db) -> None:
    connection_id = add_connection(db, "http://127.0.0.1:1", "one")
    run_id = plan(db)
    fill_all(db, run_id)
    connections.remove(db, connection_id)
    assert connections.all_connections(db) == []
    assert connections.models(db) == []
    assert {row["model"] for row in responses.of_run(db, run_id)} == {"one"}
    add_connection(db, "http://127.0.0.1:1", "one")


def test_a_list_that_arrives_after_the_removal_brings_no_model_back(db: Db) -> None:
    connection_id = add_connection(db, "http://127.0.0.1:1", "one")
    connections.remove(db, connection_id)
    connections.remember_models(db, connection_id, [ModelInfo("one")])
    assert connections.models(db) == []


def test_removing_a_connection_cancels_its_jobs(db: Db) -> None:
    connection_id = add_connection(db, "http://127.0.0.1:1", "one")
    other_id = add_connection(db, "http://127.0.0.1:2", "two")
    run_id = plan(db)
    connections.remove(db, connection_id)
    left = {
        job.payload["connection"]: str(job.status) for job in jobs.find(db, JobKind.GENERATE, "run", run_id)
    }
    assert left == {connection_id: "cancelled", other_id: "queued"}


def test_what_sqlite_cannot_hold_is_stored_as_well_as_can_be(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "one")
    run_id = plan(db, cases=1)
    (planned,) = responses.pending(db, run_id, connections.all_connections(db)[0].id)
    odd = ChatResult("half a pair: \ud83d", prompt_tokens=2**63, output_tokens=7)
    assert responses.fill(db, planned, responses.Outcome(odd, planned.params, "2026-01-01"))
    (row,) = responses.of_run(db, run_id)
    assert (row["text"], row["prompt_tokens"], row["output_tokens"]) == ("half a pair: ?", None, 7)


def test_a_parameter_that_the_server_refused_is_not_stored_as_sent(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "one")
    run_id = plan(db, cases=1)
    (planned,) = responses.pending(db, run_id, connections.all_connections(db)[0].id)
    result = ChatResult("hello", dropped=("temperature",))
    responses.fill(db, planned, responses.Outcome(result, planned.params, "2026-01-01"))
    (row,) = responses.of_run(db, run_id)
    assert "temperature" not in json.loads(row["params_json"])
    assert json.loads(row["params_json"])["top_p"] == planned.params.top_p


def test_a_run_of_millions_is_refused_with_its_size(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", *(f"model {n}" for n in range(30)))
    with pytest.raises(InputError, match="300,000 calls"):
        plan(db, cases=100, samples=100)
    assert runs.all_runs(db) == []


def test_models_that_a_server_no_longer_lists_are_hidden_and_come_back(db: Db) -> None:
    connection_id = add_connection(db, "http://127.0.0.1:1", "one", "two")
    first = {model.name: model.id for model in connections.models(db)}
    connections.remember_models(db, connection_id, [ModelInfo("two")])
    assert [model.name for model in connections.models(db)] == ["two"]
    connections.remember_models(db, connection_id, [ModelInfo("one"), ModelInfo("two")])
    assert {model.name: model.id for model in connections.models(db)} == first


def test_a_used_template_gets_a_new_version_and_an_unused_one_is_changed(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "one")
    use_case_id = add_use_case(db)
    assert use_cases.save_template(db, use_case_id, "Hello {{ who }}.") == 1
    template = use_cases.templates(db, use_case_id)[0]
    runs.plan(
        db,
        use_case_id=use_case_id,
        template_id=template.id,
        prompts={use_cases.cases(db, use_case_id)[0].id: "Hello."},
        model_ids=[connections.models(db)[0].id],
        samples=1,
        params=SamplingParams(),
    )
    assert use_cases.save_template(db, use_case_id, "Good day {{ who }}.") == 2
    assert [t.body for t in use_cases.templates(db, use_case_id)] == [
        "Good day {{ who }}.",
        "Hello {{ who }}.",
    ]


def test_cases_are_added_all_or_none(db: Db) -> None:
    use_case_id = add_use_case(db, cases=1)
    with pytest.raises(InputError, match="'case 1'"):
        use_cases.add_cases(db, use_case_id, [("new", {"who": "x"}), ("case 1", {"who": "y"})])
    assert [case.name for case in use_cases.cases(db, use_case_id)] == ["case 1"]


def test_a_response_is_filled_once(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "one")
    run_id = plan(db, cases=1)
    connection_id = connections.all_connections(db)[0].id
    (planned,) = responses.pending(db, run_id, connection_id)
    outcome = responses.Outcome(ChatResult("first"), planned.params, "2026-01-01")
    assert responses.fill(db, planned, outcome)
    assert not responses.fill(
        db, planned, responses.Outcome(ChatResult("second"), planned.params, "2026-01-01")
    )
    assert [row["text"] for row in responses.of_run(db, run_id)] == ["first"]


def test_an_answer_without_text_cannot_be_stored_as_ok(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "one")
    run_id = plan(db, cases=1)
    (planned,) = responses.pending(db, run_id, connections.all_connections(db)[0].id)
    with pytest.raises(IntegrityError):
        responses.fill(db, planned, responses.Outcome(ChatResult(""), planned.params, "2026-01-01"))
    assert runs.get(db, run_id).counts["pending"] == 1


def test_retrying_errors_leaves_good_answers_alone(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "good", "bad")
    run_id = plan(db, cases=2)
    fill_all(db, run_id, failing=("bad",))
    assert runs.get(db, run_id).counts == {"ok": 2, "error": 2, "pending": 0}
    assert runs.retry_errors(db, run_id) == 2
    assert runs.get(db, run_id).counts == {"ok": 2, "error": 0, "pending": 2}
