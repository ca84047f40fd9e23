"""A fleet in 80 columns, as documented JSON, and as a page that nothing can leave."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from fleets import fleet_of, part
from porttrace.analysis.fleet.merge import Fleet
from porttrace.analysis.fleet.model import Found, Skipped, Throttle
from porttrace.analysis.fleet.tally import Entry, tally
from porttrace.analysis.render.escape import columns
from porttrace.analysis.render.fleet import fleet_text, span
from porttrace.analysis.render.fleet_values import fleet_values
from porttrace.analysis.render.html.fleet import fleet_page

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e\u2028é"
S = 1_000_000_000


def story(name: str = "web") -> Fleet:
    """Ten hosts, one with a throttle and far above the others, and a file that is none."""
    entries = [(f"{name}{n}", Entry(10**n, n, S, 10**n * S)) for n in range(8)]
    parts = [
        part(
            f"{name}-{n}",
            each_ns=(5 * S if n == 3 else 1_000_000),
            throttles=frozenset({Throttle("serialized-connects", "gate", "process", 1, "queue")})
            if n == 3
            else frozenset(),
            facts=frozenset({("lsm-foreign", f"{name} is active " * 6)}),
            census=True,
            findings=(Found("serialized-connects", "critical", 0.9, f"Process {name} waits."),),
            by_rule={("serialized-connects", "critical"): 1},
            outcomes={"established": 9, "refused": 1},
            destinations=tally(entries),
            programs=tally(entries),
            images=tally(entries),
            places=tally(entries),
        )
        for n in range(10)
    ]
    fleet = fleet_of(*parts)
    fleet.add(Skipped(f"/tmp/{name}.ptrace", f"cannot read /tmp/{name}.ptrace: no", "look"))
    return fleet


def test_text_fits_80_columns() -> None:
    for name in ("web", "a-very-long-name-" * 4, HOSTILE):
        text = fleet_text(fleet_values(story(name)))
        wide = [line for line in text.splitlines() if columns(line) > 80]
        # a word that is longer than the line stays whole
        assert all(max(map(len, line.split())) > 40 for line in wide), wide
        assert not set("\x1b\u202e\u2028") & set(text)


def test_text_says_all_of_it() -> None:
    text = fleet_text(fleet_values(story()))
    assert "10 hosts, 10 recordings, 100 attempts" in text
    assert "Left out: 1 of 11 recordings cannot be read." in text
    assert "THROTTLE on 1 host: serialized-connects at gate, scope process, 1 slot, queue" in text
    assert "9 hosts without it." in text
    assert re.search(r"1 of 1 +9 of 9 +lsm-foreign: web is active", text)
    assert "UNLIKE THE REST: held on the host, p99; median 1.0ms" in text
    assert re.search(r"web-3 +5.00s, 5,0\d\d times", text)
    assert "cannot read /tmp/web.ptrace: no" in text


def test_an_empty_fleet_has_words_too() -> None:
    values = fleet_values(Fleet())
    assert "0 hosts, 0 recordings" in fleet_text(values)
    assert "No findings." in fleet_text(values)
    assert fleet_page(values)


def test_json_has_the_documented_keys() -> None:
    page = (Path(__file__).parents[3] / "docs" / "json.md").read_text()
    section = page.partition("## `fleet`")[2].partition("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.M)
        for name in re.findall(r"`([\w.]+)`", row)
    }  # fmt: skip
    assert keys(json.loads(json.dumps(fleet_values(story())))) == named - {"key"}


def keys(value: Any, before: str = "") -> set[str]:
    # As the page names them: `throttles.having`; places, programs and images are as destinations.
    found: set[str] = set()
    for key, item in value.items():
        if key == "by_outcome" or not isinstance(item, (dict, list)):
            found.add(before + key)
        elif isinstance(item, dict):
            found |= keys(item, f"{before}{key}.")
        elif key in ("places", "programs", "images"):
            found.add(key)
        elif item and isinstance(item[0], dict):
            found |= keys(item[0], f"{before}{key}.")
        else:
            found.add(before + key)
    return found


def test_the_page_loads_nothing_and_allows_its_own_alone() -> None:
    report = fleet_page(fleet_values(story()))
    assert report.startswith("<!DOCTYPE html>")
    assert not re.search(r"""(?:src|href)=["'](?!data:,|#)""", report)
    assert not re.search(r"https?://|@import|url\(", report)
    assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=", report)
    assert "{{" not in report
    found = re.search(r'Security-Policy" content="([^"]+)"', report)
    assert found and "unsafe" not in found[1]
    policy = dict(each.split(" ", 1) for each in found[1].split("; "))
    assert policy["default-src"] == "'none'"
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", report, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"


def test_hostile_names_are_text_in_the_page() -> None:
    report = fleet_page(fleet_values(story(HOSTILE)))
    assert report.isascii()
    assert report.count("</script>") == 1
    assert "<img" not in report and "\x1b" not in report
    assert "&lt;/script&gt;&lt;img src=x" in report


def test_the_same_values_give_the_same_page() -> None:
    assert fleet_page(fleet_values(story())) == fleet_page(fleet_values(story()))


def test_spans() -> None:
    told = [span(s) for s in (0, 0.002, 5.2, 999, 1000, 7200, 36e3, 360e3, 864e5, 10**10)]
    assert told == ["", "2.0ms", "5.20s", "999s", "17m", "120m", "10h", "4d", "1,000d", "317y"]
