"""Plain HTTP beside the pages: login, health, and the headers of every answer."""

from __future__ import annotations

import asyncio
import html
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from string import Template

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slam_app import auth
from slam_app.errors import StoreError
from slam_app.store import settings as store
from slam_app.store.db import Db

RATER_COOKIE = "slam_rater"
ADMIN_PATHS = frozenset({"/", "/home", "/models", "/prompts", "/generate", "/studies", "/results"})
MAX_LOGIN_BYTES = 4096
YEAR_S = 365 * 24 * 3600

HEADERS = {
    # Model output may hold anything: nothing is loaded from elsewhere and no frame may hold us.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
        "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a rater's link is a secret
}


@dataclass(frozen=True, slots=True)
class Context:
    """What the routes need of the server. `https`: whether people reach it that way, through a proxy."""

    db: Db
    jobs_alive: Callable[[], bool]
    https: bool = False


def routes(context: Context) -> list[Route]:
    throttle, one_at_a_time = auth.Throttle(), asyncio.Lock()
    db = context.db

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        try:
            await run_in_threadpool(store.get, db, "probe")
            await run_in_threadpool(store.put, db, "probe", secrets.token_hex(4))
        except StoreError as error:
            return JSONResponse({"status": "not ready", "reason": str(error)}, 503)
        if not context.jobs_alive():
            reason = "The job runner has stopped. Restart the server."
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready"})

    async def login_form(_: Request) -> Response:
        return _login_page()

    async def login(request: Request) -> Response:
        if int(request.headers.get("content-length", MAX_LOGIN_BYTES + 1)) > MAX_LOGIN_BYTES:
            return _login_page("That is too long for a password.", 413)
        password = str((await request.form()).get("password", ""))
        address = request.client.host if request.client else ""
        async with one_at_a_time:  # a hash takes 64 MB, and parallel guesses must meet the throttle
            if wait_s := throttle.wait_s(address):
                return _login_page(f"Too many tries. Wait {wait_s:.0f} seconds, then try again.", 429)
            token = await run_in_threadpool(auth.log_in, db, password)
            if token is None:
                throttle.failed(address)
        if token is None:
            return _login_page(
                "That is not the password. It was printed at the first start; "
                "setting SLAM_ADMIN_PASSWORD and restarting replaces it.",
                401,
            )
        throttle.succeeded(address)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            auth.COOKIE,
            token,
            max_age=auth.SESSION_DAYS * 24 * 3600,
            httponly=True,
            samesite="lax",
            secure=context.https or request.url.scheme == "https",
        )
        return answer

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/login", login_form, methods=["GET"]),
        Route("/login", login, methods=["POST"]),
    ]


class Gate:
    """Middleware: headers on every answer, a cookie for raters, and the login before admin pages.

    The pages check the role themselves; the redirect only spares people a dead end.
    """

    def __init__(self, app: ASGIApp, db: Db, https: bool = False) -> None:
        self._app = app
        self._db = db
        self._https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].rstrip("/") or "/"
        if path == "/_stcore/metrics":  # Streamlit leaves it open to everybody
            await Response(status_code=404)(scope, receive, send)
            return
        cookies = HTTPConnection(scope).cookies
        if path in ADMIN_PATHS and not await run_in_threadpool(
            auth.is_admin, self._db, cookies.get(auth.COOKIE)
        ):
            await RedirectResponse("/login", 303, HEADERS)(scope, receive, send)
            return
        new_rater = path == "/rate" and RATER_COOKIE not in cookies

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if new_rater:
                    secure = "; Secure" if self._https or scope["scheme"] == "https" else ""
                    headers.append(
                        "Set-Cookie",
                        f"{RATER_COOKIE}={secrets.token_urlsafe(24)}; Path=/; Max-Age={YEAR_S}; "
                        f"HttpOnly; SameSite=Lax{secure}",
                    )
            await send(message)

        await self._app(scope, receive, send_with_headers)


_LOGIN = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · SLaM</title><style>
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; }
main { width: min(22rem, calc(100vw - 3rem)); }
h1 { font-size: 1.6rem; margin: 0; } p { margin: .3rem 0 1.5rem; opacity: .8; }
label { display: block; font-weight: 600; margin-bottom: .3rem; }
input, button { width: 100%; box-sizing: border-box; font: inherit; padding: .7rem .8rem; }
input, button { border-radius: .5rem; }
input { border: 1px solid GrayText; background: Field; color: FieldText; }
button { margin-top: 1rem; border: 0; background: #0b6e63; color: #fff; font-weight: 600; cursor: pointer; }
:focus-visible { outline: 3px solid #2aa198; outline-offset: 2px; }
.error { opacity: 1; margin: 1rem 0 0; padding: .6rem .8rem; border-left: 4px solid #c0392b; }
</style></head><body><main>
<h1>SLaM</h1><p>Can a small model replace the big one?</p>
<form method="post" action="/login">
<label for="password">Admin password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form>$error</main></body></html>""")


def _login_page(error: str = "", status: int = 200) -> Response:
    shown = f'<p class="error" role="alert">{html.escape(error)}</p>' if error else ""
    return HTMLResponse(_LOGIN.substitute(error=shown), status)
