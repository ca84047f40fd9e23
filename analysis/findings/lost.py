"""Rule `syn-lost`: SYNs of a destination go unanswered, so that its answers come on the rungs of
the SYN ladder.

Any network loses a packet now and then. What is found here was lost far more often than that, and
the answers came right after a SYN that was sent again: a peer that is merely slow answers at any
time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from porttrace.analysis import names
from porttrace.analysis.binomial import upper_tail
from porttrace.analysis.concurrency import Bools, Ints, scope_keys
from porttrace.analysis.findings.alternatives import by_chance
from porttrace.analysis.findings.parties import NAMED, party
from porttrace.analysis.holds import ON_THE_WAY
from porttrace.analysis.ladder import of_host
from porttrace.analysis.model import Finding, Hypothesis, Outcome, Party, Trace
from porttrace.analysis.pairs import parts_by_key
from porttrace.analysis.rows import take
from porttrace.analysis.wire import wire_mark, wire_seen

RULE = "syn-lost"

MIN_LOST = 3
"""So many attempts to one destination: one or two lost SYNs happen everywhere."""
ORDINARY_LOSS = 0.005
"""Of 200 packets a tolerable path loses one; a finding must be unlikely there."""
CHANCE = 1e-3
MIN_ON_RUNG = 0.8
"""So much of what was sent again must be answered on a rung, or the peer is slow instead."""

SLOW = 0.01
"""A peer that answers at any time would meet the rungs as well with at most this chance."""
_USUAL_NS = 200_000_000  # a peer that takes longer answers between the rungs and on them alike

_ANSWERED = (Outcome.established, Outcome.refused)
_SOON_NS = 50_000_000  # after a rung, beside the usual time of an answer
_LATE = 0.04  # a timer of the kernel fires so much late, at most (see ladder.is_near)
_ALIKE = 0.8  # share of the lost ones that one place must explain


@dataclass(frozen=True)
class Lost:
    """What became of the SYNs to one destination; times in ns."""

    rows: Ints  # of the trace's attempts: all that were answered
    resent: Ints  # of these: those answered after the SYN was sent again
    on_rung: int  # of those: answered right after a rung of the ladder
    by_luck: float  # chance that answers at any time would be so many on rungs
    again: int  # SYNs sent again in all
    usual_ns: int  # median time to an answer where nothing was sent again
    worst_ns: int
    p_value: float  # of so many at ordinary loss, corrected for the destinations

    def share(self) -> float:
        """Return the share of the answered attempts whose first SYN went unanswered."""
        return len(self.resent) / len(self.rows)

    def loss(self) -> float:
        """Return the share of all SYNs that went unanswered."""
        return self.again / (self.again + len(self.rows))


def syn_lost(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find destinations that answer only after the SYN was sent again: one finding each.

    Nothing is found where another finding explains it already: a throttle that drops or denies.
    """
    attempts = trace.columns
    answered = np.isin(attempts["outcome"], _ANSWERED) & (attempts["syn_ns"] > 0)
    answered &= attempts["end_ns"] > 0
    rows = np.flatnonzero(answered)
    again = attempts["retransmits"][rows] > 0
    keys = scope_keys(attempts, "destination")[rows]
    suspicious = np.isin(keys, np.unique(keys[again]))
    rows, keys = rows[suspicious], keys[suspicious]
    parts = parts_by_key(keys)[1]
    cases = [_lost(trace, rows[part], len(parts)) for part in parts]
    known = (f for f in found if f.mechanism in ("drop", "deny") or f.place in ON_THE_WAY)
    told = {to for finding in known for to in _told(finding)}
    return [
        _finding(trace, lost, found)
        for lost in cases
        if _enough(lost) and names.destination(trace.attempts[lost.rows[0]]) not in told
    ]


def _told(finding: Finding) -> set[str]:
    return {party.destination for party in (*finding.victims, *finding.blockers)}


def _lost(trace: Trace, rows: Ints, destinations: int) -> Lost:
    mine = take(trace.attempts, rows)
    took = mine["end_ns"].astype(np.int64) - mine["syn_ns"].astype(np.int64)
    again = mine["retransmits"].astype(np.int64)
    resent = again > 0
    usual = int(np.median(took[~resent])) if not resent.all() else 0
    on_rung, chances = _on_rung(trace, took[resent], again[resent], usual)
    lost = int(np.count_nonzero(resent))
    chance = upper_tail(np.full(len(rows), ORDINARY_LOSS), lost) * destinations
    return Lost(
        rows=rows,
        resent=rows[resent],
        on_rung=int(np.count_nonzero(on_rung)),
        by_luck=upper_tail(chances, int(np.count_nonzero(on_rung))),
        again=int(again.sum()),
        usual_ns=usual,
        worst_ns=int(took[resent].max()),
        p_value=min(1.0, chance),
    )


# An answer belongs to the SYN sent last if it comes as soon after it as answers usually come; how
# likely it is that any answer does is the share of the time between two rungs that counts so.
# A lost event makes the count of SYNs too small: any rung at or above it will do.
def _on_rung(
    trace: Trace, took: Ints, again: Ints, usual: int
) -> tuple[Bools, npt.NDArray[np.float64]]:
    ladder = of_host(trace.host.sysctls)
    rungs = np.array(ladder.rungs_s) * 1e9
    since = took[:, None] - rungs[None, :]
    early = max(0, usual - _SOON_NS)
    late = _SOON_NS + 1.5 * usual + _LATE * rungs
    counted = np.arange(1, len(rungs) + 1)[None, :] >= again[:, None]
    on_rung = np.asarray(((since >= early) & (since <= late) & counted).any(axis=1))
    to_next = np.diff(np.append(rungs, ladder.give_up_s * 1e9))
    share = np.minimum(1.0, (late - early) / to_next)
    return on_rung, share[np.minimum(again, len(rungs)) - 1]


def _enough(lost: Lost) -> bool:
    number = len(lost.resent)
    return (
        number >= MIN_LOST
        and lost.p_value <= CHANCE
        and lost.on_rung >= MIN_ON_RUNG * number
        and lost.by_luck <= SLOW
        # Who never answers a first SYN at once may have any reason: that is no loss on the way.
        and 0 < lost.usual_ns < _USUAL_NS
    )


# Without the wire nothing tells whether a SYN, or its answer, was lost here or far away.
def _place(trace: Trace, lost: Lost) -> str:
    if not wire_seen(trace):
        return "network"
    mine = take(trace.attempts, lost.resent)
    syn, end = mine["syn_ns"].astype(np.int64), mine["end_ns"].astype(np.int64)
    wire, answer = wire_mark(mine, "wire_ns"), wire_mark(mine, "answer_ns")
    late = 500_000_000  # half the first rung
    # All of these were answered, so all left: those not seen on the wire were not watched there.
    if not (wire > 0).all():
        return "network"
    held_back = wire - syn > late
    not_taken = ~held_back & (answer > 0) & (end - answer > late)
    for place, which in (("egress", held_back), ("ingress", not_taken)):
        if float(np.mean(which)) >= _ALIKE:
            return place
    return "network"


def _finding(trace: Trace, lost: Lost, found: Sequence[Finding]) -> Finding:
    place, first = _place(trace, lost), trace.attempts[lost.rows[0]]
    to, pids = names.destination(first), np.unique(take(trace.attempts, lost.resent)["pid"])
    return Finding(
        rule=RULE,
        severity="warning",
        confidence=_confidence(trace, lost),
        subject={"destination": to, "pids": [int(pid) for pid in pids]},
        summary=_summary(trace, lost, to, place),
        place=place,
        evidence=_evidence(trace, lost),
        hypotheses=_hypotheses(trace, lost, place),
        victims=_victims(trace, lost),
        advice=_no_room(place, {int(pid) for pid in pids}, found)
        or _advice(to, place, wire_seen(trace), _refused(trace, lost)),
    )


def _confidence(trace: Trace, lost: Lost) -> float:
    sure = 0.7 if len(lost.resent) < 5 else 0.85 if len(lost.resent) < 10 else 0.95
    if trace.losses or not trace.columns["complete"][lost.rows].all():
        sure = min(sure, 0.75)
    return sure


def _victims(trace: Trace, lost: Lost) -> tuple[Party, ...]:
    mine = take(trace.attempts, lost.resent)
    waits = mine["end_ns"].astype(np.int64) - mine["syn_ns"].astype(np.int64)
    order = np.lexsort((mine["attempt_id"], -waits))[:NAMED]
    return tuple(party(trace, int(lost.resent[i]), int(waits[i])) for i in order)


_WHERE = {
    "network": "lost beyond this host's sockets",
    "egress": "stopped on this host, before they reached the wire (egress)",
    "ingress": "answered, but the answer did not reach the socket (ingress)",
}


def _summary(trace: Trace, lost: Lost, to: str, place: str) -> str:
    where = _WHERE[place] if wire_seen(trace) or place != "network" else "lost somewhere on the way"
    return (
        f"{to} answered {len(lost.resent)} of {names.count(len(lost.rows), 'attempt')} only"
        f" after the SYN was sent again, up to {names.duration(lost.worst_ns)} late"
        f" (usually it takes {names.duration(lost.usual_ns)}): {names.count(lost.again, 'SYN')}"
        f" or their answers were {where}."
    )


def _evidence(trace: Trace, lost: Lost) -> dict[str, object]:
    spread = take(trace.attempts, lost.resent)["syn_ns"].astype(np.int64)
    return {
        "answered": len(lost.rows),
        "resent": len(lost.resent),
        "share": lost.share(),
        "syns_lost": lost.again,
        "syn_loss": lost.loss(),
        "on_rung": lost.on_rung,
        "usual_s": lost.usual_ns / 1e9,
        "worst_s": lost.worst_ns / 1e9,
        "p_value": lost.p_value,
        "ladder_s": list(of_host(trace.host.sysctls).rungs_s),
        "wire": wire_seen(trace),
        "lasted_s": int(np.ptp(spread)) / 1e9,
    }


def _hypotheses(trace: Trace, lost: Lost, place: str) -> tuple[Hypothesis, ...]:
    chance = (
        f"on a path that loses 1 packet in {1 / ORDINARY_LOSS:.0f} so many lost ones"
        f" {by_chance(lost.p_value).replace('happens', 'happen')}"
    )
    slow = f"{lost.on_rung} of {len(lost.resent)} answers came right after a SYN was sent again"
    queue = "a listener whose queue is full drops SYNs, too: ss -ltn on that host shows it"
    no_queue = "the SYNs never left this host" if place == "egress" else "nobody listens there"
    shut = Hypothesis("full accept queue", "refuted", no_queue)
    return (
        Hypothesis("chance loss", "refuted", chance),
        Hypothesis("slow server", "refuted", slow),
        shut
        if place == "egress" or _refused(trace, lost)
        else Hypothesis("full accept queue", "open", queue),
    )


def _refused(trace: Trace, lost: Lost) -> bool:
    return bool((trace.columns["outcome"][lost.rows] == Outcome.refused).all())


# Dropped on this host by the table of tracked connections: that finding has the cure.
def _no_room(place: str, pids: set[int], found: Sequence[Finding]) -> tuple[str, ...]:
    full = any(
        pids & set(each.pids()) and (each.evidence["drop"] or each.evidence["early_drop"])
        for each in found
        if each.rule == "conntrack-pressure"
    )
    if place != "egress" or not full:
        return ()
    return (
        "See conntrack-pressure: packets that found no room in the table of tracked connections"
        " were dropped here, so make room there first.",
    )


def _advice(to: str, place: str, wire: bool, refused: bool) -> tuple[str, ...]:
    if place == "egress":
        return (
            f"Look for a rule of this host that drops SYNs to {to} (nft list ruleset, tc -s qdisc):"
            " they never reached the wire.",
        )
    if place == "ingress":
        return (
            f"Look for a rule of this host that drops what {to} answers (nft list ruleset): its"
            " answers arrived, and the sockets never saw them.",
        )
    way = "loss on the way (mtr), or a limit in a firewall between"
    queue = (
        f"On the host of {to} look at 'ss -ltn' (a full queue) and 'nstat -az TcpExtListenDrops';"
        f" if both are quiet, look for {way}."
    )
    lines = [f"Look for {way}, here or at {to}." if refused else queue]
    if not wire:
        lines.append("To know on which side of this host they are lost, trace with the wire probe.")
    return tuple(lines)
