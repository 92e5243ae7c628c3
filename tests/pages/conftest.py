"""Pages as Streamlit runs them, for an admin on a fresh database, without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from slam_app import auth
from slam_app.store.db import Db
from slam_app.ui import app

ROOT = Path(__file__).resolve().parents[2]

OpenPage = Callable[..., AppTest]


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Db]:
    """The database that the pages use; empty."""
    monkeypatch.setenv("SLAM_DB", str(tmp_path / "slam.db"))
    found = app.db()
    yield found
    found.close()
    app._open.cache_clear()


@pytest.fixture
def open_page(db: Db, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    """Opens a page by its name with these query parameters. AppTest has no cookies, so everybody is admin."""
    monkeypatch.setattr(auth, "is_admin", lambda db, token: True)

    def open_it(name: str, **query: str) -> AppTest:
        at = AppTest.from_file(ROOT / "slam_app" / "main.py", default_timeout=30).run()
        at.switch_page(f"../pages/{name}.py")
        for key, value in query.items():
            at.query_params[key] = value
        at.run()
        assert not at.exception
        return at

    return open_it


def texts(at: AppTest) -> str:
    """All that a page says outside its widgets."""
    elements = [*at.markdown, *at.caption, *at.info, *at.warning, *at.error, *at.success]
    return "\n".join(str(element.value) for element in elements)


def confirm(at: AppTest, opener: str, button: str) -> AppTest:
    """Press a button in an open dialog. AppTest runs no fragments alone, so the dialog is opened anew."""
    at.button(opener).click()
    return at.button(button).click().run()


def log_out_after(monkeypatch: pytest.MonkeyPatch, checks: int) -> None:
    """Somebody logs out in another tab, after so many more looks at whether this is an admin."""
    left = iter([True] * checks)
    monkeypatch.setattr(auth, "is_admin", lambda db, token: next(left, False))
