"""The words on the terminal: live lines, the tables at the end, the findings.

Tables fit 80 columns; a long IPv6 address may widen its line. Every name that a
process chose goes through `printable` here, and nowhere else.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from porttrace.analysis import names, summary
from porttrace.analysis.model import Finding, Origin, Outcome, Party, Suspect, Trace
from porttrace.analysis.render.escape import clipped, printable

_WIDTH = 80
_NAME = 15  # the kernel's names are 15 characters
_FIRM = 0.8
_SHOWN = 8  # victims and blockers by name; the rest as a count


def live_header() -> str:
    """Return the heading of the live lines."""
    return _line("TIME", "PID", "THREAD", "DESTINATION", "OUTCOME", "HELD", "CONNECT")


def _line(*cells: str) -> str:
    time, pid, comm, where, outcome, held, took = cells
    return f"{time:>8} {pid:>7} {comm:<{_NAME}} {where:<20} {outcome:<11} {held:>7} {took:>7}".rstrip()


def attempt_line(row: np.void, time: str) -> str:
    """Return the line of one ATTEMPT row that ended at `time`: how, held how long, SYN to end."""
    outcome = Outcome(int(row["outcome"])).name
    end_ns = int(row["end_ns"])
    held_ns = _held_ns(row)
    took_ns = end_ns - int(row["syn_ns"]) if row["syn_ns"] and row["origin"] != Origin.seeded else 0
    return _line(
        time,
        str(row["pid"]),
        clipped(names.comm(row), _NAME),
        names.destination(row),
        outcome,
        short(held_ns),
        short(took_ns),
    )


def _held_ns(row: np.void) -> int:
    begin = int(row["gate_ns"] or row["call_ns"])
    until = int(row["syn_ns"] or row["end_ns"])
    return until - begin if begin and until else 0


def pending_line(row: np.void, now_ns: int, time: str) -> str:
    """Return the line of an attempt that is not over: where it stands, and since when."""
    if row["syn_ns"]:
        state, held, took = "in SYN_SENT", short(_held_ns(row)), short(now_ns - int(row["syn_ns"]))
    else:
        place = "gate" if row["gate_ns"] and not row["call_ns"] else "connect"
        begin = int(row["gate_ns"] or row["call_ns"])
        state, held, took = f"at {place}", short(now_ns - begin), ""
    comm = clipped(names.comm(row), _NAME)
    return _line(time, str(row["pid"]), comm, names.destination(row), state, held + "+" * (not took),
                 took + "+" * bool(took))  # fmt: skip


def short(ns: float) -> str:
    """Return a length of time in at most 7 columns: `5.20s`, `14.2ms`, `80us`, "" for none."""
    if ns != ns or ns <= 0:
        return ""
    if ns >= 100e9:
        return f"{ns / 1e9:.0f}s"
    if ns >= 1e9:
        return f"{ns / 1e9:.2f}s"
    return f"{ns / 1e6:.1f}ms" if ns >= 1e6 else f"{ns / 1e3:.0f}us"


def ending(trace: Trace, findings: Sequence[Finding]) -> str:
    """Return everything that is printed when a trace ends."""
    parts = ["\n".join(_trust(trace))]
    if len(trace.attempts):
        parts.append("\n".join(process_lines(trace)))
    if findings:
        parts += [finding_text(finding) for finding in findings]
    else:
        parts.append(_nothing(trace))
    return "\n\n".join(parts)


def _nothing(trace: Trace) -> str:
    if not len(trace.attempts):
        filtered = f" that matches the filter ({printable(trace.filter)})" if trace.filter else ""
        return f"No connection attempt{filtered} was seen. Nothing can be said."
    return (
        f"Nothing wrong found in {names.count(len(trace.attempts), 'attempt')}: no connect was "
        "held up by another."
    )


def _trust(trace: Trace) -> Iterator[str]:
    trust = summary.trust(trace)
    lost = f"{trust.lost_events} LOST" if trust.lost_events else "none lost"
    wire = "wire probe on" if trace.host.wire else "no wire probe"
    unknown = f", {trust.attempts_unknown} attempts with an unknown end" * bool(trust.attempts_unknown)
    yield from _wrapped(
        f"Trust: traced {summary.duration_s(trace):.1f} s, {trust.events} events, {lost}{unknown}; "
        f"{trace.host.mode} mode, {wire}."
    )
    for note in trust.notes:
        yield from _wrapped(printable(note), "  - ")


def process_lines(trace: Trace, most: int = 20) -> Iterator[str]:
    """Yield the process table, the busiest processes first, at most `most` of them."""
    table = summary.process_table(trace)
    yield (
        f"{'PID':>7} {'PROCESS':<15} {'ATTEMPTS':>8} {'OK':>6} {'FAILED':>6} {'FLIGHT':>6} "
        f"{'DEMAND':>6} {'WORST':>7} {'P50':>7} {'P95':>7} {'P99':>7}"
    )
    for row in table.head(most).to_dict("records"):
        ok = row.get("established", 0)
        open_now = row.get("pending", 0)
        yield (
            f"{row['pid']:>7} {clipped(row['comm'], 15):<15} {row['attempts']:>8} {ok:>6} "
            f"{row['attempts'] - ok - open_now:>6} {row['max_in_flight']:>6} {row['max_demand']:>6} "
            f"{short(row['worst_wait_ns']):>7} {short(row['p50_ns']):>7} {short(row['p95_ns']):>7} "
            f"{short(row['p99_ns']):>7}"
        ).rstrip()
    if len(table) > most:
        yield f"        ... and {len(table) - most} more processes"
    outcomes = summary.by_outcome(trace.attempts)
    yield "Outcomes: " + ", ".join(f"{count} {name}" for name, count in outcomes.items())
    yield from _wrapped(
        "FLIGHT: most sockets in SYN_SENT at once. DEMAND: most attempts wanted at once, held ones "
        "included. WORST: longest hold before the SYN. P50-P99: SYN to answer."
    )


def level(finding: Finding) -> str:
    """Return the word for a finding's confidence."""
    return "firm" if finding.confidence >= _FIRM else "likely"


def finding_headline(finding: Finding) -> str:
    """Return the two lines that announce a finding while the trace goes on."""
    return f"{_title(finding)}\n" + "\n".join(_wrapped(printable(finding.summary), "  "))


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
        _section("Waited", map(_party, finding.victims[:_SHOWN]), len(finding.victims)),
        _section("In front of them", map(_party, finding.blockers[:_SHOWN]), len(finding.blockers)),
        _section("What can interpose there (facts; none is proof)", map(_suspect, finding.suspects)),
        _section("Other explanations", (f"{h.name}: {h.verdict}. {h.why}" for h in finding.hypotheses)),
        _section("What to do", finding.advice),
    ]
    return "\n".join(section for section in sections if section)


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


def _section(title: str, lines: Iterable[str], total: int = 0) -> str:
    items = list(lines)
    if not items:
        return ""
    out = [f"  {title}:"]
    for item in items:
        out += _wrapped(printable(item), "    - ")
    if total > len(items):
        out.append(f"    ... and {total - len(items)} more")
    return "\n".join(out)


def _party(party: Party) -> str:
    thread = f" thread {party.comm}" if party.comm else ""
    return (
        f"{party.wait_s:.3f} s: {party.destination},{thread} (pid {party.pid}, tid {party.tid}), "
        f"{party.outcome}"
    )


def _suspect(suspect: Suspect) -> str:
    return f"{suspect.what} [{suspect.source}]"


def _wrapped(text: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )

