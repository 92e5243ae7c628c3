"""Work to its end without a page: for the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from slam_app import inventory
from slam_app.domain import Connection, JobKind, JobStatus, ResponseStatus
from slam_app.errors import DatabaseInUse, SlamError
from slam_app.jobs import Runner
from slam_app.store import jobs, runs
from slam_app.store.db import Db, only_process

POLL_S = 0.2


@contextmanager
def working(db: Db) -> Iterator[None]:
    """Jobs run in this process, unless a server holds the database: then it does the work."""
    with ExitStack() as stack:
        try:
            stack.enter_context(only_process(db.path))
        except DatabaseInUse:
            yield
            return
        runner = Runner(db)
        runner.start()
        stack.callback(runner.stop)
        yield


def finish_run(db: Db, run_id: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Wait until nothing of a run is left to do; `progress` hears (done, total) calls.

    Raises:
        SlamError: a connection gave up. What is left stays pending.
    """
    with working(db):
        while runs.active_jobs(db, run_id):
            time.sleep(POLL_S)
            if progress:
                run = runs.get(db, run_id)
                progress(run.total - run.counts[ResponseStatus.PENDING], run.total)
    for job in jobs.find(db, JobKind.GENERATE, "run", run_id):
        if job.status is JobStatus.FAILED:
            raise SlamError(job.message)


def pull(db: Db, connection: Connection, name: str) -> None:
    """Fetch a model and wait for it. Raises SlamError with the reason when that fails."""
    with working(db):
        job_id = inventory.start_pull(db, connection, name)
        while not (job := jobs.get(db, job_id)).status.ended:
            time.sleep(POLL_S)
    if job.status is not JobStatus.DONE:
        raise SlamError(job.message)
