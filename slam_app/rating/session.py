"""One rater's way through a set. All state is in the database, so any tab can go on."""

from __future__ import annotations

from slam_app import keys
from slam_app.domain import RaterItem, RaterSlot, RaterStudy, StudyStatus
from slam_app.errors import LinkUnknown, StudyNotOpen
from slam_app.store import rater
from slam_app.store.db import Db


def find_study(db: Db, token: str) -> RaterStudy:
    """Raises LinkUnknown."""
    study = rater.study(db, keys.digest(token)) if token else None
    if study is None:
        raise LinkUnknown(
            "This link belongs to no study. Please check that you copied all of it, "
            "or ask the people who sent it to you for a new one."
        )
    return study


def resume(db: Db, study: RaterStudy, rater_hash: str) -> RaterSlot | None:
    """The set that this rater has begun or finished.

    Raises:
        StudyNotOpen: it is closed, and this rater has not finished before.
    """
    slot = rater.slot(db, study.id, rater_hash)
    if study.status is not StudyStatus.OPEN and (slot is None or slot.finished < slot.items):
        raise StudyNotOpen("Thank you for coming. This study is closed at the moment.")
    return slot


def start(db: Db, study: RaterStudy, rater_hash: str) -> RaterSlot:
    """Claim a set. Raises NoSlotLeft, StudyNotOpen."""
    return resume(db, study, rater_hash) or rater.claim(db, study.id, rater_hash)


def current_item(db: Db, slot: RaterSlot) -> RaterItem | None:
    return rater.first_unfinished(db, slot.id)


def rater_hash(db: Db, study: RaterStudy, identity: str) -> str:
    """What is stored of a rater: different in each study, and not to be guessed without the key file."""
    return keys.derive(keys.installation_key(db.path), f"rater {study.id} {identity}")
