"""The routes and the gate, over the real ASGI stack without a browser."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from slam_app import auth, routes
from slam_app.config import Settings
from slam_app.errors import DatabaseFull
from slam_app.store import settings as store
from slam_app.store.db import Db


@pytest.fixture
def app(db: Db) -> Starlette:
    auth.ensure_password(db, settings(password="open sesame"))

    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("a page")

    return Starlette(
        routes=[
            *routes.routes(routes.Context(db, lambda: True)),
            Route("/{path:path}", page),
        ],
        middleware=[Middleware(routes.Gate, db=db)],
    )


def settings(password: str = "") -> Settings:
    return Settings.from_env({"SLAM_DB": "unused.db", "SLAM_ADMIN_PASSWORD": password})


def ask(app: Starlette, method: str, path: str, cookies: str = "", **options: object) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {"cookie": cookies} if cookies else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://slam") as client:
            return await client.request(method, path, headers=headers, **options)  # type: ignore[arg-type]

    return asyncio.run(call())


def log_in(app: Starlette, password: str = "open sesame") -> httpx.Response:
    return ask(app, "POST", "/login", data={"password": password})


def test_the_right_password_sets_a_cookie_that_scripts_cannot_read(app: Starlette) -> None:
    answer = log_in(app)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower()


@pytest.mark.parametrize("path", sorted(routes.ADMIN_PATHS))
def test_admin_pages_lead_to_the_login_without_a_session(app: Starlette, path: str) -> None:
    assert ask(app, "GET", path).headers["location"] == "/login"
    assert ask(app, "GET", path, cookies="slam_admin=forged").headers["location"] == "/login"
    token = log_in(app).cookies["slam_admin"]
    assert ask(app, "GET", path, cookies=f"slam_admin={token}").text == "a page"


def test_a_wrong_password_gives_no_cookie_and_says_where_to_find_it(app: Starlette) -> None:
    answer = log_in(app, "guess")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "printed at the first start" in answer.text


def test_guessing_is_throttled_even_with_the_right_password_at_last(app: Starlette) -> None:
    assert [log_in(app, f"guess {n}").status_code for n in range(5)] == [401] * 5
    answer = log_in(app)
    assert answer.status_code == 429
    assert "Wait" in answer.text


def test_guesses_at_once_meet_the_throttle_too(app: Starlette) -> None:
    async def guess() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://slam") as client:
            answers = await asyncio.gather(
                *(client.post("/login", data={"password": f"guess {n}"}) for n in range(12))
            )
        return [answer.status_code for answer in answers]

    assert sorted(asyncio.run(guess())) == [401] * 5 + [429] * 7


def test_a_giant_form_is_refused_unread(app: Starlette) -> None:
    assert log_in(app, "x" * 100_000).status_code == 413


def test_behind_https_the_cookies_are_secure(db: Db) -> None:
    auth.ensure_password(db, settings(password="open sesame"))
    app = Starlette(
        routes=routes.routes(routes.Context(db, lambda: True, https=True)),
        middleware=[Middleware(routes.Gate, db=db, https=True)],
    )
    assert "secure" in log_in(app).headers["set-cookie"].lower()
    assert "Secure" in ask(app, "GET", "/rate").headers["set-cookie"]


@pytest.mark.parametrize("foreign", ['prefs={"a":1}; ', "bad; ", "c=a b; ", "=x; ", 'q="; '])
def test_a_malformed_cookie_of_another_app_hides_none_of_ours(app: Starlette, foreign: str) -> None:
    token = log_in(app).cookies["slam_admin"]
    assert ask(app, "GET", "/models", cookies=f"{foreign}slam_admin={token}").text == "a page"
    answer = ask(app, "GET", "/rate?s=x", cookies=f"{foreign}slam_rater=abc")
    assert "set-cookie" not in answer.headers


def test_the_password_is_stored_as_an_argon2_hash(app: Starlette, db: Db) -> None:
    stored = store.get(db, auth.PASSWORD_KEY)
    assert stored is not None and stored.startswith("$argon2id$")
    assert all(b"open sesame" not in path.read_bytes() for path in db.path.parent.glob("slam.db*"))


def test_a_session_token_is_stored_as_a_hash(app: Starlette, db: Db) -> None:
    token = log_in(app).cookies["slam_admin"]
    assert all(token.encode() not in path.read_bytes() for path in db.path.parent.glob("slam.db*"))


def test_a_password_is_invented_once(db: Db) -> None:
    password = auth.ensure_password(db, settings())
    assert password is not None and len(password) >= 16
    assert auth.ensure_password(db, settings()) is None
    assert auth.log_in(db, password) is not None


def test_a_new_password_ends_the_old_logins(db: Db) -> None:
    auth.ensure_password(db, settings("first"))
    token = auth.log_in(db, "first")
    auth.ensure_password(db, settings("first"))
    assert auth.is_admin(db, token)
    auth.ensure_password(db, settings("second"))
    assert not auth.is_admin(db, token)
    assert auth.log_in(db, "first") is None


def test_a_session_ends_by_itself(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    auth.ensure_password(db, settings("pw"))
    monkeypatch.setattr(auth, "SESSION_DAYS", -1)
    assert not auth.is_admin(db, auth.log_in(db, "pw"))


def test_raters_get_a_cookie_once_and_no_login(app: Starlette) -> None:
    first = ask(app, "GET", "/rate?s=x")
    assert first.text == "a page"
    assert "slam_rater=" in first.headers["set-cookie"] and "HttpOnly" in first.headers["set-cookie"]
    assert "set-cookie" not in ask(app, "GET", "/rate?s=x", cookies="slam_rater=abc").headers


def test_every_answer_forbids_foreign_content(app: Starlette) -> None:
    for path in ("/", "/rate", "/login", "/healthz", "/static/x"):
        headers = ask(app, "GET", path).headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert headers["referrer-policy"] == "no-referrer", path


def test_the_metrics_of_the_framework_are_closed(app: Starlette) -> None:
    assert ask(app, "GET", "/_stcore/metrics").status_code == 404


def test_ready_means_that_the_database_takes_writes_and_jobs_run(
    db: Db, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(app, "GET", "/healthz").json() == {"status": "ok"}
    assert ask(app, "GET", "/readyz").status_code == 200

    def full(*_: object) -> None:
        raise DatabaseFull("The disk is full.")

    monkeypatch.setattr(store, "put", full)
    answer = ask(app, "GET", "/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "The disk is full.")
    assert ask(app, "GET", "/healthz").status_code == 200


def test_a_stopped_job_runner_is_not_ready(db: Db) -> None:
    app = Starlette(routes=routes.routes(routes.Context(db, lambda: False)))
    assert ask(app, "GET", "/readyz").status_code == 503
