"""A fleet on a terminal of 80 columns, out of `fleet_values`; every name is made printable."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from porttrace.analysis.render.escape import clipped, columns, padded, printable
from porttrace.analysis.render.fleet_values import SHARES
from porttrace.analysis.render.text import short
from porttrace.analysis.render.wrap import wrapped

_ROWS = 10  # of a table
_NAMES = 8  # hosts by name
_FACTS = 6
HEADS = {
    "places": "PLACE",
    "destinations": "DESTINATION",
    "programs": "PROGRAM",
    "images": "IMAGE OR CONTAINER",
}
"""What the tables of `merge.TALLIES` are headed with."""
NUMBERS = {
    "held_p99_s": "held on the host, p99",
    "held_mean_s": "held on the host, mean",
    "answer_p50_s": "SYN to established, p50",
    "answer_p99_s": "SYN to established, p99",
    "failed_share": "share of attempts that failed",
    "attempts_per_s": "attempts a second",
}
"""What the numbers of `outliers.NUMBERS` are called."""
LENGTHS = {
    "held_s": "held on its host",
    "answer_s": "SYN to established",
    "total_s": "first mark to outcome",
}
"""What the percentiles are of."""


def fleet_text(values: Mapping[str, Any]) -> str:
    """Return what `porttrace fleet` prints."""
    parts = [_head(values), _findings(values), _throttles(values), _percentiles(values)]
    parts += [_tally(head, values[name]) for name, head in HEADS.items()]
    parts += [_outliers(values), _hosts(values), _skipped(values)]
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def span(seconds: float) -> str:
    """Return a length of time in at most 6 columns: `5.20s`, `14ms`, `3.2h`, `41d`."""
    for limit_s, unit_s, unit in ((1000.0, 0, ""), (36e3, 60, "m"), (360e3, 3600, "h")):
        if seconds < limit_s:
            return short(seconds * 1e9) if not unit else f"{seconds / unit_s:.0f}{unit}"
    return f"{seconds / 86400:,.0f}d" if seconds < 86400e4 else f"{seconds / 31557600:,.0f}y"


def number(name: str, value: float) -> str:
    """Return one of `NUMBERS` with its unit."""
    if name == "failed_share":
        return f"{value:.1%}"
    return f"{value:,.1f}/s" if name == "attempts_per_s" else span(value) or "0"


def counted(values: Mapping[str, Any]) -> list[str]:
    """Return in sentences what was read, and what limits trust in it."""
    files, attempts = values["recordings"], values["attempts"]
    lines = [
        f"{_count(values['hosts'], 'host')}, {_count(files['read'], 'recording')}, "
        f"{_count(attempts['total'], 'attempt')}, {attempts['failed']:,} of them failed; "
        f"recorded {span(files['recorded_s']) or '0'} in all."
    ]
    copies = files["copies"]
    every = files["read"] + files["skipped"] + len(copies)
    if files["skipped"]:
        of = f"{files['skipped']:,} of {_count(every, 'recording')}"
        lines.append(f"Left out: {of} cannot be read.")
    if copies:
        one, number = copies[0], _count(len(copies), "copy", "copies")
        more = ", and others" if len(copies) > 1 else ""
        lines.append(
            f"Left out: {number} of recordings that are counted already: {printable(one['path'])} "
            f"is that of {printable(one['of'])}{more}."
        )
    if files["lost_events"]:
        lines.append(f"Lost events: {files['lost_events']:,} of {files['events']:,}.")
    if files["incomplete"]:
        number = _count(files["incomplete"], "recording")
        lines.append(f"Not complete (cut off, or events lost): {number}.")
    if files["parquet"]:
        number = _count(files["parquet"], "recording")
        lines.append(
            f"From Parquet: {number}; binds, accept queues and samples of the host are not in it, "
            "and rules about them found nothing there."
        )
    return lines


def signature(throttle: Mapping[str, Any]) -> str:
    """Return a throttle in words."""
    words = [f"at {throttle['place']}" if throttle["place"] else ""]
    words.append(f"scope {throttle['scope']}" if throttle["scope"] else "")
    words.append(_count(throttle["slots"], "slot") if throttle["slots"] else "")
    words.append(throttle["mechanism"])
    return f"{throttle['rule']} {', '.join(filter(None, words))}"


def apart(throttle: Mapping[str, Any]) -> str:
    """Return in a sentence how many hosts do not have a throttle."""
    lacking, blind = len(throttle["lacking"]), len(throttle["not_seen"])
    text = f"{_count(lacking, 'host')} without it"
    return f"{text}; of {blind:,} it could not be seen." if blind else f"{text}."


def listed(names: Sequence[str], most: int) -> str:
    """Return names with commas, the first `most` of them."""
    more = len(names) - most
    rest = f" and {more:,} more" if more > 0 else ""
    return f"{', '.join(names[:most])}{rest}"


def _count(many: int, noun: str, nouns: str = "") -> str:
    return f"{many:,} {noun if many == 1 else nouns or noun + 's'}"


def _head(values: Mapping[str, Any]) -> Iterator[str]:
    for line in counted(values):
        yield from wrapped(line, "", "  ")


def _findings(values: Mapping[str, Any]) -> Iterator[str]:
    if not values["findings"]:
        yield "No findings."
        return
    yield f"{'FINDING':<32} {'SEVERITY':<10} {'HOSTS':>8} {'FINDINGS':>10}"
    for each in values["findings"]:
        row = f"{each['rule']:<32} {each['severity']:<10} {each['hosts']:>8,}"
        yield f"{row} {each['findings']:>10,}"


def _throttles(values: Mapping[str, Any]) -> Iterator[str]:
    for each in values["throttles"]:
        yield f"THROTTLE on {_count(len(each['having']), 'host')}: {signature(each)}"
        yield from wrapped(printable(listed(each["having"], _NAMES)), "  ")
        yield from wrapped(apart(each), "  ")
        if each["common"]:
            yield "  Known of those with it, and of those without (facts, not causes):"
        for fact in each["common"][:_FACTS]:
            head = f"    {_of(fact, 'having'):>11} {_of(fact, 'lacking'):>11}  "
            yield from wrapped(printable(f"{fact['kind']}: {fact['what']}"), head)


def _of(fact: Mapping[str, Any], which: str) -> str:
    return f"{fact[which]:,} of {fact[f'of_{which}']:,}"


def _percentiles(values: Mapping[str, Any]) -> Iterator[str]:
    error = values["percentiles"]["error"]
    heads = "".join(f"{head:>9}" for head in (*SHARES, "max"))
    yield f"{f'TIMES (within {error:.0%})':<26}{heads}"
    for name, called in LENGTHS.items():
        found = values["percentiles"][name]
        cells = "".join(f"{_time(found[key]):>9}" for key in (*SHARES, "max"))
        yield f"{called:<26}{cells}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else span(seconds) or "0"


def _tally(head: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield f"{head:<32}{'ATTEMPTS':>13}{'FAILED':>11}{'HELD':>8}{'TIME':>8}{'HOSTS':>8}"
    for row in rows[:_ROWS]:
        cells = f"{row['attempts']:>13,}{row['failed']:>11,}{span(row['held_s']):>8}"
        # What may be missing of a name that was not among the largest everywhere.
        about = "+" if row["missing_s"] > 0.005 * row["total_s"] else ""
        yield f"{padded(row['name'], 32)}{cells}{span(row['total_s']) + about:>8}{row['hosts']:>8,}"


def _outliers(values: Mapping[str, Any]) -> Iterator[str]:
    for name, called in NUMBERS.items():
        rows = [each for each in values["outliers"] if each["number"] == name]
        if not rows:
            continue
        yield f"UNLIKE THE REST: {called}; median {number(name, rows[0]['median'])}"
        for row in rows[:_ROWS]:
            times = f", {row['times']:,.0f} times" if row["times"] else ""
            host = clipped(row["host"], 40)
            dots = " " * max(1, 42 - columns(host))
            yield f"  {host}{dots}{number(name, row['value'])}{times}"


def _hosts(values: Mapping[str, Any]) -> Iterator[str]:
    rows = sorted(values["per_host"], key=lambda row: (-row["held_s"], row["host"]))
    if not rows:
        return
    head = f"{'HOST, MOST HELD FIRST':<28}{'ATTEMPTS':>12}{'FAILED':>10}"
    yield f"{head}{'HELD':>8}{'p99':>8}{'ANSWER':>7}{'p99':>7}"
    for row in rows[:_ROWS]:
        cells = f"{row['attempts']:>12,}{row['failed']:>10,}{span(row['held_s']):>8}"
        times = [_time(row[key]) for key in ("held_p99_s", "answer_p50_s", "answer_p99_s")]
        cells += f"{times[0]:>8}{times[1]:>7}{times[2]:>7}"
        yield f"{padded(row['host'], 27)} {cells}"
    if len(rows) > _ROWS:
        yield f"and {len(rows) - _ROWS:,} more hosts; --json and --html have them all."


def _skipped(values: Mapping[str, Any]) -> Iterator[str]:
    rows = values["skipped"]
    if rows:
        yield "NOT READ"
    for row in rows[: 2 * _ROWS]:
        yield from wrapped(printable(row["why"]), "  ", "    ")
    if len(rows) > 2 * _ROWS:
        yield f"  and {len(rows) - 2 * _ROWS:,} more; --json has them all."
