"""Studies as admins see them: create, launch, count, read the ratings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from slam_app.domain import Screen, SlotStatus, Study, StudyStatus, UseCase
from slam_app.errors import InputError, NotFound
from slam_app.store.db import Db, IntegrityError, now


def create(
    db: Db,
    *,
    run_id: int,
    name: str,
    raters: int,
    items_per_rater: int,
    completion_code: str,
    scale_max: int = 10,
) -> int:
    """A draft; its id. Raises InputError when a number is out of range or the name is empty."""
    row = {
        "run_id": run_id,
        "name": name.strip(),
        "raters": raters,
        "items_per_rater": items_per_rater,
        "scale_max": scale_max,
        "completion_code": completion_code,
        "created_at": now(),
    }
    try:
        with db.write() as con:
            return int(con.table("studies").insert(row).last_pk or 0)
    except IntegrityError:
        raise InputError(
            "A study needs a name, an existing run, 1 to 10,000 raters and 1 to 500 items for each."
        ) from None


def delete_draft(db: Db, study_id: int) -> None:
    with db.write() as con:
        con.execute("DELETE FROM studies WHERE id = ? AND status = 'draft'", [study_id])


def launch(
    db: Db,
    study_id: int,
    *,
    use_case: UseCase,
    link_hash: str,
    slots: Sequence[Sequence[Screen]],
    protocol: Mapping[str, Any],
    protocol_hash: str,
) -> None:
    """Freeze a draft: store what raters read and every slot with its screens as ordered, and open it.

    Raises:
        InputError: the study is no draft any more.
    """
    at = now()
    with db.write() as con:
        opened = con.execute(
            """UPDATE studies SET status = 'open', link_hash = :link, protocol_json = :protocol,
                      protocol_hash = :hash, launched_at = :at, title = :title,
                      description = :description, incumbent_model_id = :incumbent
               WHERE id = :id AND status = 'draft'""",
            {
                "link": link_hash,
                "protocol": json.dumps(protocol),
                "hash": protocol_hash,
                "at": at,
                "title": use_case.name,
                "description": use_case.description,
                "incumbent": use_case.incumbent_model_id,
                "id": study_id,
            },
        ).rowcount
        if not opened:
            raise InputError("This study has been launched already. What raters see can't change any more.")
        for number, screens in enumerate(slots, start=1):
            slot_id = con.execute(
                "INSERT INTO slots (study_id, number) VALUES (?, ?)", [study_id, number]
            ).lastrowid
            for position, screen in enumerate(screens, start=1):
                item_id = con.execute(
                    "INSERT INTO items (slot_id, position, case_id) VALUES (?, ?, ?)",
                    [slot_id, position, screen.case_id],
                ).lastrowid
                con.conn.executemany(
                    "INSERT INTO item_responses (item_id, position, response_id) VALUES (?, ?, ?)",
                    [(item_id, place, rid) for place, rid in enumerate(screen.response_ids, start=1)],
                )


def set_status(db: Db, study_id: int, status: StudyStatus) -> None:
    """Open or close a launched study. Closed, its link tells raters so; nothing is deleted."""
    with db.write() as con:
        con.execute(
            "UPDATE studies SET status = ?, closed_at = ? WHERE id = ? AND status <> 'draft'",
            [str(status), now() if status is StudyStatus.CLOSED else None, study_id],
        )


def renew_link(db: Db, study_id: int, version: int, link_hash: str) -> None:
    """Replace the link; the old one stops working at once."""
    with db.write() as con:
        con.execute(
            "UPDATE studies SET link_version = ?, link_hash = ? WHERE id = ? AND status <> 'draft'",
            [version, link_hash, study_id],
        )


def all_studies(db: Db) -> list[Study]:
    """The newest first."""
    return _studies(db, "", [])


def get(db: Db, study_id: int) -> Study:
    for study in _studies(db, "WHERE studies.id = ?", [study_id]):
        return study
    raise NotFound(f"There is no study {study_id}. See Studies for those there are.")


def latest(db: Db) -> Study:
    for study in _studies(db, "", []):
        return study
    raise NotFound("There is no study yet. Make one on Studies when a run is complete.")


def rateable(db: Db, run_id: int) -> list[dict[str, Any]]:
    """All responses of a run, without their metadata, for the design and the protocol."""
    with db.read() as con:
        return list(
            con.query(
                """SELECT id, model_id, case_id, sample, status, finish_reason, text, prompt
                   FROM responses JOIN run_cases USING (run_id, case_id)
                   WHERE run_id = ? ORDER BY id""",
                [run_id],
            )
        )


def ratings(db: Db, study_id: int) -> list[dict[str, Any]]:
    """One row per rating, of finished and unfinished sets alike; `complete` tells them apart."""
    with db.read() as con:
        return list(
            con.query(
                """SELECT slots.study_id AS study, substr(slots.rater_hash, 1, 12) AS rater,
                          slots.number AS slot, items.position AS item, ratings.position,
                          cases.name AS "case", models.name AS model, models.id AS model_id,
                          connections.name AS connection, item_responses.response_id AS response,
                          ratings.criterion, ratings.value, slots.status = 'complete' AS complete
                   FROM ratings
                   JOIN item_responses USING (item_id, position)
                   JOIN items ON items.id = ratings.item_id
                   JOIN slots ON slots.id = items.slot_id
                   JOIN cases ON cases.id = items.case_id
                   JOIN responses ON responses.id = item_responses.response_id
                   JOIN models ON models.id = responses.model_id
                   JOIN connections ON connections.id = models.connection_id
                   WHERE slots.study_id = ?
                   ORDER BY slots.number, items.position, ratings.position""",
                [study_id],
            )
        )


def _studies(db: Db, where: str, args: list[Any]) -> list[Study]:
    with db.read() as con:
        rows = list(
            con.query(
                f"""SELECT studies.*, runs.use_case_id,
                           (SELECT json_group_object(status, n) FROM (
                               SELECT status, count(*) AS n FROM slots
                               WHERE study_id = studies.id GROUP BY status)) AS counts
                    FROM studies JOIN runs ON runs.id = studies.run_id
                    {where} ORDER BY studies.id DESC""",
                args,
            )
        )
    return [
        Study(
            id=row["id"],
            run_id=row["run_id"],
            use_case_id=row["use_case_id"],
            name=row["name"],
            status=StudyStatus(row["status"]),
            raters=row["raters"],
            items_per_rater=row["items_per_rater"],
            scale_max=row["scale_max"],
            completion_code=row["completion_code"],
            link_version=row["link_version"],
            protocol_hash=row["protocol_hash"],
            created_at=row["created_at"],
            launched_at=row["launched_at"],
            incumbent_model_id=row["incumbent_model_id"],
            link_hash=row["link_hash"] or "",
            slots={status: json.loads(row["counts"]).get(status, 0) for status in SlotStatus},
        )
        for row in rows
    ]
