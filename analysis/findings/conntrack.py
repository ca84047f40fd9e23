"""Rule `conntrack-pressure`: the table of tracked connections fills, or packets are dropped for it.

A network namespace with a stateful packet filter, or with NAT, keeps an entry for each connection,
long after its end. Where there is no room for another one, its first packet is dropped: a SYN that
nobody answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from porttrace.analysis import names
from porttrace.analysis.model import Finding, Hypothesis, Sample, Trace
from porttrace.analysis.place import within
from porttrace.analysis.samples import by_netns

RULE = "conntrack-pressure"

NEARLY = 0.8
_TIMES = 2  # samples that are nearly full: one may be a burst
_BYTES = 320  # of an entry, nf_conntrack of 64 bits with its extensions, about


@dataclass(frozen=True)
class _Pressure:
    trace: Trace
    netns: int
    samples: tuple[Sample, ...]  # those that tell of a table
    peak: Sample
    nearly: int  # samples that were nearly full
    grown: dict[str, int]  # drop, early_drop, insert_failed
    per_s: float

    def count(self) -> int:
        """Return the most entries that were seen at once."""
        return _count(self.peak)

    def most(self) -> int:
        """Return how many entries there was room for then; at least 1, to be divided by."""
        return max(1, (self.peak.conntrack or {}).get("max", 0))

    def dropped(self) -> int:
        """Return how often an entry found no room, or had another one thrown out, in the trace."""
        return self.grown["drop"] + self.grown["early_drop"]


def conntrack_pressure(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find network namespaces whose connection tracking is nearly full, or drops packets."""
    cases = [_pressure(trace, netns, samples) for netns, samples in by_netns(trace).items()]
    return [_finding(case) for case in cases if case and _presses(case)]


def _pressure(trace: Trace, netns: int, samples: list[Sample]) -> _Pressure | None:
    known = tuple(sample for sample in samples if _share(sample) >= 0)
    if not known:
        return None
    first, last = known[0].conntrack or {}, known[-1].conntrack or {}
    names_ = ("drop", "early_drop", "insert_failed")
    passed_s = (known[-1].time_ns - known[0].time_ns) / 1e9
    grew = _count(known[-1]) - _count(known[0])
    return _Pressure(
        trace,
        netns,
        known,
        max(known, key=_share),
        sum(_share(sample) >= NEARLY for sample in known),
        {name: max(0, last.get(name, 0) - first.get(name, 0)) for name in names_},
        max(0.0, grew / passed_s) if passed_s > 0 else 0.0,
    )


def _share(sample: Sample) -> float:
    table = sample.conntrack or {}
    return table.get("count", 0) / table["max"] if table.get("max") else -1.0


def _count(sample: Sample) -> int:
    return (sample.conntrack or {}).get("count", 0)


# Entries that could not be inserted are no sign by themselves: two packets of one flow may race.
def _presses(case: _Pressure) -> bool:
    return case.nearly >= _TIMES or (case.dropped() > 0 and case.nearly > 0)


def _finding(case: _Pressure) -> Finding:
    return Finding(
        rule=RULE,
        severity="critical" if case.dropped() else "warning",
        confidence=0.95 if case.dropped() else 0.85,
        subject={"netns": case.netns, "pids": _pids(case)},
        summary=_summary(case),
        evidence={
            "count": case.count(),
            "max": case.most(),
            "share": case.count() / case.most(),
            "samples_nearly": case.nearly,
            "grows_per_s": case.per_s,
            **case.grown,
        },
        hypotheses=_hypotheses(case),
        advice=_advice(case),
    )


def _pids(case: _Pressure) -> list[int]:
    known = case.trace.processes.values()
    return sorted(each.pid for each in known if each.netns == case.netns)


def _summary(case: _Pressure) -> str:
    share = round(100 * case.count() / case.most())
    text = (
        f"The connection tracking of network namespace {case.netns} had {case.count()} of"
        f" {case.most()} entries ({share} %)."
    )
    if case.dropped():
        return (
            f"{text} {names.count(case.dropped(), 'packet')} found no room or had another entry"
            " thrown out for it meanwhile: new connections wait, since their SYN is dropped and"
            " sent again, while open ones go on."
        )
    left = case.most() - case.count()
    when = names.duration(left / case.per_s * 1e9) if case.per_s > 0 and left > 0 else ""
    soon = f"; as it grew, it is full in about {when}" if when else ""
    return f"{text} Nothing was dropped yet{soon}. When it is full, SYNs are dropped."


def _hypotheses(case: _Pressure) -> tuple[Hypothesis, ...]:
    times = f"{names.count(case.nearly, 'sample')} of {len(case.samples)} at 80 % or more"
    verdict = "refuted" if case.nearly >= _TIMES else "open"
    return (Hypothesis("short burst", verdict, times),)


def _advice(case: _Pressure) -> tuple[str, ...]:
    wider = max(2 * case.most(), 65_536)
    megabytes = max(1, round((wider - case.most()) * _BYTES / 1e6))
    return (
        f"Make room: sysctl -w net.netfilter.nf_conntrack_max={wider} on the host (most kernels"
        f" have one limit for all namespaces). Price: up to {megabytes} MB of kernel memory, and"
        " slower look-ups unless /sys/module/nf_conntrack/parameters/hashsize grows with it.",
        f"See what fills it: {within(case.trace, case.netns)}conntrack -L | awk '{{print $4}}' |"
        " sort | uniq -c. Price: none.",
        "Keep less: net.netfilter.nf_conntrack_tcp_timeout_time_wait (120 s) and"
        " nf_conntrack_tcp_timeout_established (5 days) say how long an entry stays. Price: with"
        " too short a time, idle connections are cut where NAT or a stateful filter needs them.",
        "Do not track what needs no tracking: a rule with notrack in the raw table for busy ports."
        " Price: no NAT and no stateful rules for these.",
    )
