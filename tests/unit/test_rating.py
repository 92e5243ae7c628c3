"""Studies from the design to the last rating, on a real database."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slam_app import keys
from slam_app.domain import RaterSlot, SlotStatus, StudyStatus
from slam_app.errors import InputError, LinkUnknown, NoSlotLeft, SlotLost, StudyNotOpen
from slam_app.rating import design, session, studies, summary
from slam_app.store import connections, rater, use_cases
from slam_app.store import studies as store
from slam_app.store.db import Db
from tests.factories import add_connection, fill_all, plan


def responses(models: int, cases: int, samples: int = 1, failed: int = 0) -> list[dict[str, object]]:
    rows = [
        {"model_id": m, "case_id": c, "sample": s, "status": "ok"}
        for m in range(models)
        for c in range(cases)
        for s in range(samples)
    ]
    return [
        {**row, "id": number, "status": "error" if number < failed else "ok"}
        for number, row in enumerate(rows)
    ]


@settings(deadline=None)
@given(
    models=st.integers(1, 9),
    cases=st.integers(1, 6),
    raters=st.integers(1, 15),
    items=st.integers(1, 10),
    secret=st.binary(min_size=8, max_size=8),
)
def test_every_answer_is_scheduled_equally_often_and_nobody_sees_a_screen_twice(
    models: int, cases: int, raters: int, items: int, secret: bytes
) -> None:
    pool, left_out = design.screens(responses(models, cases))
    assert left_out == 0
    items = min(items, len(pool))
    slots = design.assign(pool, raters, items, secret)
    shown = Counter(
        (screen.case_id, screen.sample, frozenset(screen.response_ids)) for slot in slots for screen in slot
    )
    times = [shown[screen.case_id, screen.sample, frozenset(screen.response_ids)] for screen in pool]
    assert max(times) - min(times) <= 1
    for slot in slots:
        seen = {(screen.case_id, screen.sample, frozenset(screen.response_ids)) for screen in slot}
        assert len(seen) == items
    if models > design.MAX_ON_SCREEN:
        in_pool = Counter(answer for screen in pool for answer in screen.response_ids)
        assert set(in_pool.values()) == {design.MAX_ON_SCREEN}


def test_a_rater_of_many_models_meets_hardly_an_answer_twice() -> None:
    pool, _ = design.screens(responses(models=8, cases=5))
    slots = design.assign(pool, raters=20, items_per_rater=10, secret=b"secret")
    for slot in slots:
        times = Counter(answer for screen in slot for answer in screen.response_ids)
        assert sum(times.values()) - len(times) <= 6, "of 40 answers"


def test_the_letter_of_a_model_changes_from_screen_to_screen() -> None:
    pool, _ = design.screens(responses(models=2, cases=10))
    slots = design.assign(pool, 20, 10, b"secret")
    first = Counter(screen.response_ids[0] // 10 for slot in slots for screen in slot)  # 10 ids a model
    assert 70 < first[0] < 130, first


def test_a_case_that_a_model_failed_at_is_left_out_for_all_models() -> None:
    pool, left_out = design.screens(responses(models=2, cases=3, failed=1))
    assert left_out == 1
    assert {screen.case_id for screen in pool} == {1, 2}


def test_more_items_than_screens_are_refused_with_the_number() -> None:
    pool, _ = design.screens(responses(models=2, cases=3))
    with pytest.raises(InputError, match="offers 3 screens"):
        design.assign(pool, 1, 4, b"secret")


@pytest.fixture
def study_id(db: Db) -> int:
    add_connection(db, "http://127.0.0.1:1", "alpha", "beta")
    run_id = plan(db, cases=3)
    fill_all(db, run_id)
    return studies.create(db, run_id=run_id, name="alpha against beta", raters=2, items_per_rater=3)


def rate_all(db: Db, token: str, identity: str, score: int = 5, screens: int = 99) -> RaterSlot:
    study = session.find_study(db, token)
    slot = session.start(db, study, session.rater_hash(db, study, identity))
    while screens and (item := session.current_item(db, slot)):
        slot = rater.save(db, slot.id, item.position, [score] * len(item.texts), study.scale_max)
        screens -= 1
    return slot


def test_a_finished_set_gives_the_code_and_counts(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    slot = rate_all(db, token, "one")
    assert slot.status is SlotStatus.COMPLETE
    study = store.get(db, study_id)
    assert rater.completion_code(db, slot.id) == study.completion_code
    assert study.slots == {SlotStatus.OPEN: 1, SlotStatus.CLAIMED: 0, SlotStatus.COMPLETE: 1}
    assert [row["complete"] for row in store.ratings(db, study_id)] == [1] * 6


def test_an_unfinished_set_never_counts_and_has_no_code(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    slot = rate_all(db, token, "one", screens=2)
    assert rater.completion_code(db, slot.id) is None
    ratings, means, _ = summary.by_model(store.ratings(db, study_id), None, seed=1)
    assert len(store.ratings(db, study_id)) == 4
    assert ratings.empty and means.empty


def test_a_rater_goes_on_at_the_first_unfinished_item(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    begun = rate_all(db, token, "one", screens=0)
    first = session.current_item(db, begun)
    assert first is not None and first.position == 1
    rate_all(db, token, "one", screens=1)
    study = session.find_study(db, token)
    slot = session.resume(db, study, session.rater_hash(db, study, "one"))
    assert slot is not None and (slot.finished, slot.items) == (1, 3)
    item = session.current_item(db, slot)
    assert item is not None and item.position == 2 and item.values == (None, None)


def test_saving_twice_keeps_one_rating_the_last(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    slot = rate_all(db, token, "one", screens=0)
    rater.save(db, slot.id, 1, [1, 2], 10)
    rater.save(db, slot.id, 1, [3, 4], 10)
    assert [row["value"] for row in store.ratings(db, study_id)] == [3, 4]


@pytest.mark.parametrize("values", [[5], [5, 5, 5], [5, 11], [-1, 5], [5, 2.5], [5, None], [True, "5"]])
def test_forged_values_store_nothing(db: Db, study_id: int, values: list[object]) -> None:
    slot = rate_all(db, studies.launch(db, study_id), "one", screens=0)
    with pytest.raises(InputError):
        rater.save(db, slot.id, 1, values, 10)  # type: ignore[arg-type]
    assert store.ratings(db, study_id) == []


def test_a_finished_set_cannot_be_changed(db: Db, study_id: int) -> None:
    slot = rate_all(db, studies.launch(db, study_id), "one")
    with pytest.raises(SlotLost):
        rater.save(db, slot.id, 1, [0, 0], 10)
    assert {row["value"] for row in store.ratings(db, study_id)} == {5}


def test_raters_beyond_the_slots_are_told_so(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    rate_all(db, token, "one", screens=0)
    rate_all(db, token, "two", screens=0)
    with pytest.raises(NoSlotLeft, match="All places"):
        rate_all(db, token, "three", screens=0)
    assert rate_all(db, token, "two", screens=0).status is SlotStatus.CLAIMED


def test_forty_raters_on_thirty_slots_get_thirty_different_ones(db: Db) -> None:
    add_connection(db, "http://127.0.0.1:1", "alpha", "beta")
    run_id = plan(db, cases=3)
    fill_all(db, run_id)
    token = studies.launch(db, studies.create(db, run_id=run_id, name="s", raters=30, items_per_rater=1))
    got: list[int | None] = []

    def come(number: int) -> None:
        try:
            got.append(rate_all(db, token, f"rater {number}", screens=0).id)
        except NoSlotLeft:
            got.append(None)

    threads = [threading.Thread(target=come, args=[number]) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 40
    assert len({slot for slot in got if slot}) == 30
    assert got.count(None) == 10


def test_a_launched_study_is_frozen(db: Db, study_id: int) -> None:
    studies.launch(db, study_id)
    frozen = store.get(db, study_id)
    assert re.fullmatch("[0-9a-f]{64}", frozen.protocol_hash)
    with pytest.raises(InputError, match="launched already"):
        studies.launch(db, study_id)
    store.delete_draft(db, study_id)
    assert store.get(db, study_id) == frozen


def test_raters_of_a_launched_study_read_what_it_was_launched_with(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    before = session.find_study(db, token)
    use_case = use_cases.all_use_cases(db)[0]
    use_cases.update(
        db,
        use_case.id,
        name="New",
        description="Short is best!",
        incumbent_model_id=connections.models(db)[0].id,
    )
    assert session.find_study(db, token) == before
    assert before.description == use_case.description
    assert store.get(db, study_id).incumbent_model_id is None


def test_the_protocol_covers_every_text_that_raters_see(db: Db, study_id: int) -> None:
    studies.launch(db, study_id)
    with db.read() as con:
        (protocol,) = con.execute("SELECT protocol_json FROM studies").fetchone()
    shown = json.loads(protocol)["shown"]
    assert len(shown) == 6
    text = hashlib.sha256(b"Hello from 1.").hexdigest()
    assert text in {digest for _, digest in shown.values()}


def test_a_link_of_a_lost_key_is_known_not_to_work(db: Db, study_id: int) -> None:
    studies.launch(db, study_id)
    assert studies.link_works(db, store.get(db, study_id))
    Path(f"{db.path}.key").unlink()
    assert not studies.link_works(db, store.get(db, study_id))
    studies.renew_link(db, store.get(db, study_id))
    assert studies.link_works(db, store.get(db, study_id))


def test_nobody_claims_a_set_of_a_study_that_was_just_closed(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    study = session.find_study(db, token)
    store.set_status(db, study_id, StudyStatus.CLOSED)
    with pytest.raises(NoSlotLeft):
        rater.claim(db, study.id, "somebody")


def test_a_closed_study_says_so_and_opens_again(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    rate_all(db, token, "one", screens=1)
    done = rate_all(db, token, "two")
    store.set_status(db, study_id, StudyStatus.CLOSED)
    study = session.find_study(db, token)
    with pytest.raises(StudyNotOpen):
        session.start(db, study, session.rater_hash(db, study, "one"))
    assert session.resume(db, study, session.rater_hash(db, study, "two")) == done
    store.set_status(db, study_id, StudyStatus.OPEN)
    assert rate_all(db, token, "one").status is SlotStatus.COMPLETE


def test_a_renewed_link_replaces_the_old_one_and_keeps_the_raters(db: Db, study_id: int) -> None:
    old = studies.launch(db, study_id)
    rate_all(db, old, "one", screens=1)
    studies.renew_link(db, store.get(db, study_id))
    with pytest.raises(LinkUnknown):
        session.find_study(db, old)
    new = studies.link(db, store.get(db, study_id), "https://x").partition("?s=")[2]
    assert new != old
    assert rate_all(db, new, "one", screens=0).finished == 1


def test_links_are_long_and_only_their_hash_is_stored(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    assert len(token) == 32  # 24 bytes: 192 bits
    stored = b"".join(path.read_bytes() for path in db.path.parent.glob("slam.db*") if path.suffix != ".key")
    assert token.encode() not in stored
    assert keys.digest(token).encode() in stored
    assert keys.installation_key(db.path).hex().encode() not in stored
    assert Path(f"{db.path}.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("token", ["", "x", "' OR 1=1 --"])
def test_unknown_links_are_refused(db: Db, token: str) -> None:
    with pytest.raises(LinkUnknown):
        session.find_study(db, token)


def test_what_raters_receive_names_no_model_and_no_study(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    study = session.find_study(db, token)
    slot = session.start(db, study, session.rater_hash(db, study, "one"))
    received = f"{study} {slot} {session.current_item(db, slot)}"
    assert "Hello from" in received
    assert not re.search("alpha|beta", received)


def test_no_query_of_the_rater_can_reach_the_models() -> None:
    source = Path(rater.__file__).read_text()
    queries = re.findall(r'"""(.*?)"""', source, re.DOTALL)[1:]
    assert queries
    named = re.compile(r"\b(models|connections|studies\.name)\b|(?<!count\()\*")
    assert not [query for query in queries if named.search(query)]


def test_means_put_the_incumbent_first_and_have_intervals_over_raters(db: Db, study_id: int) -> None:
    token = studies.launch(db, study_id)
    rate_all(db, token, "one", score=4)
    rate_all(db, token, "two", score=8)
    beta = next(model.id for model in connections.models(db) if model.name == "beta")
    ratings, means, incumbent = summary.by_model(store.ratings(db, study_id), beta, seed=1)
    assert incumbent == "beta"
    assert list(means["model"]) == ["beta", "alpha"]
    assert list(means["mean"]) == [6.0, 6.0]
    assert list(means["low"]) == [4.0, 4.0] and list(means["high"]) == [8.0, 8.0]
    assert list(means["ratings"]) == [6, 6] and list(means["raters"]) == [2, 2]
    assert len(ratings) == 12


def test_models_of_one_name_on_two_connections_stay_apart() -> None:
    row = {"value": 5, "slot": 1, "complete": 1}
    rows = [
        {**row, "model_id": 1, "model": "same", "connection": "here"},
        {**row, "model_id": 2, "model": "same", "connection": "there"},
    ]
    _, means, _ = summary.by_model(rows, None, seed=1)
    assert sorted(means["model"]) == ["same (here)", "same (there)"]
