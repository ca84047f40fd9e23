"""The words on the terminal: live lines, the tables at the end, the findings.

Tables fit 80 columns; a long IPv6 address may widen its line. Every name that a
process chose goes through `printable` here, and nowhere else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from porttrace.analysis import bind_names, names, summary
from porttrace.analysis.findings.counted import listed, rivals_of
from porttrace.analysis.holds import HOLDS, held
from porttrace.analysis.model import (
    FAILED,
    Attempts,
    Finding,
    Looked,
    Origin,
    Outcome,
    Party,
    Process,
    Suspect,
    Trace,
)
from porttrace.analysis.render import who
from porttrace.analysis.render.closing import closing, level
from porttrace.analysis.render.escape import clipped, printable
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.stacks import telling

_NAME = 15  # the kernel's names are 15 characters
_SHARED = 28  # columns that the name and the destination share in a line of 80
_BESIDE = 13  # so many of them are the name's, or more beside a short destination
_LEAST = 7  # ... and so many stay its own beside a long one
_MOST = 20  # more of them that a long destination or container may take
# Below the limit a length of time is shown in the unit, with so many decimals.
_UNITS = (
    (999.5e3, 1e3, 0, "us"),
    (9.95e6, 1e6, 1, "ms"),
    (999.5e6, 1e6, 0, "ms"),
    (9.995e9, 1e9, 2, "s"),
    (99.95e9, 1e9, 1, "s"),
)
_SHOWN = 8  # victims and blockers by name; the rest as a count


Hold = tuple[int, str]
"""How long an attempt was held on this host (ns), and where longest; "" for under 10 ms."""


def live_header() -> str:
    """Return the heading of the live lines."""
    return _line("TIME", "PID", "THREAD", "DESTINATION", "OUTCOME", "HELD", "WHERE", "TOOK")


def _line(*cells: str, known: Process | None = None) -> str:
    time, pid, comm, to, outcome, held, where, took = cells
    inside = names.inside(known)
    # Long destinations take their place from the name; a container takes it from the blanks behind
    # the destination first, then widens the line.
    wanted = max(_BESIDE, who.width(inside, comm))
    width = max(_LEAST, min(wanted, _SHARED + (_MOST if inside else 0) - len(to)))
    name, there = who.called(inside, comm, width), to.ljust(_SHARED - width)
    return (
        f"{time:>8} {pid:>7} {name} {there} {outcome:<11} {held:>6} {where:<7} {took:>6}".rstrip()
    )


def attempt_line(row: np.void, time: str, hold: Hold, known: Process | None = None) -> str:
    """Return the line of one ATTEMPT row that ended at `time`: how, held how long, SYN to end.

    `hold` is what `holds_of` says of it. `known` is its process: in a container the line says so,
    as `web[7] curl`. Where the end was lost, how long it took is left out.
    """
    outcome = Outcome(int(row["outcome"])).name
    timed = row["syn_ns"] and row["end_ns"] and row["origin"] != Origin.seeded
    took_ns = int(row["end_ns"]) - int(row["syn_ns"]) if timed else 0
    return _line(
        time,
        str(row["pid"]),
        names.comm(row),
        names.destination(row),
        outcome,
        short(hold[0]),
        hold[1],
        short(took_ns),
        known=known,
    )


def left_out_line(time: str, counts: Mapping[str, int]) -> str:
    """Return the line for attempts that were too many for lines of their own, by outcome."""
    listed = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    return f"{time:>8} ... and {sum(counts.values()):,} more, too many for a line each: {listed}"


def holds_of(rows: Attempts, now_ns: int) -> list[Hold]:
    """Return how long each attempt was held on this host until `now_ns` (ns), and where."""
    held_ns, places = held(rows, now_ns)
    told = ("", *HOLDS)
    return [(ns, told[at + 1]) for ns, at in zip(held_ns.tolist(), places.tolist(), strict=True)]


def pending_line(
    row: np.void,
    now_ns: int,
    time: str,
    hold: Hold,
    frames: tuple[str, ...] = (),
    known: Process | None = None,
) -> str:
    """Return the line of an attempt that is not over: where it stands, and since when.

    With the kernel stack of a held one (`frames`, innermost first) a second line names the
    function that holds it.
    """
    held_ns, where = hold
    if row["syn_ns"]:
        state, lasts, took = "in SYN_SENT", short(held_ns), f"{short(now_ns - int(row['syn_ns']))}+"
    else:
        place = "gate" if row["gate_ns"] and not row["call_ns"] else "connect"
        state, lasts, took = f"at {place}", f"{short(held_ns)}+", ""
    there = names.destination(row)
    cells = time, str(row["pid"]), names.comm(row), there, state, lasts, where, took
    inside = "" if row["syn_ns"] else ", called by ".join(telling(frames)[:2])
    return _line(*cells, known=known) + (f"\n{'':17}held in {printable(inside)}" if inside else "")


def bind_line(
    row: np.void, time: str, known: Process | None = None, found: Looked | None = None
) -> str:
    """Return the lines of one BIND row: who wanted what, the answer, and who holds the port."""
    wanted = f"{bind_names.call(row)} {bind_names.protocol(row)} {bind_names.local(row)}"
    if row["dport"]:
        port = int(row["port_asked"])
        own = f"its own port {port}" if port else "a local port"
        wanted = f"{own} to {names.destination(row)}"
    error = bind_names.error(row)
    inside = names.inside(known)
    name = who.called(inside, names.comm(row), max(_NAME, who.width(inside, names.comm(row))))
    got = f" (port {int(row['port_got'])})" if row["port_got"] != row["port_asked"] else ""
    answer = f"{error}: {bind_names.error_words(row)}" if error else f"ok{got}"
    lines = [f"{time:>8} {int(row['pid']):>7} {name} {wanted}: {answer}"]
    there = found.holders if found else ()
    if not error:  # who shares the port with it; it is one of those itself
        there = tuple(each for each in there if each.pid not in (0, int(row["pid"])))
    told = [bind_names.holder(each) for each in there]
    for each in told or filter(None, [bind_names.not_shown(row, found)]):
        lines += wrapped(printable(each), f"{'':17}held by: " if told else " " * 17)
    return "\n".join(lines)


def short(ns: float) -> str:
    """Return a length of time in at most 5 columns (a day long): `5.20s`, `14ms`, "" for none."""
    if ns != ns or ns <= 0:
        return ""
    for limit_ns, unit_ns, digits, unit in _UNITS:
        if ns < limit_ns:
            return f"{ns / unit_ns:.{digits}f}{unit}"
    return f"{ns / 1e9:.0f}s"


def ending(trace: Trace, findings: Sequence[Finding]) -> str:
    """Return everything that is printed when a trace ends."""
    parts = ["\n".join([*heading(trace), *_trust(trace)])]
    if len(trace.attempts):
        parts.append("\n".join(process_lines(trace)))
    parts += [finding_text(finding) for finding in findings]
    parts.append(closing(trace, findings))
    return "\n\n".join(parts)


def heading(trace: Trace) -> list[str]:
    """Return two lines: which host, kernel and mode a trace is of; since when, how long, whom."""
    host, kernel = trace.host.name or "a host without a name", trace.host.kernel
    linux = f", Linux {kernel}" if kernel else ""
    began = summary.began(trace) or "a time that is not known"
    return [
        clipped(f"Host: {host}{linux}; {trace.host.mode} mode", 80),
        clipped(
            f"Traced: from {began} for {summary.duration_s(trace):.1f} s;"
            f" {f'filter: {trace.filter}' if trace.filter else 'no filter'}",
            80,
        ),
    ]


def _trust(trace: Trace) -> Iterator[str]:
    trust = summary.trust(trace)
    lost = f"{trust.lost_events} LOST" if trust.lost_events else "none lost"
    wire = "wire probe on" if trace.host.wire else "no wire probe"
    unknown = f", {names.count(trust.attempts_unknown, 'attempt')} with an unknown end" * bool(
        trust.attempts_unknown
    )
    yield from wrapped(
        f"Trust: {names.count(trust.events, 'event')}, {lost}{unknown}; {trace.host.mode} mode,"
        f" {wire}."
    )
    for note in trust.notes:
        yield from wrapped(printable(note), "  - ")


def process_lines(trace: Trace, most: int = 20) -> Iterator[str]:
    """Yield the process table, the busiest processes first, at most `most` of them."""
    table = summary.process_table(trace)
    rows = table.head(most).to_dict("records")
    inside = {row["pid"]: names.inside(trace.processes.get(row["pid"])) for row in rows}
    wide = [who.width(inside[row["pid"]], row["comm"]) for row in rows if inside[row["pid"]]]
    width = min(max([_NAME, *wide]), _NAME + _MOST)
    yield (
        f"{'PID':>7} {'PROCESS':<{width}} {'TOTAL':>5} {'OK':>5} {'FAILED':>6} {'FLIGHT':>6} "
        f"{'DEMAND':>6} {'WORST':>5} {'P50':>5} {'P95':>5} {'P99':>5}"
    )
    for row in rows:
        ok = row.get("established", 0)
        failed = sum(row.get(outcome.name, 0) for outcome in FAILED)
        yield (
            f"{row['pid']:>7} {who.called(inside[row['pid']], row['comm'], width)} "
            f"{_few(row['attempts']):>5} "
            f"{_few(ok):>5} {_few(failed):>6} "
            f"{_few(row['max_in_flight']):>6} {_few(row['max_demand']):>6} "
            f"{short(row['worst_wait_ns']):>5} {short(row['p50_ns']):>5} "
            f"{short(row['p95_ns']):>5} {short(row['p99_ns']):>5}"
        ).rstrip()
    if len(table) > most:
        yield f"        ... and {names.count(len(table) - most, 'more process')}"
    outcomes = summary.by_outcome(trace.attempts)
    listed = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    yield from wrapped(f"Outcomes: {listed}")
    yield from wrapped(
        "FAILED: over without a connection, given up ones included. FLIGHT: most sockets in "
        "SYN_SENT at once. DEMAND: most attempts wanted at once, held ones included. "
        "WORST: longest hold on this host. P50-P99: SYN to answer."
    )


def _few(count: int) -> str:
    # A count in at most 5 columns.
    return str(count) if count < 100_000 else f"{count // 1000}k"


def finding_headline(finding: Finding) -> str:
    """Return the two lines that announce a finding while the trace goes on."""
    return f"{_title(finding)}\n" + "\n".join(wrapped(printable(finding.summary), "  "))


def withdrawal(finding: Finding) -> str:
    """Return the lines that take an announced finding back."""
    what = f"{finding.rule} no longer holds, now that more was seen. It was said:"
    lines = (*wrapped(what), *wrapped(printable(finding.summary), "  "))
    return "[TAKEN BACK] " + "\n".join(lines)


def _title(finding: Finding) -> str:
    return (
        f"[{finding.severity.upper()}] {finding.rule}: {level(finding)} "
        f"(confidence {finding.confidence:.2f})"
    )


def finding_text(finding: Finding) -> str:
    """Return a finding in full: verdict, who, behind whom, why, what could do it, what to do."""
    sections = [
        finding_headline(finding),
        "\n".join(_measured(finding)),
        _section(_fate(finding), map(_party, finding.victims[:_SHOWN]), len(finding.victims)),
        _section(
            "In front of them, and for how long",
            map(_party, _main_blockers(finding)),
            len(finding.blockers),
        ),
        _section(
            "Suspects: what can interpose there (facts; none is proof)",
            [_suspect(each, finding.place) for each in finding.suspects[:_SHOWN]],
            len(finding.suspects),
        ),
        _section("Not looked at on this host", _not_looked(finding)),
        _section(
            "Other explanations", (f"{h.name}: {h.verdict}. {h.why}" for h in finding.hypotheses)
        ),
        _section("To settle what is open", _settle(finding)),
        _section("What to do", finding.advice),
    ]
    return "\n".join(section for section in sections if section)


def _fate(finding: Finding) -> str:
    return "Denied, and after how long" if finding.mechanism == "deny" else "Waited"


def _settle(finding: Finding) -> list[str]:
    told = str(finding.evidence.get("settle", ""))
    return [told] if told and not told.startswith("Nothing") else []


def _main_blockers(finding: Finding) -> list[Party]:
    # Whoever waited in the same queue was in front of somebody too, for a moment.
    longest_s = max((party.wait_s for party in finding.blockers), default=0.0)
    return [party for party in finding.blockers if party.wait_s >= longest_s / 100][:_SHOWN]


def _measured(finding: Finding) -> Iterator[str]:
    facts = (
        ("place", finding.place),
        ("scope", finding.scope),
        ("slots", str(finding.slots or "")),
        ("mechanism", finding.mechanism),
    )
    known = [f"{name} {value}" for name, value in facts if value]
    if known:
        yield "  " + ", ".join(known)
    others = rivals_of(finding)
    if others:
        yield from wrapped(f"scope {finding.scope}, or {listed(others)}: not told apart here", "  ")
    stack = finding.evidence.get("stack")
    if isinstance(stack, list) and stack:
        yield from wrapped(printable("held in the kernel in " + ", called by ".join(stack)), "  ")


def _section(title: str, lines: Iterable[str], total: int = 0) -> str:
    items = list(lines)
    if not items:
        return ""
    out = [f"  {title}:"]
    for item in items:
        out += wrapped(printable(item), "    - ")
    if total > len(items):
        out.append(f"    ... and {total - len(items)} more")
    return "\n".join(out)


def _party(party: Party) -> str:
    thread = f" thread {party.comm}" if party.comm else ""
    numbers = filter(None, (f"pid {party.pid}", names.inside(party), f"tid {party.tid}"))
    return (
        f"{party.wait_s:.3f} s: {party.destination},{thread} ({', '.join(numbers)}), "
        f"{party.outcome}"
    )


def _suspect(suspect: Suspect, place: str) -> str:
    elsewhere = f" (at another place: {suspect.place})" if suspect.place != place else ""
    return f"{suspect.what}{elsewhere} [{suspect.source}]"


def _not_looked(finding: Finding) -> list[str]:
    told = finding.evidence.get("not_looked")
    return [str(each) for each in told] if isinstance(told, list) else []
