"""The runner: one background thread of the server with an event loop in which all jobs run.

A page that starts work only inserts a row; the runner finds it, keeps its lease, and ends it. Kill
the process at any moment: the next start requeues what ran, and the pending rows say what is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

from slam_app import generation, inventory
from slam_app.domain import Job, JobKind, JobStatus
from slam_app.errors import SlamError, StoreError
from slam_app.store import jobs
from slam_app.store.db import Db

log = logging.getLogger(__name__)

LEASE_S = 30.0
POLL_S = 0.4
"""How soon a new job starts and a cancel is heard."""
STORE_PAUSE_S = 5.0

Handler = Callable[[Db, Job], Awaitable[str]]

HANDLERS: Mapping[JobKind, Handler] = {
    JobKind.GENERATE: generation.run_job,
    JobKind.PULL: inventory.run_pull_job,
}


class Runner:
    """Runs jobs until stopped. Only the process that holds the database may have one."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="slam-jobs", daemon=True
        )
        self._held: dict[int, tuple[Job, asyncio.Task[None]]] = {}
        self._cancelled: set[int] = set()
        self._renewed_at = time.monotonic()

    def start(self) -> None:
        """Take up what an earlier process left, then look for work."""
        jobs.recover(self._db)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Give unfinished jobs back and end; the next start goes on with them."""
        self._stop.set()
        self._thread.join(timeout=10)

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._look()
            except StoreError as error:
                # A full disk or a locked file passes; the work is in the rows and waits.
                log.error("Jobs wait: %s", error)
                await asyncio.sleep(STORE_PAUSE_S)
            except Exception:
                log.exception("The job runner stumbled and goes on")
                await asyncio.sleep(STORE_PAUSE_S)
            await asyncio.sleep(POLL_S)
        tasks = [task for _, task in self._held.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Keep what runs, cancel what somebody wants to end, claim what is free."""
        if time.monotonic() - self._renewed_at > LEASE_S / 3:
            for held, task in list(self._held.values()):
                kept = await asyncio.to_thread(jobs.renew, self._db, held, LEASE_S)
                if not kept and held.id in self._held:  # else it ended while we asked
                    task.cancel()
            self._renewed_at = time.monotonic()
        for job_id in await asyncio.to_thread(jobs.cancel_requested, self._db):
            if job_id in self._held:
                self._cancelled.add(job_id)
                self._held[job_id][1].cancel()
        while job := await asyncio.to_thread(self._claim):
            self._held[job.id] = job, asyncio.create_task(self._do(job))

    def _claim(self) -> Job | None:
        return jobs.claim(self._db, self._owner, LEASE_S, list(self._held))

    async def _do(self, job: Job) -> None:
        """Run one job to its end and store how it ended; `finish` refuses if another runner has it."""
        status, message = JobStatus.FAILED, ""
        try:
            message = await HANDLERS[job.kind](self._db, job)
            status = JobStatus.DONE
        except asyncio.CancelledError:
            status, message = JobStatus.CANCELLED, "Cancelled. What was finished is kept."
        except StoreError as error:
            # Not ended: the lease runs out and the job is claimed again when the database is well.
            log.error("Job %s stops for now: %s", job.id, error)
            return
        except SlamError as error:
            message = str(error)
        except Exception:
            log.exception("Job %s broke", job.id)
            message = "Something unexpected broke this job; the server's log has the details. Try Resume."
        finally:
            self._held.pop(job.id, None)
        try:
            if status is JobStatus.CANCELLED and job.id not in self._cancelled:
                jobs.release(self._db, job)  # nobody asked for it: the server stops, or the lease is gone
            else:
                jobs.finish(self._db, job, status, message)
        except StoreError as error:
            log.error("The end of job %s could not be stored: %s", job.id, error)
        self._cancelled.discard(job.id)
