"""The whole job in a real browser: an admin and a rater in separate contexts, on real models."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, Response, WebSocket, expect

from slam_app.rating import studies as rating_studies
from slam_app.store import studies
from slam_app.store.db import Db
from tests.factories import add_connection, fill_all, plan
from tests.serving import PASSWORD, Server

NAMES = ("smollm", "gemma", "gguf", "q4_1", "q4_k_m", "llama", "embedded")


class Captured:
    """Everything that a browser context receives or asks for: URLs, HTTP bodies, websocket frames."""

    def __init__(self, page: Page) -> None:
        self.parts: list[tuple[str, bytes]] = []
        page.context.on("response", self._response)
        page.context.on("page", self._watch)
        self._watch(page)

    def _watch(self, page: Page) -> None:
        page.on("websocket", self._websocket)

    def _websocket(self, socket: WebSocket) -> None:
        self.parts.append((socket.url, b""))
        for event in ("framereceived", "framesent"):
            socket.on(event, lambda frame, url=socket.url: self._add(url, frame))

    def _add(self, url: str, frame: bytes | str) -> None:
        self.parts.append((url, frame.encode() if isinstance(frame, str) else frame))

    def _response(self, response: Response) -> None:
        if "/static/" in response.url:  # the frontend's own files: the same for everybody
            return
        try:
            body = response.body()
        except Exception:
            body = b""  # redirects have none
        self.parts.append((f"{response.url} {response.headers}", body))

    def mentions(self, name: str) -> list[str]:
        wanted = name.lower()
        return [
            where for where, body in self.parts if wanted in where.lower() or wanted.encode() in body.lower()
        ]


def log_in(browser: Browser, server: Server) -> Page:
    """A page of an admin, in a browser context of its own."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(60_000)
    page.goto(server.url)
    page.get_by_label("Admin password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Can a small model").wait_for()
    return page


def open_page(admin: Page, name: str) -> None:
    admin.get_by_role("link", name=name, exact=True).click()
    admin.get_by_role("heading", name=name, exact=True).wait_for()


def connect_models(admin: Page) -> None:
    open_page(admin, "Models")
    admin.get_by_role("tab", name="Connections").click()
    admin.get_by_role("button", name="Test", exact=True).first.click()
    expect(admin.get_by_text(re.compile(r"answered \d+ s ago"))).to_be_visible(timeout=60_000)
    admin.get_by_role("tab", name="Installed").click()
    admin.get_by_role("combobox", name="Model").click()
    for name in ("smollm2", "gemma"):
        expect(admin.get_by_role("option", name=re.compile(name))).to_be_visible()
    admin.keyboard.press("Escape")


def write_prompt(admin: Page) -> None:
    open_page(admin, "Prompts")
    admin.get_by_role("button", name="New use case").click()
    admin.get_by_role("dialog").get_by_role("textbox", name="Name").fill("Welcome notes")
    admin.get_by_role("button", name="Create").click()
    expect(admin.get_by_role("dialog")).to_have_count(0)
    admin.get_by_role("tab", name="Template").click()
    admin.get_by_role("textbox", name="Prompt template").fill(
        "Welcome {{ guest }} to our hotel in one short sentence."
    )
    admin.get_by_role("button", name="Save template").click()
    expect(admin.get_by_text("Saved as version 1")).to_be_visible()
    admin.get_by_role("tab", name="Cases").click()
    for name, guest, there in (("Sailor", "a tired sailor", "1 case."), ("Family", "a family", "2 cases.")):
        field = admin.get_by_role("textbox", name="Name of the case")
        expect(field).to_have_value("")
        field.fill(name)
        admin.get_by_role("textbox", name="guest", exact=True).fill(guest)
        admin.get_by_role("button", name="Add case").click()
        expect(admin.get_by_text(there)).to_be_visible()
    admin.get_by_role("tab", name="Template").click()
    expect(admin.get_by_text("Welcome a tired sailor to our hotel")).to_be_visible()


def start_run(admin: Page) -> None:
    admin.get_by_role("link", name="Generate answers").click()
    admin.get_by_role("heading", name="Generate", exact=True).wait_for()
    tokens = admin.get_by_role("spinbutton", name="Max tokens")
    tokens.fill("24")
    tokens.press("Enter")
    expect(admin.get_by_text("4 calls = 2 models × 2 cases × 1 sample")).to_be_visible()
    admin.get_by_role("button", name="Start").click()
    expect(admin.get_by_role("button", name="Cancel")).to_be_visible()


def find_finished_run(admin: Page) -> None:
    open_page(admin, "Generate")
    expect(admin.get_by_role("link", name="Let people rate it")).to_be_visible(timeout=180_000)
    expect(admin.get_by_text("2 of 2 done")).to_have_count(2)


def launch_study(admin: Page) -> str:
    admin.get_by_role("link", name="Let people rate it").click()
    admin.get_by_role("spinbutton", name="Raters", exact=True).fill("2")
    admin.get_by_role("button", name="Create draft").click()
    admin.get_by_role("button", name="Launch").click()
    link = admin.get_by_test_id("stCode").first
    expect(link).to_contain_text("/rate?s=")
    return link.inner_text().strip()


def score_screen(rater: Page, last: bool) -> None:
    for place, letter in enumerate("AB"):
        group = rater.get_by_role("radiogroup", name=f"Score for answer {letter}")
        group.get_by_text(str(5 + place), exact=True).click()
    rater.get_by_role("button", name="Save and finish" if last else "Save and go on").click()


def test_the_whole_job(browser: Browser, server: Server) -> None:
    admin = log_in(browser, server)
    connect_models(admin)
    write_prompt(admin)
    start_run(admin)
    admin.context.close()  # the work goes on without anybody looking
    admin = log_in(browser, server)
    find_finished_run(admin)
    link = launch_study(admin)
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    rater = context.new_page()
    rater.set_default_timeout(60_000)
    captured = Captured(rater)

    rater.goto(link)
    rater.get_by_role("button", name="Start").click()
    expect(rater.get_by_text("Screen 1 of 2")).to_be_visible()
    rater.get_by_role("button", name="Save and go on").click()
    expect(rater.get_by_text("Not scored yet: answer A and B")).to_be_visible()
    score_screen(rater, last=False)
    expect(rater.get_by_text("Screen 2 of 2")).to_be_visible()
    rater.reload()
    expect(rater.get_by_text("Screen 2 of 2")).to_be_visible()
    other_tab = context.new_page()
    other_tab.goto(link)
    expect(other_tab.get_by_text("Screen 2 of 2")).to_be_visible()

    admin.get_by_role("link", name="Results").first.click()
    expect(admin.get_by_text("No set is complete yet")).to_be_visible()

    score_screen(other_tab, last=True)
    expect(other_tab.get_by_text("Thank you")).to_be_visible()
    code = other_tab.get_by_test_id("stCode").inner_text().strip()
    assert re.fullmatch("[A-Z2-9]{8}", code)

    admin.reload()
    expect(admin.get_by_text("1 of 2", exact=True)).to_be_visible()
    expect(admin.locator(".js-plotly-plot")).to_be_visible()
    expect(admin.locator(".js-plotly-plot")).to_contain_text("smollm2")

    assert sum(len(body) for _, body in captured.parts) > 10_000
    assert captured.mentions("Answer B"), "the capture missed the rating screen"
    assert {name: captured.mentions(name) for name in NAMES} == {name: [] for name in NAMES}
    context.close()
    admin.context.close()


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the focus is on `target` or in it."""
    for _ in range(30):
        if target.evaluate("element => element.contains(document.activeElement)"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {target}")


def test_a_rater_needs_no_more_than_the_keys(browser: Browser, tmp_path: Path) -> None:
    db = Db(tmp_path / "slam.db")
    add_connection(db, "http://127.0.0.1:1", "one", "two")
    run_id = plan(db, cases=2)
    fill_all(db, run_id)
    study_id = rating_studies.create(db, run_id=run_id, name="Keys", raters=1, items_per_rater=2)
    token = rating_studies.launch(db, study_id)
    server = Server(db.path).start()
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    rater = context.new_page()
    rater.set_default_timeout(60_000)
    try:
        rater.goto(f"{server.url}/rate?s={token}")
        start = rater.get_by_role("button", name="Start")
        start.wait_for()
        tab_to(rater, start)
        rater.keyboard.press("Enter")
        for number, (save, key) in enumerate([("Save and go on", "Enter"), ("Save and finish", "Space")], 1):
            expect(rater.get_by_text(f"Screen {number} of 2")).to_be_visible()
            for score, letter in ((3, "A"), (7, "B")):
                group = rater.get_by_role("radiogroup", name=f"Score for answer {letter}")
                tab_to(rater, group)
                for _ in range(score):
                    rater.keyboard.press("ArrowRight")
                expect(group.get_by_role("radio", name=str(score), exact=True)).to_be_checked()
            button = rater.get_by_role("button", name=save)
            tab_to(rater, button)
            rater.keyboard.press(key)
        expect(rater.get_by_text("Thank you")).to_be_visible()
    finally:
        context.close()
        server.stop()
    assert [row["value"] for row in studies.ratings(db, study_id)] == [3, 7, 3, 7]
    db.close()


def test_a_login_survives_a_reload_and_ends_with_log_out(admin: Page) -> None:
    admin.reload()
    expect(admin.get_by_role("heading", name="Can a small model")).to_be_visible()
    admin.get_by_role("button", name="Log out").click()
    expect(admin.get_by_role("button", name="Log in as admin")).to_be_visible()
    admin.reload()
    expect(admin.get_by_label("Admin password")).to_be_visible()


def test_a_stranger_meets_no_admin_page(browser: Browser, server: Server) -> None:
    context = browser.new_context()
    page = context.new_page()
    for path in ("", "models", "results", "generate"):
        page.goto(f"{server.url}/{path}")
        expect(page.get_by_label("Admin password")).to_be_visible()
    page.goto(f"{server.url}/rate?s=wrong")
    expect(page.get_by_text("This link belongs to no study")).to_be_visible()
    context.close()
