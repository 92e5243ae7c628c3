import streamlit as st

from slam_app import charts, exports
from slam_app.domain import SlotStatus
from slam_app.rating.summary import by_model
from slam_app.store import studies
from slam_app.ui.app import db
from slam_app.ui.auth import require_admin
from slam_app.ui.widgets import count, empty_state, pick

FEW_RATERS = 5

require_admin()
st.title("Results")
launched = [study for study in studies.all_studies(db()) if study.launched_at]
if not launched:
    empty_state("There are no ratings yet: launch a study and share its link.", "studies", "Studies")
    st.stop()

study = pick("Study", launched, "study", lambda study: f"{study.name} (study {study.id})")
complete, begun = study.slots[SlotStatus.COMPLETE], study.slots[SlotStatus.CLAIMED]
left, middle, right = st.columns(3)
left.metric("Complete sets", f"{complete} of {study.raters}", help="Finished by a rater. Only these count.")
middle.metric("Unfinished sets", begun, help="Begun, not finished. Left out of everything below.")
right.metric("Not begun", study.slots[SlotStatus.OPEN], help="Sets that wait for a rater.")

rows = studies.ratings(db(), study.id)
ratings, means, incumbent = by_model(rows, study.incumbent_model_id, seed=study.id)
if ratings.empty:
    empty_state("No set is complete yet, so there is nothing to show. Share the link.", "studies", "Studies")
    st.stop()

st.subheader("How people scored each model")
st.plotly_chart(
    charts.score_boxes(ratings, means, incumbent, study.scale_max),
    key="score-boxes",
    config={"displaylogo": False},
    alt="Box of scores per model with a line of means, the incumbent first",
)
if incumbent is None:
    st.info(
        "No incumbent stands first: none was set on Prompts when the study was launched, or its run lacks it."
    )
st.dataframe(
    means,
    hide_index=True,
    key="means",
    column_config={
        "model": "Model",
        "role": "Role",
        "mean": st.column_config.NumberColumn("Mean score", format="%.2f"),
        "low": st.column_config.NumberColumn("95 % from", format="%.2f"),
        "high": st.column_config.NumberColumn("95 % to", format="%.2f"),
        "ratings": st.column_config.NumberColumn("Ratings (n)"),
        "raters": st.column_config.NumberColumn("Raters"),
    },
)
if complete < FEW_RATERS:
    st.warning(
        f"{count(complete, 'complete set')} so far. With fewer than {FEW_RATERS} raters an interval is only "
        "a hint: chance alone can move these means a lot."
    )
st.caption(
    "The interval says how far the mean could move with other raters like these: raters are resampled "
    "1,000 times, each with all their scores. It needs at least two complete sets."
)
st.download_button(
    "Download ratings (CSV)",
    exports.to_csv(exports.rating_rows(rows), exports.RATING_COLUMNS),
    f"ratings-study-{study.id}.csv",
    "text/csv",
    key="download-ratings",
)
