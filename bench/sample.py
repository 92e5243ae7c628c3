"""A database with a launched study over the sample's cases; its answers are made up, no model ran."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from slam_app import auth, first_start, generation
from slam_app.config import Settings
from slam_app.domain import ChatResult, ConnectionKind, FinishReason, ModelInfo, SamplingParams
from slam_app.rating import studies
from slam_app.store import connections, responses, use_cases
from slam_app.store import studies as studies_store
from slam_app.store.db import Db, now
from tests.serving import PASSWORD

MODELS = ("first-model", "second-model")
SAMPLES = 2
SCALE_MAX = 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study that waits for raters. `cookie` is that of a logged-in admin."""

    db: Path
    run_id: int
    study_id: int
    token: str
    screens: int
    cookie: str


def prepare(folder: Path, raters: int, screens: int) -> Prepared:
    """A fresh database in `folder` with one study: sets for `raters`, of `screens` screens each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "slam.db"
    db = Db(path)
    settings = Settings.from_env({"SLAM_DB": str(path), "SLAM_ADMIN_PASSWORD": PASSWORD})
    auth.ensure_password(db, settings)
    use_case_id = first_start.install_sample(db)
    connection_id = connections.add(db, name="Embedded", kind=ConnectionKind.EMBEDDED)
    connections.remember_models(db, connection_id, [ModelInfo(name) for name in MODELS])
    run_id = generation.plan_run(
        db,
        template=use_cases.templates(db, use_case_id)[0],
        cases=use_cases.cases(db, use_case_id),
        model_ids=[model.id for model in connections.models(db)],
        samples=SAMPLES,
        params=SamplingParams(),
    )
    for planned in responses.pending(db, run_id, connection_id):
        result = ChatResult(_answer(planned.id), finish_reason=FinishReason.STOP, server_model=planned.model)
        responses.fill(db, planned, responses.Outcome(result, planned.params, now()))
    study_id = studies.create(db, run_id=run_id, name="Bench", raters=raters, items_per_rater=screens)
    token = studies.launch(db, study_id)
    session = auth.log_in(db, PASSWORD)
    assert session is not None
    db.close()
    return Prepared(path, run_id, study_id, token, screens, f"{auth.COOKIE}={session}")


def _answer(number: int) -> str:
    """As long as a briefing of four sentences, and different for every response."""
    return (
        f"Answer {number} starts with what was finished yesterday and why it was worth the trouble. "
        "Today's three tasks all lead to the exam on Friday, so begin with the chapter that is left, while "
        "the morning is quiet, and ask about the dates before lunch. The stretching keeps your back ready "
        "for the night. By the evening most of this week's goal will be behind you."
    )


def planned_value(text: str) -> int:
    """The score that every bench rater gives this answer, so that each stored rating can be checked."""
    return zlib.crc32(text.encode()) % (SCALE_MAX + 1)


def wrong_ratings(prepared: Prepared) -> tuple[int, int]:
    """How many ratings are stored, and how many of them are not the planned value of their answer."""
    db = Db(prepared.db)
    try:
        texts = {row["id"]: row["text"] for row in responses.of_run(db, prepared.run_id)}
        rows = studies_store.ratings(db, prepared.study_id)
    finally:
        db.close()
    return len(rows), sum(row["value"] != planned_value(texts[row["response"]]) for row in rows)
