"""The command line: each command is a thin call into the packages. Exit code 0, or 1 with one line."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from slam_app import __version__, exports, first_start, generation, headless, inventory
from slam_app.config import Settings
from slam_app.domain import ConnectionKind, Model, ResponseStatus, SamplingParams
from slam_app.errors import InputError, SlamError
from slam_app.store import connections, jobs, responses, runs, studies, use_cases
from slam_app.store.db import Db


class _Group(click.Group):
    """Shows our own errors as one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SlamError as error:
            raise click.ClickException(" ".join(str(error).split())) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="slam_app")
def main() -> None:
    """SLaM: can a small, self-hosted language model replace the proprietary one behind a feature?"""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def with_db(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --db, and hands the settings to the command."""

    @click.option("--db", "db_path", type=click.Path(path_type=Path), help="Database file [env: SLAM_DB].")
    @functools.wraps(command)
    def with_settings(db_path: Path | None, **options: Any) -> None:
        if db_path:
            os.environ["SLAM_DB"] = str(db_path)
        command(Settings.from_env(), **options)

    return with_settings


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command()
@with_db
@click.option("--host", help="Address to listen on [env: SLAM_HOST, default 127.0.0.1].")
@click.option("--port", help="Port to listen on [env: SLAM_PORT, default 8501].")
def serve(settings: Settings, host: str | None, port: str | None) -> None:
    """Run the app in the browser until it is stopped."""
    from slam_app import server

    if host:
        os.environ["SLAM_HOST"] = host
    if port:
        os.environ["SLAM_PORT"] = port
    server.serve(Settings.from_env())


@main.command()
@with_db
@as_json
@click.option("--cases", default=3, show_default=True, type=click.IntRange(1, 6), help="Sample cases to use.")
@click.option("--samples", default=2, show_default=True, type=click.IntRange(1, 20), help="Answers per case.")
@click.option("--max-tokens", default=120, show_default=True, type=click.IntRange(1, 2000))
def demo(settings: Settings, as_json: bool, cases: int, samples: int, max_tokens: int) -> None:
    """Do the main job without a browser: both carried models, the sample use case, real inference."""
    started = time.monotonic()
    db = Db(settings.db)
    first_start.prepare(db, settings)
    embedded = first_start.embedded_connection(db)
    inventory.refresh(db, embedded)
    models = [m for m in connections.models(db) if m.connection_id == embedded.id and m.info.can_chat]
    use_case = first_start.sample_use_case(db)
    run_id = generation.plan_run(
        db,
        template=use_cases.templates(db, use_case.id)[0],
        cases=use_cases.cases(db, use_case.id)[:cases],
        model_ids=[m.id for m in models],
        samples=samples,
        params=SamplingParams(max_tokens=max_tokens),
    )
    headless.finish_run(db, run_id, None if as_json else _show_progress)
    counts = runs.get(db, run_id).counts
    result = {
        "run": run_id,
        "models": [m.name for m in models],
        "responses": {
            "ok": counts[ResponseStatus.OK],
            "error": counts[ResponseStatus.ERROR],
        },
        "seconds": round(time.monotonic() - started, 2),
        "tokens_per_s": {p.model: p.tokens_per_s for p in responses.progress(db, run_id)},
    }
    if as_json:
        click.echo(json.dumps(result))
        return
    for row in responses.of_run(db, run_id)[:: max(1, samples)]:
        click.echo(f"\n{row['model']} · {row['case']}\n{row['text'] or row['error']}")
    click.echo(f"\nRun {run_id}: {result['responses']} in {result['seconds']} s.")
    click.echo(f"Look at it with: python -m slam_app serve --db {settings.db}")


@main.command()
@with_db
@as_json
@click.option("--connection", help="Only this connection.")
@click.option("--pull", "pull", metavar="NAME", help="Fetch this model first (needs --connection).")
def models(settings: Settings, as_json: bool, connection: str | None, pull: str | None) -> None:
    """List the models of every connection that answers."""
    db = Db(settings.db)
    first_start.prepare(db, settings)
    chosen = [c for c in connections.all_connections(db) if connection in (None, c.name)]
    if not chosen:
        raise InputError(f"There is no connection called {connection!r}.")
    if pull:
        if connection is None:
            raise InputError("Say where to pull to, with --connection NAME.")
        headless.pull(db, chosen[0], pull)
    for found in chosen:
        try:
            inventory.refresh(db, found)
        except SlamError as error:
            click.echo(f"{found.name}: {error}", err=True)
    shown = [m for m in connections.models(db) if connection in (None, m.connection)]
    if as_json:
        click.echo(
            json.dumps(
                [{**asdict(m.info), "connection": m.connection, "id": m.id} for m in shown], default=str
            )
        )
        return
    for m in shown:
        size = f"{m.info.size_bytes / 1e9:.2f} GB" if m.info.size_bytes else "size unknown"
        click.echo(f"{m.connection:12} {m.name:40} {m.info.quantization:10} {size}")


@main.command()
@with_db
@as_json
@click.option("--use-case", "use_case_name", help="Name of the use case [default: the first].")
@click.option(
    "--model",
    "model_names",
    multiple=True,
    help="NAME or CONNECTION/NAME; repeatable [default: all that run on your own machines].",
)
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1, 100))
@click.option("--temperature", default=0.7, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--max-tokens", default=512, show_default=True)
@click.option("--num-ctx", default=4096, show_default=True)
def run(
    settings: Settings,
    as_json: bool,
    use_case_name: str | None,
    model_names: tuple[str, ...],
    samples: int,
    **sampling: Any,
) -> None:
    """Generate responses: models x cases x samples, to the end."""
    db = Db(settings.db)
    first_start.prepare(db, settings)
    for connection in connections.all_connections(db):
        try:
            inventory.refresh(db, connection)
        except SlamError as error:
            click.echo(f"{connection.name}: {error}", err=True)
    all_use_cases = use_cases.all_use_cases(db)
    use_case = next((u for u in all_use_cases if use_case_name in (None, u.name)), None)
    if use_case is None:
        raise InputError(f"There is no use case called {use_case_name!r}.")
    versions = use_cases.templates(db, use_case.id)
    if not versions:
        raise InputError(f"{use_case.name} has no template yet. Write one on Prompts.")
    run_id = generation.plan_run(
        db,
        template=versions[0],
        cases=use_cases.cases(db, use_case.id),
        model_ids=[m.id for m in _chosen_models(db, model_names)],
        samples=samples,
        params=replace(SamplingParams(), **sampling),
    )
    headless.finish_run(db, run_id, None if as_json else _show_progress)
    counts = runs.get(db, run_id).counts
    if as_json:
        click.echo(json.dumps({"run": run_id, "responses": counts}))
    else:
        click.echo(f"Run {run_id}: {counts[ResponseStatus.OK]} ok, {counts[ResponseStatus.ERROR]} errors.")


@main.group()
def export() -> None:
    """Write responses or ratings as CSV or JSON to standard output."""


as_format = click.option(
    "--format", "format_", type=click.Choice(["csv", "json"]), default="csv", show_default=True
)


@export.command("responses")
@with_db
@as_format
@click.option("--run", "run_id", type=int, help="Run [default: the latest].")
def export_responses(settings: Settings, format_: str, run_id: int | None) -> None:
    """All responses of a run with their tokens, timings and errors."""
    db = Db(settings.db)
    chosen = runs.get(db, run_id) if run_id else runs.latest(db)
    rows = exports.response_rows(responses.of_run(db, chosen.id))
    _print(rows, exports.RESPONSE_COLUMNS, format_)


@export.command("ratings")
@with_db
@as_format
@click.option("--study", "study_id", type=int, help="Study [default: the latest].")
def export_ratings(settings: Settings, format_: str, study_id: int | None) -> None:
    """All ratings of a study; `complete` tells finished sets from unfinished ones."""
    db = Db(settings.db)
    chosen = studies.get(db, study_id) if study_id else studies.latest(db)
    rows = exports.rating_rows(studies.ratings(db, chosen.id))
    _print(rows, exports.RATING_COLUMNS, format_)


@main.command()
@with_db
@as_json
def check(settings: Settings, as_json: bool) -> None:
    """Verify the database: integrity, foreign keys, no stuck jobs. Exit code 1 when something is wrong."""
    if not settings.db.exists():
        raise InputError(f"There is no database at {settings.db}. Give its path with --db.")
    db = Db(settings.db)
    problems = db.check()
    problems += [
        f"Job {job.id} ({job.kind}) is marked as running, but nobody runs it. Start the server: it goes on."
        for job in jobs.stuck(db)
    ]
    if as_json:
        click.echo(json.dumps({"database": str(settings.db), "ok": not problems, "problems": problems}))
    elif not problems:
        click.echo(f"{settings.db} is well.")
    else:
        click.echo("\n".join(problems), err=True)
    if problems:
        sys.exit(1)


def _print(rows: list[dict[str, Any]], columns: list[str], format_: str) -> None:
    if format_ == "json":
        click.echo(exports.to_json(rows))
    else:
        click.echo(exports.to_csv(rows, columns), nl=False)


def _chosen_models(db: Db, names: tuple[str, ...]) -> list[Model]:
    there = [m for m in connections.models(db) if m.info.can_chat]
    if not names:  # an API that costs money is only called by name
        return [m for m in there if m.kind is not ConnectionKind.OPENAI]
    chosen = []
    for name in names:
        found = [m for m in there if name in (m.name, f"{m.connection}/{m.name}")]
        if not found:
            raise InputError(f"There is no model {name!r}. `python -m slam_app models` lists them.")
        chosen += found
    return chosen


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} calls", nl=done == total, err=True)
