"""Preparing and launching a study, and its link."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass

from slam_app import keys
from slam_app.domain import FinishReason, Study
from slam_app.rating import design
from slam_app.store import runs, studies, use_cases
from slam_app.store.db import Db

CODE_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Without letters that are easily mistaken for others."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a run offers to raters: screens, pairs of case and sample left out, and answers a screen.

    `cut` counts the answers that ended at a limit, so in mid-sentence.
    """

    screens: int
    left_out: int
    answers_per_screen: int
    cut: int


def offer(db: Db, run_id: int) -> Offer:
    responses = studies.rateable(db, run_id)
    pool, left_out = design.screens(responses)
    cut = sum(
        row["finish_reason"] in (FinishReason.MAX_TOKENS, FinishReason.CONTEXT_FULL) for row in responses
    )
    return Offer(len(pool), left_out, len(pool[0].response_ids) if pool else 0, cut)


def create(db: Db, *, run_id: int, name: str, raters: int, items_per_rater: int) -> int:
    """A draft of a study; its id. Raises InputError."""
    code = "".join(secrets.choice(CODE_LETTERS) for _ in range(8))
    return studies.create(
        db,
        run_id=run_id,
        name=name,
        raters=raters,
        items_per_rater=items_per_rater,
        completion_code=code,
    )


def launch(db: Db, study_id: int) -> str:
    """Assign every screen, freeze and open the study; its link token.

    Raises:
        InputError: the run does not offer enough screens, or the study was launched before.
    """
    study = studies.get(db, study_id)
    use_case = use_cases.get(db, study.use_case_id)
    secret = secrets.token_bytes(32)
    responses = studies.rateable(db, study.run_id)
    pool, left_out = design.screens(responses)
    slots = design.assign(pool, study.raters, study.items_per_rater, secret)
    run = runs.get(db, study.run_id)
    rated = {answer for slot in slots for screen in slot for answer in screen.response_ids}
    protocol = {
        "study": study.id,
        "title": use_case.name,
        "description": use_case.description,
        "incumbent_model": use_case.incumbent_model_id,
        "run": run.id,
        "template_version": run.template_version,
        "params": run.params.to_dict(),
        "raters": study.raters,
        "items_per_rater": study.items_per_rater,
        "scale": [0, study.scale_max],
        "left_out": left_out,
        "shown": {
            row["id"]: [_sha256(row["prompt"]), _sha256(row["text"])]
            for row in responses
            if row["id"] in rated
        },
        "assignment": [[[screen.case_id, *screen.response_ids] for screen in slot] for slot in slots],
    }
    token = _token(db, study)
    studies.launch(
        db,
        study_id,
        use_case=use_case,
        link_hash=keys.digest(token),
        slots=slots,
        protocol=protocol,
        protocol_hash=_sha256(json.dumps(protocol, sort_keys=True)),
    )
    return token


def link(db: Db, study: Study, public_url: str) -> str:
    """The address to share with raters."""
    return f"{public_url}/rate?s={_token(db, study)}"


def link_works(db: Db, study: Study) -> bool:
    """False when the key file was lost or replaced since the link was made: then it must be renewed."""
    return keys.digest(_token(db, study)) == study.link_hash


def renew_link(db: Db, study: Study) -> None:
    """Make a new link. The old one stops working; raters go on with the new one in the same browser."""
    token = _token(db, study, study.link_version + 1)
    studies.renew_link(db, study.id, study.link_version + 1, keys.digest(token))


def _token(db: Db, study: Study, version: int | None = None) -> str:
    key = keys.installation_key(db.path)
    return keys.derive(key, f"study {study.id} {study.created_at} {version or study.link_version}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
