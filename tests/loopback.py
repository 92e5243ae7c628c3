"""A real HTTP/1.1 server on loopback in threads of its own; the ground that the fake model servers stand on.

    class Echo(LoopbackServer):
        def answer(self, call: Call) -> None:
            call.send(200, call.body, {"content-type": "text/plain"})

    with Echo() as server:
        httpx.get(server.url)
        assert server.calls[0].path == "/"

It does what a framework would hide: it can cut a stream in the middle, answer nothing at all, and it
notices when the client has gone.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_POLL_S = 0.01


class ClientGone(Exception):
    """The client closed the connection, or the server is being stopped; the handler just ends."""


class Call:
    """One request as it arrived, and the means to answer it.

    Attributes:
        method, path, headers (names in lower case), body: as received.
        client: the client's address; calls with the same one came over the same connection.
        client_gone: set when the client closed the connection before the answer was complete.
    """

    def __init__(self, handler: BaseHTTPRequestHandler, stopping: threading.Event) -> None:
        self.method = handler.command
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = handler.rfile.read(int(self.headers.get("content-length", 0)))
        self.client: tuple[str, int] = handler.client_address
        self.client_gone = threading.Event()
        self._handler = handler
        self._stopping = stopping
        self._chunked = False

    @property
    def json(self) -> Any:
        """The body parsed; ValueError if it is not JSON."""
        return json.loads(self.body)

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole answer with a content-length."""
        self._head(status, {**(headers or {}), "content-length": str(len(body))})
        self._write(body)

    def start(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """The head of a chunked answer; go on with `chunk`, then `end` or `cut`."""
        self._chunked = True
        self._head(status, {**(headers or {}), "transfer-encoding": "chunked"})

    def chunk(self, data: bytes) -> None:
        if data:
            self._write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The proper end of a chunked answer."""
        if self._chunked:
            self._write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection where it stands: no last chunk, no further answer."""
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        """Do nothing for a while.

        Raises:
            ClientGone: the client closed the connection meanwhile, or the test is over.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopping.is_set():
                raise ClientGone
            readable, _, _ = select.select([self._handler.connection], [], [], min(left, _POLL_S))
            if readable and self._peek() == b"":
                self._gone()
            elif readable:
                time.sleep(min(left, _POLL_S))

    def hang(self) -> None:
        """Answer nothing more until the client goes away."""
        self.wait(3600)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self._handler.send_response_only(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        try:
            self._handler.end_headers()
        except OSError:
            self._gone()

    def _write(self, data: bytes) -> None:
        try:
            self._handler.wfile.write(data)
        except OSError:
            self._gone()

    def _peek(self) -> bytes:
        try:
            return bytes(self._handler.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return b""

    def _gone(self) -> None:
        self._handler.close_connection = True
        self.client_gone.set()
        raise ClientGone


class LoopbackServer:
    """Base of the fake servers: override `answer`, use it with `with`.

    Attributes:
        calls: every request so far. called: set at the first.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.called = threading.Event()
        self.stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def answer(self, call: Call) -> None:
        """Answer one request; called in a thread of its own."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after a `stop` on the same port again, as a daemon that comes back does."""
        self.stopping.clear()
        self._server = _Listener(("127.0.0.1", self._port), self._handler_class())
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and every open connection, as a daemon that is killed does."""
        server, self._server = self._server, None
        if server is None:
            return
        self.stopping.set()
        server.shutdown()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                owner._sockets.add(self.connection)

            def finish(self) -> None:
                owner._sockets.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def serve(self) -> None:
                call = Call(self, owner.stopping)
                owner.calls.append(call)
                owner.called.set()
                try:
                    owner.answer(call)
                except ClientGone:
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = serve

        return Handler


class _Listener(ThreadingHTTPServer):
    daemon_threads = False
    """Joined on close, so that no thread outlives its test."""
    request_queue_size = 128
