"""Rule `ephemeral-exhaustion`: local ports run out towards one destination.

Each pair of source and destination has the whole range of local ports for itself. The rule tells
it before the first failure, from the sockets that were counted beside the events, and at it.
"""

from collections.abc import Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.findings.exhaustion_wording import advice, hypotheses, summary
from porttrace.analysis.findings.shortage import NEARLY, Short, Use
from porttrace.analysis.findings.source_port import of_own_port
from porttrace.analysis.model import Finding, Outcome, Trace, start_ns
from porttrace.analysis.pairs import as_numbers, parts_by_key
from porttrace.analysis.place import within
from porttrace.analysis.samples import by_netns, ports_of, reuses
from porttrace.tracer.facts import MOST_GROUPS, PortUse

RULE = "ephemeral-exhaustion"

_TIMES = 2  # so many counts at least: a burst that is over at the next one is none
_NEAR_NS = 5_000_000_000  # a count so long before or after a failure tells of it
_MOST_NAMED = 3
_FAR = 0.5  # of the ports in use: no shortage is near

_Key = tuple[int, str, str]  # network namespace, source, destination


def ephemeral_exhaustion(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find destinations towards which the local ports are short: one finding for each."""
    # Who fails before SYN_SENT lacks the address and not the port (tcp_v4_connect); who brought a
    # port of its own lacks that one.
    columns = trace.columns
    failed = (columns["outcome"] == Outcome.no_port) & (columns["syn_ns"] > 0)
    failed &= ~of_own_port(trace)
    uses = _uses(trace, _destinations(trace, failed))
    uses = {key: mine for key, mine in uses.items() if _foretold(mine) or failed.any()}
    if not uses and not failed.any():
        return []
    tried = _tried(trace, failed, {key[2] for key in uses})
    cases = [
        _short(trace, key, rows, failed, uses.get(key, []))
        for key, rows in tried.items()
        if failed[rows].any() or _foretold(uses.get(key, []))
    ]
    return [_finding(short) for short in cases]


def _destinations(trace: Trace, failed: Bools) -> set[str]:
    to, rows = scope_keys(trace.columns, "destination"), np.flatnonzero(failed)
    first = np.unique(to[rows], return_index=True)[1]
    return {names.destination(trace.attempts[row]) for row in rows[first]}


# What was counted of each source and destination, in order of time; of those far from a shortage,
# of which a busy host has many, only where a connect failed.
def _uses(trace: Trace, failing: set[str]) -> dict[_Key, list[Use]]:
    found: dict[_Key, list[Use]] = {}
    for netns, samples in by_netns(trace).items():
        counted_ns = 0
        for sample in samples:
            ports, usage = ports_of(sample.settings), sample.usage
            if ports is None or usage is None or usage.time_ns <= counted_ns:
                continue
            counted_ns = usage.time_ns
            for group in usage.groups:
                if group.used < _FAR * ports.number() and group.destination not in failing:
                    continue
                again = reuses(sample.settings, group.source, group.destination)
                use = Use(counted_ns, group, ports, usage.listening, usage.left_out, again, sample)
                found.setdefault((netns, group.source, group.destination), []).append(use)
    return found


# Who was not among those that were counted had no port, where all of them are told.
def _unused(trace: Trace, key: _Key) -> list[Use]:
    netns, source, destination = key
    none, found = PortUse(source, destination, 0), []
    for sample in by_netns(trace).get(netns, ()):
        ports, usage = ports_of(sample.settings), sample.usage
        if ports and usage and usage.time_ns and len(usage.groups) < MOST_GROUPS:
            counts = usage.listening, usage.left_out
            found.append(Use(usage.time_ns, none, ports, *counts, False, sample))
    return found


def _foretold(uses: Sequence[Use]) -> bool:
    return sum(use.share() >= NEARLY for use in uses) >= _TIMES


# The attempts to each destination that is wanted, or was failed to be reached, by their ends.
def _tried(trace: Trace, failed: Bools, wanted: set[str]) -> dict[_Key, Ints]:
    to = scope_keys(trace.columns, "destination")
    distinct, first = np.unique(to, return_index=True)
    pairs = zip(distinct.tolist(), first.tolist(), strict=True)
    telling = {key for key, row in pairs if names.destination(trace.attempts[row]) in wanted}
    telling |= set(np.unique(to[failed]).tolist())
    rows = np.flatnonzero(np.isin(to, list(telling)))
    spaces = scope_keys(trace.columns, "netns", trace.processes)[rows]
    (keys,) = as_numbers((to[rows], spaces))
    (keys,) = as_numbers((keys, _sources(trace)[rows]))
    parts = [rows[part] for part in parts_by_key(keys)[1]]
    return {_key(trace, part, int(scope)): part for part, scope in _with(parts, spaces, rows)}


def _with(parts: list[Ints], spaces: Ints, rows: Ints) -> list[tuple[Ints, int]]:
    space_of = dict(zip(rows.tolist(), spaces.tolist(), strict=True))
    return [(part, space_of[int(part[0])]) for part in parts]


def _sources(trace: Trace) -> Ints:
    halves = np.ascontiguousarray(trace.columns["saddr"]).view("<u8").reshape(-1, 2)
    high, low = (np.unique(half, return_inverse=True)[1].astype(np.int64) for half in halves.T)
    (keys,) = as_numbers((high, low))
    return keys


def _key(trace: Trace, rows: Ints, netns: int) -> _Key:
    first = trace.attempts[rows[0]]
    source = names.plain_address(first["saddr"].tobytes())
    return netns, source, names.destination(first)


def _short(trace: Trace, key: _Key, rows: Ints, failed: Bools, uses: list[Use]) -> Short:
    netns, source, destination = key
    uses = uses or _unused(trace, key)
    lacking = rows[failed[rows]]
    works, works_not = _others(trace, netns, destination, lacking)
    return Short(
        trace=trace,
        netns=netns,
        source=source,
        destination=destination,
        uses=tuple(uses),
        nearly=tuple(use for use in uses if use.share() >= NEARLY),
        rows=rows,
        failed=lacking,
        works=works,
        works_not=works_not,
        enter=within(trace, netns, [int(trace.columns["pid"][rows[-1]])]),
        pids=tuple(np.unique(trace.columns["pid"][rows]).tolist()),
    )


# Which other destinations were reached after the first failure, and which were not either?
def _others(
    trace: Trace, netns: int, destination: str, lacking: Ints
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not len(lacking):
        return (), ()
    columns = trace.columns
    since = int(columns["syn_ns"][lacking[0]])
    later = (columns["syn_ns"] >= since) & (columns["saddr"] == columns["saddr"][lacking[0]])
    later &= scope_keys(columns, "netns", trace.processes) == netns
    to = scope_keys(columns, "destination")
    later &= to != to[lacking[0]]
    told = []
    for outcome in (Outcome.established, Outcome.no_port):
        rows = np.flatnonzero(later & (columns["outcome"] == outcome))
        first = np.unique(to[rows], return_index=True)[1][:_MOST_NAMED]
        told.append(tuple(names.destination(trace.attempts[row]) for row in rows[first]))
    return told[0], told[1]


def _finding(short: Short) -> Finding:
    lacking = len(short.failed) > 0
    return Finding(
        rule=RULE,
        severity="critical" if lacking else "warning",
        confidence=_confidence(short),
        subject={
            "source": short.source,
            "destination": short.destination,
            "netns": short.netns,
            "pids": [*short.pids],
        },
        summary=summary(short),
        evidence=_evidence(short),
        hypotheses=hypotheses(short),
        advice=advice(short),
    )


def _confidence(short: Short) -> float:
    peak = short.peak()
    if not len(short.failed):
        return 0.85
    at = int(short.trace.columns["syn_ns"][short.failed[0]])
    if peak is None or abs(peak.time_ns - at) > _NEAR_NS:
        return 0.75
    if peak.share() >= NEARLY:
        return 0.95
    return 0.75 if short.is_bound() else 0.6


def _evidence(short: Short) -> dict[str, object]:
    trace, failed = short.trace, short.failed
    found: dict[str, object] = {
        "attempts": len(short.rows),
        "failed": len(failed),
        "counts": len(short.uses),
        "works": [*short.works],
        "works_not": [*short.works_not],
        "grows_per_s": short.per_s(),
    }
    if len(failed):
        began = int(start_ns(trace.attempts[failed[:1]])[0])
        found["first_failure_s"] = (began - trace.start_ns) / 1e9
    if short.nearly:
        found["foretold_s"] = (short.nearly[0].time_ns - trace.start_ns) / 1e9
    peak = short.peak()
    if peak:
        group = peak.group
        found |= {
            "first_port": peak.ports.first,
            "last_port": peak.ports.last,
            "reserved": peak.ports.reserved,
            "listening": peak.listening,
            "ports": peak.number(),
            "used": group.used,
            "time_wait": group.time_wait,
            "fin_wait2": group.fin_wait2,
            "open": peak.open(),
            "taken": peak.taken(),
            "share": peak.share(),
            "frees_in_s": group.frees_in_s,
            "tw_reuse": peak.reuses,
            "left_out": peak.left_out,
            "in_range": peak.in_range(),
        }
    return found
