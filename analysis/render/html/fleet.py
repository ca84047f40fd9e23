"""A fleet as one self-contained page, out of `fleet_values`: tables, and a bar for each share.

All of it is markup made here, every name written out by `printable` and then escaped; the script
only sorts and changes the theme. Nothing is loaded, and nothing else may run.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.fleet import (
    HEADS,
    LENGTHS,
    NUMBERS,
    apart,
    counted,
    listed,
    number,
    signature,
    span,
)
from porttrace.analysis.render.fleet_values import SHARES
from porttrace.analysis.render.html.page import filled, policy, style_of_page

_HERE = Path(__file__).parent
_NAMES = 100
_HOSTS = 10_000
_SKIPPED = 1_000

Cell = tuple[str, float | None]
"""What a cell says, as markup, and the number that it is sorted by."""


def fleet_page(values: Mapping[str, Any]) -> str:
    """Return the page of a fleet. The same values give the same text."""
    style, script = _style(), _script()
    sections = (_findings, _throttles, _percentiles, _tallies, _outliers, _hosts, _skipped)
    return filled(
        _text("fleet.html"),
        {
            "policy": policy(style, script),
            "style": style,
            "script": script,
            "title": f"{values['hosts']:,} host{'' if values['hosts'] == 1 else 's'}",
            "about": f'<div class="about muted">{"".join(_paragraphs(counted(values)))}</div>',
            "sections": "\n".join(part for make in sections for part in make(values)),
        },
    )


def inert(text: str) -> str:
    """Return a text as markup that shows it and does nothing else; it is ASCII."""
    return escape(printable(text)).encode("ascii", "xmlcharrefreplace").decode()


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"<p>{inert(line)}</p>" for line in lines)


def _section(name: str, heading: str, body: str) -> str:
    title = f'<h2 id="{name}-title">{heading}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{title}\n{body}\n</section>'


def _table(name: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    # A column is one of numbers when its first cell has one.
    kinds = [' class="number"' if cell[1] is not None else "" for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{kind}>{text}</th>' for text, kind in zip(heads, kinds, strict=True)
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="scroller" role="region" tabindex="0" aria-label="{inert(name)}">'
        f'<table class="sorted"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    text, value = cell
    if value is None:
        return f'<td class="name">{text}</td>'
    return f'<td class="number" data-value="{value!r}">{text}</td>'


def _named(text: str) -> Cell:
    return inert(text), None


def _many(value: int) -> Cell:
    return f"{value:,}", value


def _long(seconds: float | None) -> Cell:
    if seconds is None:
        return "", -1
    return span(seconds) or "0", seconds


def _findings(values: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            (f'<strong class="{each["severity"]}">{inert(each["severity"])}</strong>', None),
            _named(each["rule"]),
            _many(each["hosts"]),
            _many(each["findings"]),
        )
        for each in values["findings"]
    ]
    table = _table("Findings", ("Severity", "Finding", "Hosts", "Findings"), rows) if rows else ""
    yield _section("findings", "Findings", table or "<p>None.</p>")


def _throttles(values: Mapping[str, Any]) -> Iterator[str]:
    parts = [
        f'<div class="throttle"><h3>{inert(signature(each))}</h3>'
        f"<p>On {len(each['having']):,} of {values['hosts']:,} hosts: "
        f"{inert(listed(each['having'], _NAMES))}.</p>"
        f'<p class="muted">{inert(apart(each))}</p>{_common(each["common"])}</div>'
        for each in values["throttles"]
    ]
    if parts:
        yield _section(
            "throttles", "Throttles, and what their hosts have in common", "".join(parts)
        )


def _common(facts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            _named(each["kind"]),
            _named(each["what"]),
            (f"{each['having']:,} of {each['of_having']:,}", each["having"]),
            (f"{each['lacking']:,} of {each['of_lacking']:,}", each["lacking"]),
        )
        for each in facts
    ]
    heads = ("Kind", "Fact (not a cause)", "Hosts with it", "Hosts without it")
    return _table("What they have in common", heads, rows) if rows else ""


def _percentiles(values: Mapping[str, Any]) -> Iterator[str]:
    found = values["percentiles"]
    rows = [
        (_named(called), *(_long(found[name][key]) for key in (*SHARES, "max")))
        for name, called in LENGTHS.items()
    ]
    heads = ("Times", "p50", "p90", "p99", "p99.9", "max")
    note = f'<p class="muted">Within {found["error"]:.0%} of the value; max is exact.</p>'
    yield _section("times", "Times", note + _table("Times", heads, rows))


def _tallies(values: Mapping[str, Any]) -> Iterator[str]:
    for name, head in HEADS.items():
        if values[name]:
            most = max(row["total_s"] for row in values[name]) or 1.0
            rows = [_counted(row, most) for row in values[name]]
            called = head.capitalize()
            heads = (called, "Share", "Attempts", "Failed", "Held", "Time", "May lack", "Hosts")
            yield _section(name, f"Most time: {called.lower()}", _table(called, heads, rows))


def _counted(row: Mapping[str, Any], most: float) -> tuple[Cell, ...]:
    return (
        _named(row["name"]),
        (_bar(row["total_s"] / most, row["held_s"] / most), None),
        _many(row["attempts"]),
        _many(row["failed"]),
        _long(row["held_s"]),
        _long(row["total_s"]),
        _long(row["missing_s"]),
        _many(row["hosts"]),
    )


def _bar(total: float, held: float) -> str:
    # Held time lies within the total.
    rects = "".join(
        f'<rect{kind} width="{100 * share:.1f}" height="10"/>'
        for kind, share in (("", total), (' class="held"', min(held, total)))
    )
    shape = 'viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"'
    return f'<svg class="bar" {shape}>{rects}</svg>'


def _outliers(values: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            _named(each["host"]),
            _named(NUMBERS[each["number"]]),
            (number(each["number"], each["value"]), each["value"]),
            (number(each["number"], each["median"]), each["median"]),
            (f"{each['times']:,.0f}" if each["times"] else "", each["times"] or 0),
        )
        for each in values["outliers"]
    ]
    heads = ("Host", "By", "Value", "Median host", "Times the median")
    if rows:
        yield _section("outliers", "Unlike the rest", _table("Unlike the rest", heads, rows))


def _hosts(values: Mapping[str, Any]) -> Iterator[str]:
    shown = sorted(values["per_host"], key=lambda row: (-row["held_s"], row["host"]))[:_HOSTS]
    if not shown:
        return
    heads = (
        "Host", "Kernel", "Attempts", "Failed", "Held", "Held p99", "Answer p50", "Answer p99",
        "Recorded", "Findings",
    )  # fmt: skip
    yield _section("hosts", "Hosts", _table("Hosts", heads, [_host(row) for row in shown]))


def _host(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    findings = "".join(
        f'<span class="line"><strong class="{each["severity"]}">{inert(each["rule"])}</strong> '
        f"{inert(each['summary'])}</span>"
        for each in row["findings"][:3]
    )
    more = row["findings_in_all"] - len(row["findings"][:3])
    findings += f'<span class="line">and {more:,} more</span>' if more > 0 else ""
    return (
        _named(row["host"]),
        _named(", ".join(row["kernels"])),
        _many(row["attempts"]),
        _many(row["failed"]),
        *(
            _long(row[name])
            for name in ("held_s", "held_p99_s", "answer_p50_s", "answer_p99_s", "recorded_s")
        ),
        (findings, None),
    )


def _skipped(values: Mapping[str, Any]) -> Iterator[str]:
    rows = [(_named(each["path"]), _named(each["why"])) for each in values["skipped"][:_SKIPPED]]
    if rows:
        yield _section("skipped", "Not read", _table("Not read", ("Recording", "Why"), rows))


@functools.cache
def _style() -> str:
    return style_of_page() + _text("fleet.css")


@functools.cache
def _script() -> str:
    return f'\n(() => {{\n"use strict";\n\n{_text("fleet.js")}}})();\n'


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
