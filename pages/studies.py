from urllib.parse import urlsplit

import streamlit as st

from slam_app.domain import Run, SlotStatus, Study, StudyStatus
from slam_app.errors import InputError
from slam_app.rating import studies as rating_studies
from slam_app.store import runs, studies
from slam_app.ui.app import db, settings
from slam_app.ui.auth import require_admin, stay_admin
from slam_app.ui.pages import link
from slam_app.ui.text import plain
from slam_app.ui.widgets import count, empty_state, pick

require_admin()


def new_study(complete: list[Run]) -> None:
    run = pick("Run to be rated", complete, "run", lambda run: run.label)
    offer = rating_studies.offer(db(), run.id)
    if run.counts["pending"]:
        st.warning(f"{run.counts['pending']} responses of this run are still pending and can't be rated yet.")
    if not offer.screens:
        st.error(
            "No case was answered by all models of this run, so there is nothing to compare. "
            "Retry its errors on Generate, or make a run without the failing model."
        )
        return
    if offer.cut:
        st.warning(
            f"{count(offer.cut, 'answer')} of this run ended at a token limit, perhaps in mid-sentence. "
            "Raters will see that; a run with more max tokens avoids it."
        )
    with st.form("new-study"):
        name = st.text_input("Name", value=f"{run.use_case}, run {run.id}", help="Only admins see it.")
        raters = st.number_input("Raters", 1, 10_000, 5, help="How many complete sets you want.")
        items = st.number_input(
            "Screens per rater",
            1,
            min(offer.screens, 500),
            min(offer.screens, 10),
            help="One screen shows one request and the answers of the models to it.",
        )
        st.caption(
            f"This run offers {offer.screens} different screens with {offer.answers_per_screen} answers each."
            + (
                f" {offer.left_out} pairs of case and sample are left out since a model failed at them."
                if offer.left_out
                else ""
            )
        )
        if st.form_submit_button("Create draft", type="primary", key="create-draft"):
            rating_studies.create(db(), run_id=run.id, name=name, raters=raters, items_per_rater=items)
            st.rerun()


def card(study: Study) -> None:
    with st.container(border=True):
        st.subheader(plain(study.name))
        st.caption(
            f"Study {study.id} of run {study.run_id} · {study.raters} raters × "
            f"{study.items_per_rater} screens · score 0 to {study.scale_max}"
        )
        if study.status is StudyStatus.DRAFT:
            draft(study)
        else:
            launched(study)


def draft(study: Study) -> None:
    offer = rating_studies.offer(db(), study.run_id)
    shown = study.raters * study.items_per_rater / max(offer.screens, 1)
    st.write(
        f"Draft. Each of the {offer.screens} screens will be rated about {shown:.3g} times. "
        "Launching fixes who sees what; it can't be changed afterwards."
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Launch", type="primary", key=f"launch-{study.id}"):
            try:
                rating_studies.launch(db(), study.id)
            except InputError as error:
                st.error(str(error))
            else:
                st.rerun()
        if st.button("Delete draft", key=f"delete-{study.id}"):
            studies.delete_draft(db(), study.id)
            st.rerun()


@st.fragment(run_every=3)
def live_counts(study_id: int) -> None:
    stay_admin()
    study = studies.get(db(), study_id)
    left, middle, right = st.columns(3)
    left.metric("Open", study.slots[SlotStatus.OPEN], help="Sets that nobody has begun.")
    middle.metric("In progress", study.slots[SlotStatus.CLAIMED], help="Begun, not finished: not counted.")
    right.metric("Complete", study.slots[SlotStatus.COMPLETE], help="Finished sets. Only these count.")


def launched(study: Study) -> None:
    live_counts(study.id)
    origin = urlsplit(st.context.url or "")
    base = settings().public_url or f"{origin.scheme}://{origin.netloc}"
    st.write("Link for raters" if study.status is StudyStatus.OPEN else "Link for raters (closed now)")
    if rating_studies.link_works(db(), study):
        st.code(rating_studies.link(db(), study, base), language=None, wrap_lines=True)
    else:
        st.warning(
            "This link can't be shown any more: the key file beside the database was lost or replaced. "
            "Renew the link and send the new one to all raters; those who had begun start again."
        )
    if not settings().public_url and origin.hostname in ("localhost", "127.0.0.1", None):
        st.caption("This link works on this computer only. Set SLAM_PUBLIC_URL to the address others use.")
    st.caption(
        f"Completion code for panels: {study.completion_code} · protocol {study.protocol_hash[:12]}, "
        f"frozen {(study.launched_at or '')[:16].replace('T', ' ')} UTC"
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if study.status is StudyStatus.OPEN:
            if st.button("Close", key=f"close-{study.id}", help="Raters are told so; nothing is deleted."):
                studies.set_status(db(), study.id, StudyStatus.CLOSED)
                st.rerun()
        elif st.button("Open again", key=f"open-{study.id}"):
            studies.set_status(db(), study.id, StudyStatus.OPEN)
            st.rerun()
        if st.button("Renew link", key=f"renew-{study.id}", help="For a link that got into wrong hands."):
            confirm_renewal(study)
        link("results", "Results", study=study.id)


@st.dialog("Renew the link?")
def confirm_renewal(study: Study) -> None:
    stay_admin()
    st.write("The old link stops working at once. Raters who have begun need the new one to go on.")
    if st.button("Renew", type="primary", key="renew-now"):
        rating_studies.renew_link(db(), study)
        st.rerun()


st.title("Studies")
st.write("A study asks people to score the answers of a run without knowing which model wrote them.")
with_answers = [run for run in runs.all_runs(db()) if run.counts["ok"]]
everything = studies.all_studies(db())
if not with_answers:
    empty_state("Nothing to rate yet: a study needs a run with answers.", "generate", "Generate answers")
else:
    with st.expander("New study", expanded=not everything):
        new_study(with_answers)
for one in everything:
    card(one)
