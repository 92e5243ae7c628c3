import streamlit as st

from slam_app import generation
from slam_app.domain import ResponseStatus, Run
from slam_app.errors import SlamError
from slam_app.store import connections, runs, use_cases
from slam_app.ui import generate
from slam_app.ui.app import db
from slam_app.ui.auth import require_admin
from slam_app.ui.pages import link
from slam_app.ui.text import plain
from slam_app.ui.widgets import count, empty_state, pick

require_admin()


def new_run() -> None:
    there = [use_case for use_case in use_cases.all_use_cases(db()) if use_cases.templates(db(), use_case.id)]
    models = [model for model in connections.models(db()) if model.info.can_chat]
    if not there:
        empty_state("A run needs a use case with a prompt.", "prompts", "Write a prompt")
        return
    if not models:
        empty_state("A run needs a model.", "models", "Connect models")
        return
    use_case = pick("Use case", there, "use_case", lambda use_case: use_case.name)
    cases = use_cases.cases(db(), use_case.id)
    if not cases:
        empty_state(f"{plain(use_case.name)} has no cases yet.", "prompts", "Add cases")
        return
    versions = use_cases.templates(db(), use_case.id)
    template = versions[0]
    if len(versions) > 1:
        template = pick("Prompt version", versions, "version", lambda version: f"Version {version.version}")
    by_id = {model.id: model for model in models}
    model_ids = st.multiselect(
        "Models",
        list(by_id),
        default=generate.preselected(models, use_case.incumbent_model_id),
        format_func=lambda model_id: by_id[model_id].label,
        key=f"models-{use_case.id}",
        help="Include the incumbent: its answers are what the others are compared with.",
    )
    case_names = {case.id: case.name for case in cases}
    case_ids = st.multiselect(
        "Cases",
        list(case_names),
        default=list(case_names),
        format_func=lambda case_id: case_names[case_id],
        key=f"cases-{use_case.id}",
    )
    samples = st.number_input(
        "Samples per case", 1, 100, 1, key="samples", help="How often each model answers each case."
    )
    params = generate.sampling_form([by_id[model_id] for model_id in model_ids])
    possible = generate.number_of_calls(len(model_ids), len(case_ids), samples)
    if st.button("Start", type="primary", key="start", disabled=not possible):
        try:
            run_id = generation.plan_run(
                db(),
                template=template,
                cases=[case for case in cases if case.id in case_ids],
                model_ids=model_ids,
                samples=samples,
                params=params,
            )
        except SlamError as error:
            st.error(plain(str(error)))
        else:
            st.session_state.pop("pick-run", None)
            st.query_params["run"] = str(run_id)
            st.rerun()


def actions(run: Run) -> None:
    working = runs.active_jobs(db(), run.id)
    errors, pending = run.counts[ResponseStatus.ERROR], run.counts[ResponseStatus.PENDING]
    with st.container(horizontal=True, vertical_alignment="center"):
        if working and st.button("Cancel", key="cancel", help="What is finished is kept."):
            runs.cancel(db(), run.id)
            st.rerun()
        if not working and pending and st.button(f"Resume ({pending:,} left)", key="resume", type="primary"):
            runs.resume(db(), run.id)
            st.rerun()
        if not working and errors and st.button(f"Retry {count(errors, 'error')}", key="retry"):
            runs.retry_errors(db(), run.id)
            st.rerun()
        generate.download(db(), run)
        if run.counts[ResponseStatus.OK] and not working:
            link("studies", "Let people rate it", run=run.id)


st.title("Generate")
everything = runs.all_runs(db())
with st.expander("New run", expanded=not everything):
    new_run()
if everything:
    run = pick("Run", everything, "run", lambda run: run.label)
    generate.progress(db(), run.id)
    actions(run)
    st.subheader("Responses")
    generate.browse(db(), run)
