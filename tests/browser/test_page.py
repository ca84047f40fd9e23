"""The report in a real browser: inert, true to the data, usable by keyboard, and fluent."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from browser import stories
from porttrace.analysis.model import start_ns

from .conftest import Open, Opened, by_id

pytestmark = pytest.mark.browser

STORIES = (
    stories.queue,
    stories.every_outcome,
    stories.nothing,
    stories.one,
    stories.refused,
    stories.waiting,
    stories.hostile,
    stories.ports,
)
Story = Callable[[], stories.Told]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("story", STORIES)
def test_nothing_is_asked_for_and_nothing_complains(
    opened: Open, story: Story, width: int, theme: str
) -> None:
    page = opened(story(), width, theme)
    page.page.wait_for_timeout(200)
    assert page.requests == [page.url]
    assert page.complaints == []
    assert page.ask("document.documentElement.scrollWidth") == width


def test_the_policy_lets_nothing_else_run_or_load(opened: Open) -> None:
    page = opened(stories.one())
    blocked = page.ask(
        """() => new Promise((done) => {
            const found = [];
            document.addEventListener("securitypolicyviolation", (event) => {
                found.push(event.effectiveDirective);
                if (found.length === 3) done(found.sort());
            });
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "http://192.0.2.1/x.png";
            document.body.append(image);
            fetch("http://192.0.2.1/").catch(() => {});
        })"""
    )
    assert blocked == ["connect-src", "img-src", "script-src-elem"]
    assert page.ask("window.ran") is None


@pytest.mark.parametrize("width", [400, 1280])
def test_bars_stand_in_the_proportions_of_the_data(opened: Open, width: int) -> None:
    trace, findings = stories.queue()
    page = opened((trace, findings), width)
    plot, view = _plot(page)
    scale = plot["width"] / (view["to"] - view["from"])
    bars = by_id(page.bars())
    assert set(bars) == set(trace.attempts["attempt_id"].tolist())
    for row in trace.rows:
        bar: Any = bars[int(row["attempt_id"])]
        x, width_px = bar["flight"]
        assert x == pytest.approx(plot["left"] + (int(row["syn_ns"]) - view["from"]) * scale)
        assert width_px == pytest.approx(int(row["end_ns"] - row["syn_ns"]) * scale, abs=1e-6)
        gate = [hold["span"] for hold in bar["holds"] if hold["place"] == "gate"]
        if row["gate_ns"]:
            held = int(row["call_ns"] - row["gate_ns"])
            assert gate[0][1] == pytest.approx(held * scale)
        else:
            assert not gate


def _plot(page: Opened) -> tuple[dict[str, float], dict[str, float]]:
    plot: Any = page.ask("porttrace.plot()")
    view: Any = page.ask("porttrace.view()")
    return plot, view


def test_rows_are_in_order_of_their_first_mark(opened: Open) -> None:
    trace, findings = stories.queue()
    shown = [bar["id"] for bar in opened((trace, findings)).bars()]
    order = start_ns(trace.attempts).argsort(kind="stable")
    assert shown == trace.attempts["attempt_id"][order].tolist()


def test_bars_are_really_painted(opened: Open) -> None:
    page = opened(stories.queue())
    bar = next(bar for bar in page.bars() if bar["outcome"] == "cancelled")
    flight: Any = bar["flight"]
    middle = f"{flight[0] + flight[1] * 0.8}, {bar['y']} + {bar['height']} / 2"
    canvas = "document.getElementById('waterfall').getContext('2d')"
    painted = page.ask(f"[...{canvas}.getImageData({middle}, 1, 1).data]")
    assert painted == [0x54, 0x5D, 0x67, 255]


def test_victims_are_linked_to_what_they_waited_for(opened: Open) -> None:
    trace, findings = stories.queue()
    page = opened((trace, findings))
    links: Any = page.ask("porttrace.links()")
    agent = {int(r["attempt_id"]) for r in trace.rows if r["comm"] == b"agent"}
    assert {link["victim"] for link in links} == {p.attempt_id for p in findings[0].victims}
    assert {link["blocker"] for link in links} == agent


def test_the_verdict_stands_in_words(opened: Open) -> None:
    _, findings = told = stories.queue()
    shown = opened(told).page.locator("#verdict")
    text = shown.text_content() or ""
    for finding in findings:
        assert finding.summary in text
        assert all(advice in text for advice in finding.advice)
    sure = f"firm (confidence {findings[0].confidence:.2f})"
    assert f"Critical \u00b7 serialized-connects \u00b7 {sure}" in text
    assert not shown.get_by_text(findings[0].advice[0]).is_visible()
    shown.get_by_text("What to do").first.click()
    assert shown.get_by_text(findings[0].advice[0]).is_visible()


def test_without_findings_it_says_so(opened: Open) -> None:
    assert "Nothing wrong found in 1 attempt" in _text(opened(stories.one()))
    text = _text(opened(stories.refused()))
    assert "Nothing wrong" not in text
    assert "No throttle found in 2 attempts; 1 attempt was refused: 192.0.2.2:81." in text
    text = _text(opened(stories.waiting()))
    assert "Nothing wrong" not in text
    assert "Not explained" in text
    page = opened(stories.nothing())
    assert "No connection attempt that matches the filter (pid 4) was seen" in _text(page)
    assert not page.page.locator("#chart").is_visible()


def _text(page: Opened) -> str:
    return page.page.locator("main").inner_text()


def test_failed_binds_stand_in_a_table_with_who_has_the_port(opened: Open) -> None:
    trace, findings = stories.ports()
    page = opened((trace, findings))
    rows = page.page.locator("#binds tbody tr")
    expect(rows).to_have_count(4)
    first, low, gone, _ = (re.sub(r"\s+", " ", text) for text in rows.all_inner_texts())
    assert first.startswith("1.000000 s licenced (pid 7) 0 bind tcp 0.0.0.0:43611 reuseaddr EADDR")
    assert "java (pid 77, user app) has it for its connection to 192.0.2.9:5432" in first
    assert "[::]:443" in low and "EACCES permission denied" in low
    assert "whoever held it was gone 2 ms later" in gone
    note = page.page.locator("#binds-note").inner_text()
    assert note.startswith("6 calls of bind and listen: 4 failed, 2 worked. What to do")
    assert not page.page.locator("#chart").is_visible()


def test_those_that_worked_come_with_a_key(opened: Open) -> None:
    page = opened(stories.ports())
    button = page.page.locator("#binds-worked")
    button.focus()
    page.page.keyboard.press("Enter")
    rows = page.page.locator("#binds tbody tr")
    expect(rows).to_have_count(6)
    assert "ok, port 40123" in rows.nth(5).inner_text()
    assert button.get_attribute("aria-pressed") == "true"
    page.page.keyboard.press("Space")
    expect(rows).to_have_count(4)


def test_each_failure_leads_to_what_to_do_by_keys(opened: Open) -> None:
    trace, findings = stories.ports()
    page = opened((trace, findings))
    links = page.page.locator("#binds tbody button")
    expect(links).to_have_count(4)
    for at, port in enumerate((43611, 443, 80, 53)):
        links.nth(at).focus()
        page.page.keyboard.press("Enter")
        number = str(page.ask("document.activeElement.id")).removeprefix("finding-")
        finding = findings[int(number)]
        assert finding.subject["port"] == port
        assert page.page.get_by_text(finding.advice[0]).first.is_visible()


def test_many_binds_are_turned_over_page_by_page(opened: Open) -> None:
    page = opened(stories.many_binds(3_000))
    rows, of = page.page.locator("#binds tbody tr"), page.page.locator("#binds-of")
    expect(rows).to_have_count(50)
    assert of.inner_text() == "1 to 50 of 2,000 calls"
    page.page.click("#binds-next")
    assert of.inner_text() == "51 to 100 of 2,000 calls"
    assert (
        "3,030 calls of bind and listen: 3,000 failed, 30 worked. This page has the first 2,030"
        in (page.page.locator("#binds-note").inner_text())
    )


def test_without_binds_there_is_no_such_section(opened: Open) -> None:
    page = opened(stories.queue()).page
    assert not page.locator("#binds").is_visible()
    assert page.locator("#skip").get_attribute("href") == "#chart"
    page = opened(stories.ports()).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#binds")


def test_losses_are_in_the_trust_line(opened: Open) -> None:
    shown = opened(stories.every_outcome()).page.locator("#trust").inner_text()
    assert "12 lost, 1 attempt with an unknown end" in shown
    assert "A note." in shown


def test_every_outcome_has_a_letter_of_its_own(opened: Open) -> None:
    page = opened(stories.every_outcome())
    letters = page.page.locator("#legend .letter").all_text_contents()
    assert sorted(letters) == sorted("ERTUDNXC?P")


@pytest.mark.parametrize(
    ("part", "label", "left"),
    [("process", "client (pid 1)", 4), ("destination", "443", 1), ("outcome", "refused", 1)],
)
def test_the_filter_changes_what_is_drawn(opened: Open, part: str, label: str, left: int) -> None:
    page = opened(stories.every_outcome())
    assert len(page.bars()) == 10
    options = page.page.locator(f"#by-{part} option").all_text_contents()
    page.page.select_option(f"#by-{part}", label=next(o for o in options if label in o))
    assert len(page.bars()) == left
    expect(page.page.locator("#attempts tbody tr")).to_have_count(left)
    page.page.select_option(f"#by-{part}", "")
    assert len(page.bars()) == 10


def test_zoom_by_drag_wheel_buttons_and_keys(opened: Open) -> None:
    page = opened(stories.queue())
    whole = _span(page)
    box = _waterfall(page)
    mouse = page.page.mouse
    mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 30, steps=4)
    mouse.up()
    dragged = _span(page)
    assert dragged < whole / 3
    assert len(page.bars()) < 12
    page.page.click("#zoom-reset")
    assert _span(page) == whole
    page.page.keyboard.down("Control")
    mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    mouse.wheel(0, -200)
    page.page.keyboard.up("Control")
    page.bars()
    assert _span(page) < whole
    page.page.click("#zoom-reset")
    page.page.click("#zoom-in")
    assert _span(page) == pytest.approx(whole * 0.6)
    page.page.focus("#rows")
    for key in ("-", "+", "+"):
        page.page.keyboard.press(key)
    assert _span(page) == pytest.approx(whole * 0.36)
    before: Any = page.ask("porttrace.view().from")
    page.page.keyboard.press("ArrowRight")
    assert page.ask("porttrace.view().from") > before
    page.page.keyboard.press("0")
    assert _span(page) == whole


def _waterfall(page: Opened) -> dict[str, float]:
    page.ask("document.getElementById('chart').scrollIntoView()")
    box: Any = page.page.locator("#waterfall").bounding_box()
    return dict(box)


def _span(page: Opened) -> float:
    length: Any = page.ask("porttrace.view().to - porttrace.view().from")
    return float(length)


def test_arrow_keys_choose_and_enter_opens_the_details(opened: Open) -> None:
    page = opened(stories.queue())
    page.page.focus("#rows")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowDown")
    page.bars()
    assert "page-20 to 192.0.2.2:389" in (page.page.locator("#spoken").text_content() or "")
    details = page.page.locator("#details")
    assert "at the gate 3.30 s" in re.sub(r"\s+", " ", details.inner_text())
    page.page.keyboard.press("Enter")
    assert page.ask("document.activeElement.id") == "details"
    page.page.keyboard.press("Escape")
    assert page.ask("document.activeElement.id") == "rows"


def test_rows_of_the_table_are_reached_and_opened_by_keys(opened: Open) -> None:
    page = opened(stories.queue())
    row = page.page.locator("#attempts tbody tr")
    row.first.wait_for()
    row.first.focus()
    page.page.keyboard.press("ArrowDown")
    assert page.ask("document.activeElement.dataset.attempt") == "1"
    page.page.keyboard.press("Enter")
    page.bars()
    assert page.ask("document.activeElement.id") == "details"
    assert "192.0.2.2:389" in page.page.locator("#details").inner_text()
    page.page.keyboard.press("Escape")
    assert page.ask("document.activeElement.dataset.attempt") == "1"


def test_what_has_the_focus_is_outlined(opened: Open) -> None:
    page = opened(stories.queue())
    for _ in range(12):
        page.page.keyboard.press("Tab")
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.ask(style) == "solid", page.ask("document.activeElement.outerHTML")


def test_pointing_at_a_row_shows_its_marks(opened: Open) -> None:
    page = opened(stories.queue())
    box = _waterfall(page)
    bar: Any = page.bars()[1]
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + bar["y"] + bar["height"] / 2)
    page.bars()
    shown = page.page.locator("#details").inner_text()
    assert "stopped at gate" in shown
    assert "Waited for" in shown


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(opened: Open, theme: str) -> None:
    page = opened(stories.queue(), 1280, theme)
    assert page.ask("document.documentElement.dataset.theme") == theme
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.ask(ground)
    page.page.click("#theme")
    assert page.ask("document.documentElement.dataset.theme") != theme
    assert page.ask(ground) != before


_CONTRAST = """() => {
    const light = (text) => {
        const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (node) => {
        for (let n = node; n; n = n.parentElement) {
            const colour = getComputedStyle(n).backgroundColor;
            if (!/^rgba.*, 0\\)$/.test(colour)) return colour;
        }
    };
    const low = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || node.closest("script, noscript, svg") || node.disabled) continue;
        const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push([node.outerHTML.slice(0, 80), ratio]);
    }
    return low;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("story", [stories.queue, stories.every_outcome, stories.ports])
def test_text_has_enough_contrast(opened: Open, story: Story, theme: str) -> None:
    told = story()
    page = opened(told, 1280, theme)
    if len(told[0].attempts):
        page.page.focus("#rows")
        page.page.keyboard.press("ArrowDown")
        page.bars()
    assert page.ask(_CONTRAST) == []


def test_hostile_names_are_shown_and_do_nothing(opened: Open) -> None:
    page = opened(stories.hostile(), title=stories.HOSTILE)
    page.page.focus("#rows")
    page.page.keyboard.press("ArrowDown")
    page.page.wait_for_timeout(200)
    assert page.complaints == []
    assert page.requests == [page.url]
    assert page.ask("document.querySelectorAll('img, main script').length") == 0
    shown = page.ask("document.body.textContent + document.title")
    assert isinstance(shown, str)
    assert "</script><img src=x onerror=alert(1)>\\x1b[2J\\u202eevil\\u2028&\\xff" in shown
    assert not set("\x1b\u202e\u2028\udcff") & set(shown)


def test_a_million_attempts_make_a_short_page_that_says_what_is_left_out(
    opened: Open, tmp_path: Path
) -> None:
    page = opened(stories.throttled_crowd(1_000_000))
    assert (tmp_path / "report.html").stat().st_size < 10_000_000
    shown = page.page.locator("#left-out").inner_text()
    assert "of the 1,000,000 attempts of the trace" in shown
    assert "5 other processes are only counted" in shown
    assert page.complaints == []


# Zooms in, moves, zooms out, goes through the outcomes and the rows, one act a frame; returns
# the milliseconds that drawing took and those from frame to frame.
_EXERCISE = """async () => {
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const rows = document.getElementById("rows");
    const list = document.getElementById("by-outcome");
    const press = (key) => () => rows.dispatchEvent(new KeyboardEvent("keydown", { key }));
    const choose = (value) => () => {
        list.value = value;
        list.dispatchEvent(new Event("change"));
    };
    const times = (n, act) => Array(n).fill(act);
    const acts = [
        ...times(20, press("+")), ...times(20, press("ArrowRight")), ...times(20, press("-")),
        press("0"), ...[...list.options].map((option) => choose(option.value)), choose(""),
        ...times(20, press("ArrowDown")), ...times(30, () => { rows.scrollTop += 300; }),
    ];
    const before = porttrace.frames().length;
    const between = [];
    let last = await frame();
    for (const act of acts) {
        act();
        const now = await frame();
        between.push(now - last);
        last = now;
    }
    return [porttrace.frames().slice(before), between];
}"""


def test_ten_thousand_attempts_stay_fluent(
    opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    page = opened((stories.crowd(10_000), ()))
    assert len(page.bars()) == 10_000
    measured: Any = page.ask(_EXERCISE)
    drawing, between = (sorted(values) for values in measured)
    with capsys.disabled():
        print(
            f"\n10,000 attempts, {len(drawing)} frames: drawing took {_middle(drawing):.1f} ms "
            f"(95%: {_most(drawing):.1f}, worst {drawing[-1]:.1f}); from frame to frame "
            f"{_middle(between):.1f} ms (95%: {_most(between):.1f}, worst {between[-1]:.1f})"
        )
    # Loose: a shared machine without a graphics card draws this too.
    assert _middle(drawing) < 30
    assert _most(drawing) < 120


def _middle(values: list[float]) -> float:
    return values[len(values) // 2]


def _most(values: list[float]) -> float:
    return values[int(len(values) * 0.95)]
