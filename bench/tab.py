"""One browser tab as Streamlit's server sees it: the websocket, its messages, no browser.

Sends what Streamlit's own frontend sends (the page by its name at first, then by its hash; the state
of every widget with each rerun) and reads the elements that come back. It does not fetch the
frontend's static files, and like the frontend below its size limit it caches no message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.Radio_pb2 import Radio
from websockets.asyncio.client import ClientConnection, connect

ANSWER_TIMEOUT_S = 120.0


class PageBroke(Exception):
    """The page showed an error or was not there."""


@dataclass(slots=True)
class Shown:
    """What one finished script run left on the page.

    Attributes:
        radios: each with the plain text that stands before it.
        buttons: id by label, form buttons included.
    """

    headings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    radios: list[tuple[str, Radio]] = field(default_factory=list)
    buttons: dict[str, str] = field(default_factory=dict)
    problem: str = ""


class Tab:
    """Use it as an async context manager; `open` it, then `press` buttons.

    Args:
        url: of the server, as "http://127.0.0.1:8501".
        page: the page's path without its slash ("rate").
        query: the query string without its question mark.
    """

    def __init__(self, url: str, page: str, query: str = "", cookie: str = "") -> None:
        self._origin = url
        self._url = f"{url.replace('http', 'ws', 1)}/_stcore/stream"
        self._page = page
        self._query = query
        self._cookie = cookie
        self._hash = ""
        self._socket: ClientConnection

    async def __aenter__(self) -> Self:
        self._socket = await connect(
            self._url,
            # The frontend's three: the protocol, the XSRF token, a session to come back to.
            subprotocols=["streamlit"],  # type: ignore[list-item]
            origin=self._origin,  # type: ignore[arg-type]
            additional_headers={"Cookie": self._cookie} if self._cookie else None,
            max_size=None,
            open_timeout=ANSWER_TIMEOUT_S,
            proxy=None,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._socket.close()

    async def open(self) -> Shown:
        """The page as it is first shown. Raises PageBroke."""
        return await self._rerun({})

    async def press(self, button_id: str, chosen: Mapping[str, str]) -> Shown:
        """The page after a click. `chosen` holds the option of each radio by its id. Raises PageBroke."""
        return await self._rerun(chosen, button_id)

    async def _rerun(self, chosen: Mapping[str, str], button_id: str = "") -> Shown:
        state = ClientState(query_string=self._query, page_script_hash=self._hash)
        if not self._hash:
            state.page_name = self._page
        state.context_info.timezone = "UTC"
        state.context_info.locale = "en-GB"
        state.context_info.url = f"{self._origin}/{self._page}"
        state.context_info.is_embedded = False
        for widget_id, option in chosen.items():
            state.widget_states.widgets.add(id=widget_id, string_value=option)
        if button_id:
            state.widget_states.widgets.add(id=button_id, trigger_value=True)
        await self._socket.send(BackMsg(rerun_script=state).SerializeToString())
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._until_finished()

    async def _until_finished(self) -> Shown:
        """Elements until the script ends; an end that only makes room for `st.rerun` does not count."""
        shown = Shown()
        while True:
            frame = await self._socket.recv(decode=False)
            message = ForwardMsg.FromString(frame)
            match message.WhichOneof("type"):
                case "new_session":
                    shown = Shown()
                    self._hash = message.new_session.page_script_hash
                case "navigation":
                    self._hash = message.navigation.page_script_hash
                case "page_not_found":
                    raise PageBroke(f"There is no page {self._page!r}.")
                case "delta":
                    _add(shown, message)
                case "script_finished":
                    if message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                        if shown.problem:
                            raise PageBroke(shown.problem)
                        return shown


def _add(shown: Shown, message: ForwardMsg) -> None:
    element = message.delta.new_element
    match element.WhichOneof("type"):
        case "heading":
            shown.headings.append(element.heading.body)
        case "text":
            shown.texts.append(element.text.body)
        case "radio":
            shown.radios.append((shown.texts[-1] if shown.texts else "", element.radio))
        case "button":
            shown.buttons[element.button.label] = element.button.id
        case "exception":
            shown.problem = element.exception.message
        case "alert" if element.alert.format == Alert.ERROR:
            shown.problem = element.alert.body
        case "alert":
            shown.texts.append(element.alert.body)
