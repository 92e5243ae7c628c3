"""Work to its end without a page: for the command line."""

from __future__ import annotations

import time
from collections.abc import Callable

from slam_app import inventory
from slam_app.domain import Connection, JobKind, JobStatus, ResponseStatus
from slam_app.errors import DatabaseInUse, SlamError
from slam_app.jobs import Runner
from slam_app.store import jobs, runs
from slam_app.store.db import Db, only_process

POLL_S = 0.2


def finish_run(db: Db, run_id: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Wait until nothing of a run is left to do; `progress` hears (done, total) calls.

    Raises:
        SlamError: a connection gave up. What is left stays pending.
    """

    def done() -> bool:
        if progress:
            run = runs.get(db, run_id)
            progress(run.total - run.counts[ResponseStatus.PENDING], run.total)
        return not runs.active_jobs(db, run_id)

    _work_until(db, done)
    for job in jobs.find(db, JobKind.GENERATE, "run", run_id):
        if job.status is JobStatus.FAILED:
            raise SlamError(job.message)


def pull(db: Db, connection: Connection, name: str) -> None:
    """Fetch a model and wait for it. Raises SlamError with the reason when that fails."""
    job_id = inventory.start_pull(db, connection, name)
    _work_until(db, lambda: jobs.get(db, job_id).status.ended)
    job = jobs.get(db, job_id)
    if job.status is not JobStatus.DONE:
        raise SlamError(job.message)


def _work_until(db: Db, done: Callable[[], bool]) -> None:
    """Run jobs here until `done`; while a server or another command runs them, only watch.

    When that other process ends first, this one takes over.
    """
    while not done():
        try:
            with only_process(db.path):
                runner = Runner(db)
                runner.start()
                try:
                    while not done():
                        time.sleep(POLL_S)
                finally:
                    runner.stop()
        except DatabaseInUse:
            time.sleep(POLL_S)
