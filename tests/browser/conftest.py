"""A headless Chromium, the distribution's own, and pages opened in it from files."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser.stories import Told
from porttrace.analysis.render.html import html_report

CHROMIUM = Path("/usr/bin/chromium")
_ARGS = (
    "--headless=new",
    "--no-sandbox",  # the pages are ours, and root has no sandbox
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


class Opened:
    """A page, and everything it asked for and complained about since it was opened."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.url = page, path.as_uri()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def ask(self, code: str) -> object:
        """Return what an expression is in the page."""
        return self.page.evaluate(code)

    def bars(self) -> list[dict[str, object]]:
        """Return the rows as they are laid out now, after the next frame."""
        found: list[dict[str, object]] = self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() =>"
            " requestAnimationFrame(() => done(porttrace.bars()))))"
        )
        return found


@pytest.fixture(scope="module")  # gone before the kernel tests begin
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail(f"browser tests need {CHROMIUM}: scripts/test installs it", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGS)
        yield browser
        browser.close()


Open = Callable[..., Opened]


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open the report of a story; `width` and `theme` are those of the screen."""
    contexts = []

    def open_report(told: Told, width: int = 1280, theme: str = "light", title: str = "") -> Opened:
        path = tmp_path / "report.html"
        path.write_text(html_report(*told, title=title), encoding="ascii")
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if theme == "dark" else "light",
        )
        contexts.append(context)
        opened = Opened(context.new_page(), path)
        opened.page.goto(opened.url)
        opened.bars()
        return opened

    yield open_report
    for context in contexts:
        context.close()


def by_id(bars: Sequence[dict[str, object]]) -> dict[object, dict[str, object]]:
    """Return rows by the number of their attempt."""
    return {bar["id"]: bar for bar in bars}
