"""What a rater sees. Nothing here knows a model: see `store.rater`."""

import streamlit as st

from slam_app.domain import RaterItem, RaterSlot, RaterStudy, SlotStatus
from slam_app.errors import RatingError
from slam_app.rating import session
from slam_app.store import rater
from slam_app.ui.app import db
from slam_app.ui.auth import rater_identity
from slam_app.ui.browser import scroll_to_top


def main() -> None:
    study = session.find_study(db(), st.query_params.get("s", ""))
    identity = rater_identity()
    if identity is None:
        st.warning(
            "Your browser did not keep our cookie, so we could not find your place again. "
            "Please open the link in a normal window with cookies allowed."
        )
        return
    me = session.rater_hash(db(), study, identity)
    slot = session.resume(db(), study, me)
    # What was clicked is stored before anything is drawn: drawing twice would double a click's cost.
    if slot is None and st.session_state.get("start"):
        slot = session.start(db(), study, me)
    item = session.current_item(db(), slot) if slot else None
    if slot and item and (scores := sent_scores(item)):
        slot = rater.save(db(), slot.id, item.position, scores, study.scale_max)
        item = session.current_item(db(), slot)
    if slot is None:
        welcome(study)
    elif slot.status is SlotStatus.COMPLETE:
        thanks(slot)
    elif item:
        rate(study, slot, item)


def welcome(study: RaterStudy) -> None:
    st.title(study.title)
    st.markdown(study.description)
    st.subheader("What you are asked to do")
    screens = "1 screen" if study.items == 1 else f"{study.items} screens"
    st.markdown(
        f"""
- You will see **{screens}**. Each shows one request and several answers to it, in random order.
- Give every answer a score from **0** (useless) to **{study.scale_max}** (could not be better).
- Judge how good and how fitting each answer is for the request, not how long it is.
- You can stop and come back with the same link in the same browser. Only a finished set counts.
- Your name is not asked. Scores are stored under a random number.
"""
    )
    st.button("Start", type="primary", key="start")


def score_keys(item: RaterItem) -> dict[str, str]:
    """The key of each answer's radio by its letter."""
    letters = [chr(ord("A") + place) for place in range(len(item.texts))]
    return {letter: f"score-{item.position}-{letter}" for letter in letters}


def sent_scores(item: RaterItem) -> list[int] | None:
    """What was just sent for this item, if that is all its scores."""
    state = st.session_state
    scores = [state.get(key) for key in score_keys(item).values()]
    return scores if state.get(f"save-{item.position}") and None not in scores else None


def rate(study: RaterStudy, slot: RaterSlot, item: RaterItem) -> None:
    st.title(study.title)
    st.progress(slot.finished / slot.items, text=f"Screen {slot.finished + 1} of {slot.items}")
    with st.expander("What this is about"):
        st.markdown(study.description)
    with st.expander("The request", expanded=True):
        st.text(item.prompt)
    scale = range(study.scale_max + 1)
    with st.form(f"item-{item.position}", border=False):
        scores = {}
        shown = zip(score_keys(item).items(), item.texts, item.values, strict=True)
        for (letter, key), text, value in shown:
            with st.container(border=True):
                st.markdown(f"**Answer {letter}**")
                st.text(text)
                scores[letter] = st.radio(
                    f"Score for answer {letter}: 0 is useless, {study.scale_max} could not be better",
                    scale,
                    index=value,
                    horizontal=True,
                    key=key,
                )
        last = slot.finished + 1 == slot.items
        sent = st.form_submit_button(
            "Save and finish" if last else "Save and go on", type="primary", key=f"save-{item.position}"
        )
    if sent:
        missing = [letter for letter, score in scores.items() if score is None]
        if missing:
            st.warning(f"Not scored yet: answer {' and '.join(missing)}. Please give each a score.")
        else:  # a session that was just restored knows its widgets only now
            rater.save(db(), slot.id, item.position, list(scores.values()), study.scale_max)
            st.rerun()
    scroll_to_top(item.position)


def thanks(slot: RaterSlot) -> None:
    st.title("Thank you")
    st.success(f"All {slot.items} screens are rated and saved. You can close this page.")
    st.write("If you were asked for a completion code, it is:")
    st.code(rater.completion_code(db(), slot.id), language=None)


try:
    main()
except RatingError as error:
    st.title("Rate answers")
    st.info(str(error))
