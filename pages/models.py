from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from slam_app import inventory
from slam_app.domain import Connection, ConnectionKind, Model, SamplingParams
from slam_app.errors import SlamError
from slam_app.store import connections
from slam_app.ui import connections as servers
from slam_app.ui import models as shown
from slam_app.ui import pulls
from slam_app.ui.app import db, settings
from slam_app.ui.auth import require_admin, stay_admin
from slam_app.ui.text import ago, plain
from slam_app.ui.widgets import pick

require_admin()
st.set_page_config(layout="wide")
INSTALLED, GET, SERVERS = "Installed", "Get a model", "Connections"


def act(doing: str, action: Callable[[], object]) -> None:
    """Do what somebody asked for, then draw the page anew; or say why it failed."""
    try:
        with st.spinner(doing, show_time=True):
            action()
    except SlamError as error:
        st.error(plain(str(error)))
    else:
        st.rerun()


def installed(there: list[Connection], models: list[Model]) -> None:
    if models:
        shown.draw_table(models)
    else:
        st.info("No models yet. Get one, or see under Connections whether your servers answer.")
    for connection in there:
        last = inventory.last_check(db(), connection)
        if last and not last.ok and any(model.connection_id == connection.id for model in models):
            st.warning(
                f"{plain(connection.name)} did not answer {ago(last.at)}: its models are as last seen."
            )
    with st.container(horizontal=True):
        refresh = st.button("Refresh", key="refresh", icon=":material/refresh:", help="Asks all servers.")
        st.button(GET, key="to-get", on_click=lambda: st.session_state.update(tab=GET))
    if refresh:
        act("Asking all servers ...", lambda: servers.check_all(db(), there))
    if models:
        one_model(pick("Model", models, "model", lambda model: model.label, "For its details and actions."))


def one_model(model: Model) -> None:
    connection = connections.get(db(), model.connection_id)
    with st.container(border=True):
        st.markdown("\n".join(f"- {fact}" for fact in shown.facts(model)))
        why_not = shown.why_not_delete(model, settings().data_dir / "models")
        if model.kind is ConnectionKind.OPENAI:
            st.caption(why_not)
            return
        context = shown.context_input(model) if model.info.can_chat else 0
        loaded_so = model.info.loaded and model.info.loaded_context == context
        with st.container(horizontal=True):
            load = st.button("Load", key="load", disabled=not context or loaded_so)
            unload = st.button("Unload", key="unload", disabled=not model.info.loaded)
            delete = st.button("Delete", key="delete", disabled=bool(why_not))
        if why_not:
            st.caption(f"It can't be deleted here. {why_not}")
        if load:
            params = replace(SamplingParams(), num_ctx=context)
            act(
                f"Loading {plain(model.name)} ...",
                lambda: inventory.load(db(), connection, model.name, params),
            )
        if unload:
            act("Unloading ...", lambda: inventory.unload(db(), connection, model.name))
        if delete:
            confirm_delete(model, connection)


@st.dialog("Delete this model?")
def confirm_delete(model: Model, connection: Connection) -> None:
    stay_admin()
    st.markdown(shown.delete_warning(model))
    if st.button("Delete", type="primary", key="delete-now"):
        act("Deleting ...", lambda: inventory.delete(db(), connection, model.name))


def get_a_model(there: list[Connection]) -> None:
    able = [connection for connection in there if connection.kind is not ConnectionKind.OPENAI]
    if not able:
        st.info("Ollama and the embedded engine can fetch models. Add one of them under Connections.")
        return
    connection = pick("Fetch to", pulls.best_first(db(), able), "to", lambda one: one.name)
    name = pulls.choose_name(connection.kind)
    if st.button("Pull", type="primary", key="pull", icon=":material/download:"):
        act("Starting ...", lambda: inventory.start_pull(db(), connection, name))
    st.caption("The server fetches it in the background: you may leave this page meanwhile.")
    pulls.live(db(), able)


def connect(there: list[Connection]) -> None:
    for connection in there:
        with st.container(border=True):
            st.markdown(servers.headline(connection))
            servers.outcome(inventory.last_check(db(), connection))
            with st.container(horizontal=True):
                test = st.button("Test", key=f"test-{connection.id}", help="Also refreshes its models.")
                remove = st.button("Remove", key=f"remove-{connection.id}")
            if test:
                check(connection)
            if remove:
                confirm_remove(connection)
    with st.expander("Add a connection", expanded=not there, key="add-connection"):
        if added := servers.add_form(db(), len(there)):
            check(connections.get(db(), added))


def check(connection: Connection) -> None:
    act(f"Asking {plain(connection.name)} ...", lambda: inventory.check(db(), connection))


@st.dialog("Remove this connection?")
def confirm_remove(connection: Connection) -> None:
    stay_admin()
    st.write(
        f"{plain(connection.name)} and its models disappear from the lists. Answers that they gave stay, "
        "and nothing is deleted on the server."
    )
    if st.button("Remove", type="primary", key="remove-now"):
        act("Removing ...", lambda: connections.remove(db(), connection.id))


st.title("Models")
st.write("The models that you can compare, and the servers that run them.")
known = connections.all_connections(db())
first, second, third = st.tabs([INSTALLED, GET, SERVERS], key="tab", bind="query-params")
with first:
    installed(known, connections.models(db()))
with second:
    get_a_model(known)
with third:
    connect(known)
