"""The whole job in a real browser: an admin and a rater in separate contexts, on real models."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, Response, WebSocket, expect

from tests.serving import Server

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


def generate(admin: Page) -> None:
    admin.get_by_role("link", name="Generate").click()
    admin.get_by_role("heading", name="Generate", exact=True).wait_for()
    removals = admin.get_by_role("group", name="Selected values").nth(1).get_by_role("button")
    removals.first.wait_for()
    for left in range(removals.count() - 1, 1, -1):
        removals.last.click()
        expect(removals).to_have_count(left)
    tokens = admin.get_by_role("spinbutton", name="Max tokens")
    tokens.fill("24")
    tokens.press("Enter")
    expect(admin.get_by_text("= 2 models × 2 cases × 1 samples")).to_be_visible()
    admin.get_by_role("button", name="Start").click()
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


def test_the_whole_job(browser: Browser, server: Server, admin: Page) -> None:
    generate(admin)
    link = launch_study(admin)
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    rater = context.new_page()
    rater.set_default_timeout(30_000)
    captured = Captured(rater)

    rater.goto(link)
    rater.get_by_role("button", name="Start").click()
    expect(rater.get_by_text("Screen 1 of 2")).to_be_visible()
    rater.get_by_role("button", name="Save and go on").click()
    expect(rater.get_by_text("Please also score answer A, B")).to_be_visible()
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
