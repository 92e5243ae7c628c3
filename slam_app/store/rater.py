"""What a rater's browser may cause to be read and written. No query here names the table of models.

Raters address answers by item and place, both counted within their own set; ids of rows, which
follow the order in which models were planned, never leave this module.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlite_utils import Database

from slam_app.domain import RaterItem, RaterSlot, RaterStudy, SlotStatus, StudyStatus
from slam_app.errors import InputError, NoSlotLeft, SlotLost
from slam_app.store.db import Db, IntegrityError, now


def study(db: Db, link_hash: str) -> RaterStudy | None:
    with db.read() as con:
        rows = con.query(
            """SELECT id, status, scale_max, items_per_rater, title, description
               FROM studies WHERE link_hash = ?""",
            [link_hash],
        )
        for row in rows:
            return RaterStudy(
                id=row["id"],
                status=StudyStatus(row["status"]),
                title=row["title"],
                description=row["description"],
                scale_max=row["scale_max"],
                items=row["items_per_rater"],
            )
    return None


def slot(db: Db, study_id: int, rater_hash: str) -> RaterSlot | None:
    """The set that this rater holds, if any."""
    with db.read() as con:
        return _slot(con, study_id, rater_hash)


def claim(db: Db, study_id: int, rater_hash: str) -> RaterSlot:
    """The rater's set: the one held already, else a free one, taken in one statement.

    Raises:
        NoSlotLeft: every set is taken.
    """
    at = now()
    with db.write() as con:
        held = _slot(con, study_id, rater_hash)
        if held is None:
            con.execute(
                """UPDATE slots SET status = 'claimed', rater_hash = :rater, claimed_at = :at, seen_at = :at
                   WHERE id = (SELECT slots.id FROM slots
                               JOIN studies ON studies.id = slots.study_id AND studies.status = 'open'
                               WHERE study_id = :study AND slots.status = 'open'
                               ORDER BY number LIMIT 1)""",
                {"rater": rater_hash, "at": at, "study": study_id},
            )
            held = _slot(con, study_id, rater_hash)
    if held is None:
        raise NoSlotLeft(
            "Thank you for coming. All places in this study are taken, so there is nothing left to rate."
        )
    return held


def first_unfinished(db: Db, slot_id: int) -> RaterItem | None:
    """The first item of a set that still lacks a rating; None when all are rated."""
    with db.read() as con:
        row = con.execute(
            """SELECT items.id, items.position, run_cases.prompt
               FROM items
               JOIN slots ON slots.id = items.slot_id
               JOIN studies ON studies.id = slots.study_id
               JOIN run_cases ON run_cases.run_id = studies.run_id AND run_cases.case_id = items.case_id
               WHERE items.slot_id = ? AND EXISTS (
                   SELECT 1 FROM item_responses LEFT JOIN ratings USING (item_id, position)
                   WHERE item_responses.item_id = items.id AND ratings.id IS NULL)
               ORDER BY items.position LIMIT 1""",
            [slot_id],
        ).fetchone()
        if row is None:
            return None
        item_id, position, prompt = row
        shown = con.execute(
            """SELECT responses.text, ratings.value
               FROM item_responses
               JOIN responses ON responses.id = item_responses.response_id
               LEFT JOIN ratings USING (item_id, position)
               WHERE item_responses.item_id = ? ORDER BY item_responses.position""",
            [item_id],
        ).fetchall()
        return RaterItem(
            position=position,
            prompt=prompt,
            texts=tuple(text for text, _ in shown),
            values=tuple(None if value is None else int(value) for _, value in shown),
        )


def save(db: Db, slot_id: int, item: int, values: Sequence[int], scale_max: int) -> RaterSlot:
    """Store the ratings of one item in the order shown; the last one wins. A full set is complete.

    Raises:
        InputError: a value is missing or off the scale; nothing is stored.
        SlotLost: the set is not this rater's any more, or is complete already.
    """
    if any(not isinstance(value, int) or not 0 <= value <= scale_max for value in values):
        raise InputError(f"Please give each answer a score from 0 to {scale_max}.")
    at = now()
    with db.write() as con:
        row = con.execute(
            """SELECT items.id, slots.study_id, slots.rater_hash,
                      (SELECT count(*) FROM item_responses WHERE item_id = items.id)
               FROM items JOIN slots ON slots.id = items.slot_id
               WHERE items.slot_id = ? AND items.position = ? AND slots.status = 'claimed'""",
            [slot_id, item],
        ).fetchone()
        if row is None:
            raise SlotLost(
                "This set is finished or was given to somebody else. Open the link again to go on."
            )
        item_id, study_id, rater_hash, answers = row
        if answers != len(values):
            raise InputError(f"Please give a score to each of the {answers} answers.")
        try:
            con.conn.executemany(
                """INSERT INTO ratings (item_id, position, value, created_at, updated_at)
                   VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (item_id, position, criterion)
                   DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at""",
                [(item_id, place, value, at, at) for place, value in enumerate(values, start=1)],
            )
        except IntegrityError as error:
            raise InputError(f"These scores could not be stored ({error}). Please try again.") from None
        con.execute("UPDATE slots SET seen_at = ? WHERE id = ?", [at, slot_id])
        state = _slot(con, study_id, rater_hash)
        assert state is not None
        if state.finished == state.items:
            con.execute("UPDATE slots SET status = 'complete', finished_at = ? WHERE id = ?", [at, slot_id])
            state = _slot(con, study_id, rater_hash)
            assert state is not None
        return state


def completion_code(db: Db, slot_id: int) -> str | None:
    """The study's code, only for a set that is complete."""
    with db.read() as con:
        row = con.execute(
            """SELECT studies.completion_code FROM slots JOIN studies ON studies.id = slots.study_id
               WHERE slots.id = ? AND slots.status = 'complete'""",
            [slot_id],
        ).fetchone()
        return row[0] if row else None


def _slot(con: Database, study_id: int, rater_hash: str) -> RaterSlot | None:
    row = con.execute(
        """SELECT slots.id, slots.status,
                  (SELECT count(*) FROM items WHERE slot_id = slots.id),
                  (SELECT count(*) FROM items WHERE slot_id = slots.id AND NOT EXISTS (
                      SELECT 1 FROM item_responses LEFT JOIN ratings USING (item_id, position)
                      WHERE item_responses.item_id = items.id AND ratings.id IS NULL))
           FROM slots WHERE study_id = ? AND rater_hash = ?""",
        [study_id, rater_hash],
    ).fetchone()
    return RaterSlot(row[0], SlotStatus(row[1]), row[2], row[3]) if row else None
