import streamlit as st

from slam_app.domain import SlotStatus, StudyStatus
from slam_app.store import connections, runs, studies, use_cases
from slam_app.ui.app import db
from slam_app.ui.auth import require_admin
from slam_app.ui.pages import go, link
from slam_app.ui.widgets import count

require_admin()
st.title("Can a small model replace the big one?")
st.write("Run your own prompt on your own cases, and let people rate the answers blind.")

models = [model for model in connections.models(db()) if model.info.can_chat]
prompts = use_cases.all_use_cases(db())
all_runs = runs.all_runs(db())
all_studies = studies.all_studies(db())
with_cases = [u for u in prompts if use_cases.cases(db(), u.id) and use_cases.templates(db(), u.id)]
answers = sum(run.counts["ok"] for run in all_runs)
complete = sum(study.slots[SlotStatus.COMPLETE] for study in all_studies)
launched = [study for study in all_studies if study.status is not StudyStatus.DRAFT]

connected = len({model.connection_id for model in models})
steps = [
    (
        "models",
        "Connect models",
        models,
        f"{count(len(models), 'model')} on {count(connected, 'connection')}",
    ),
    (
        "prompts",
        "Describe the use case",
        with_cases,
        f"{count(len(with_cases), 'use case')} with prompt and cases",
    ),
    ("generate", "Generate answers", answers, f"{count(answers, 'answer')} in {count(len(all_runs), 'run')}"),
    (
        "studies",
        "Let people rate them blind",
        launched,
        f"{count(len(launched), 'study', 'studies')}, {count(complete, 'complete set')}",
    ),
    ("results", "See the result", complete, f"{count(complete, 'complete set')} to look at"),
]

following = next((number for number, step in enumerate(steps) if not step[2]), len(steps) - 1)
for number, (page, title, done, there) in enumerate(steps):
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        mark = ":material/check_circle:" if done else ":material/radio_button_unchecked:"
        st.markdown(f"{mark} **{number + 1}. {title}**  \n{there if done else 'Nothing here yet'}")
        st.space("stretch")
        if number == following:
            if st.button(
                "Look at it" if complete else "Next step",
                type="primary",
                key=f"go-{page}",
                icon=":material/arrow_forward:",
            ):
                go(page)
        else:
            link(page, "Open")
