"""Which rater sees which answers, in which order. Pure."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from slam_app.domain import Screen
from slam_app.errors import InputError

MAX_ON_SCREEN = 4
"""More answers than this on one screen and raters stop comparing; then cyclic blocks are used."""


def screens(responses: Sequence[Mapping[str, Any]]) -> tuple[list[Screen], int]:
    """All screens that a run offers, and how many (case, sample) pairs are left out.

    A pair is left out when any model failed at it, so that models are only compared on cases that
    all of them answered. Up to `MAX_ON_SCREEN` models share one screen; above that, the screens of
    a pair are the cyclic blocks i, i+1, ... of its models, in which every model is equally often.
    """
    models = list(dict.fromkeys(response["model_id"] for response in responses))
    answers: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for response in responses:
        pair = answers[response["case_id"], response["sample"]]
        if response["status"] == "ok":
            pair[response["model_id"]] = response["id"]
    found = []
    for (case_id, sample), by_model in answers.items():
        if len(by_model) < len(models):
            continue
        if len(models) <= MAX_ON_SCREEN:
            blocks = [models]
        else:
            blocks = [
                [models[(start + step) % len(models)] for step in range(MAX_ON_SCREEN)]
                for start in range(len(models))
            ]
        found += [Screen(case_id, sample, tuple(by_model[model] for model in block)) for block in blocks]
    left_out = sum(len(by_model) < len(models) for by_model in answers.values())
    return found, left_out


def assign(pool: Sequence[Screen], raters: int, items_per_rater: int, secret: bytes) -> list[list[Screen]]:
    """One list of screens per slot, with the answers of each in the order to show.

    Every screen of the pool is scheduled equally often (at most one apart), and no rater sees a screen
    twice. Within that, a rater meets as few answers twice (cyclic blocks overlap) and as many different
    cases as possible. Reproducible from `secret`.

    Raises:
        InputError: the pool has fewer screens than a rater should rate.
    """
    if not pool:
        raise InputError(
            "No case of this run was answered by all its models, so there is nothing to compare. "
            "Retry the errors on Generate first."
        )
    if items_per_rater > len(pool):
        raise InputError(
            f"This run offers {len(pool)} screens, so a rater can't rate {items_per_rater}. "
            "Lower the items per rater, or make a run with more cases or samples."
        )
    used: Counter[Screen] = Counter()
    slots = []
    for slot in range(raters):
        rng = _rng(secret, slot)
        chosen: list[Screen] = []
        cases: Counter[int] = Counter()
        seen: set[int] = set()
        left = list(pool)
        rng.shuffle(left)
        for _ in range(items_per_rater):
            best = min(
                left,
                key=lambda screen: (
                    used[screen],
                    len(seen.intersection(screen.response_ids)),
                    cases[screen.case_id],
                ),
            )
            left.remove(best)
            chosen.append(best)
            used[best] += 1
            cases[best.case_id] += 1
            seen.update(best.response_ids)
        rng.shuffle(chosen)
        slots.append([_in_random_order(screen, secret, slot, item) for item, screen in enumerate(chosen)])
    return slots


def _in_random_order(screen: Screen, secret: bytes, slot: int, item: int) -> Screen:
    order = list(screen.response_ids)
    _rng(secret, slot, item).shuffle(order)
    return Screen(screen.case_id, screen.sample, tuple(order))


def _rng(secret: bytes, *place: int) -> random.Random:
    """Seeded by SHA-256 of the study's secret and the place, so that nobody can predict an order."""
    return random.Random(hashlib.sha256(secret + repr(place).encode()).digest())
