"""The sentences of a `dead-destination` finding. A refusal is an answer: it is said as such."""

import ipaddress
from dataclasses import dataclass

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.findings.behind import Behind
from porttrace.analysis.holds import Spans
from porttrace.analysis.model import Answer, Attempts, Outcome, Trace, start_ns

_KINDS = {
    "timed_out": "timed out",
    "cancelled": "given up",
    "pending": "still open",
}
_NOWHERE = {
    "route": "No SYN was sent: this host has no route there.",
    "message": "A router, a packet filter or the host itself answered that it is unreachable.",
    "neighbour": "No SYN left: nobody on its network answered to the address.",
}


@dataclass(frozen=True)
class Dead:
    """The attempts to one destination that were refused or not answered, in order of time."""

    attempts: Attempts
    open: Spans  # when each was in SYN_SENT
    only: bool  # there was one attempt in all
    answered: int  # attempts that were established before these
    failed: int  # attempts that failed before the last of those
    unknown: int  # attempts whose end is lost

    def to(self) -> str:
        """Return the destination."""
        return names.destination(self.attempts[0])

    def pids(self) -> list[int]:
        """Return the processes that tried."""
        return [int(pid) for pid in np.unique(self.attempts["pid"])]

    def refused(self) -> int:
        """Return the number of refused attempts."""
        return int(np.count_nonzero(self.attempts["outcome"] == Outcome.refused))

    def by_outcome(self) -> dict[str, int]:
        """Return how many ended how."""
        kinds, counts = np.unique(self.attempts["outcome"], return_counts=True)
        return {Outcome(int(k)).name: int(n) for k, n in zip(kinds, counts, strict=True)}

    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """Return the address of the destination."""
        address = ipaddress.IPv6Address(self.attempts["daddr"][0].tobytes())
        return address.ipv4_mapped or address

    def loopback(self) -> bool:
        """Tell whether the destination is this very host."""
        return self.address().is_loopback

    def unreachable(self) -> str:
        """Return how all attempts were found unreachable, "" for any other end.

        "route": without any SYN; "message": by an ICMP message; "neighbour": no SYN could leave.
        """
        if not (self.attempts["outcome"] == Outcome.unreachable).all():
            return ""
        if not self.attempts["syn_ns"].any():
            return "route"
        if (self.attempts["answer"] == Answer.icmp).all():
            return "message"
        # Of a wire that was not watched it is not known whether a SYN left.
        none_left = self.attempts["watched"].all() and not self.attempts["wire_count"].any()
        return "neighbour" if none_left else ""


def summary(trace: Trace, dead: Dead, periods: tuple[float, ...], waited: Behind) -> str:
    """Return what became of the attempts, how often they are made, and who waited meanwhile.

    `periods`: seconds from one try to the next, of each thread that tries again and again.
    """
    nowhere = _NOWHERE.get(dead.unreachable(), "")
    sentences = [_fate(trace, dead), nowhere, _period(dead, periods), _waited(waited)]
    return " ".join(sentence for sentence in sentences if sentence)


def _fate(trace: Trace, dead: Dead) -> str:
    number, refused = len(dead.attempts), dead.refused()
    if dead.answered:
        return _since(trace, dead)
    if number == 1:
        return _single(trace, dead)
    if refused == number:
        return f"{dead.to()} refused all {number} attempts of {_who(trace, dead)}{_refusals(dead)}."
    whose = f"{number} attempts of {_who(trace, dead)}"
    if not refused:
        return f"{dead.to()} answered none of {whose} ({_kinds(dead)})."
    rest = number - refused
    return f"{dead.to()} refused {refused} of {whose} and did not answer {rest} ({_kinds(dead)})."


def _since(trace: Trace, dead: Dead) -> str:
    number, refused, before = len(dead.attempts), dead.refused(), dead.answered + dead.failed
    of = f"{dead.answered} of {names.count(before, 'attempt')}" if dead.failed else ""
    head = f"{dead.to()} answered {of or names.count(dead.answered, 'attempt')}"
    since_ns = max(int(start_ns(dead.attempts[:1])[0]) - trace.start_ns, 0)
    since = f"since {names.duration(since_ns)} into the trace"
    tail = f"({_who(trace, dead)}; {_kinds(dead)})"
    if refused == number:
        return f"{head}, then refused the last {number}, {since} ({_who(trace, dead)})."
    if not refused:
        return f"{head}, then none of the last {number}, {since} {tail}."
    rest = f"it refused {refused} and did not answer {number - refused}"
    return f"{head}; of the last {number}, {since}, {rest} {tail}."


def _single(trace: Trace, dead: Dead) -> str:
    spent = names.duration(int(dead.open.lengths()[0]))
    which = "its only attempt" if dead.only else "one attempt"
    kind = next(iter(dead.by_outcome()))
    if kind == "pending":
        return f"{dead.to()} has not answered {which} ({spent} so far), of {_who(trace, dead)}."
    how = _KINDS.get(kind, kind)
    return f"{dead.to()} did not answer {which} ({how} after {spent}), of {_who(trace, dead)}."


def _who(trace: Trace, dead: Dead) -> str:
    pids = dead.pids()
    return names.process(trace, pids[0]) if len(pids) == 1 else names.count(len(pids), "process")


def _kinds(dead: Dead) -> str:
    kinds = (f"{count} {_KINDS.get(kind, kind)}" for kind, count in dead.by_outcome().items())
    return f"{', '.join(kinds)}; {names.duration(int(dead.open.lengths().sum()))} in all"


# How long refusals took is worth a word only where they did not come at once.
def _refusals(dead: Dead) -> str:
    spent = int(dead.open.lengths().sum())
    return f" ({names.duration(spent)} in all)" if spent >= 1_000_000_000 else ""


def _period(dead: Dead, periods: tuple[float, ...]) -> str:
    if not periods:
        return ""
    first, last = names.duration(periods[0] * 1e9), names.duration(periods[-1] * 1e9)
    every = f"every {first}" if periods[-1] <= 1.2 * periods[0] else f"every {first} to {last}"
    if len(np.unique(dead.attempts[["pid", "tid"]])) == 1:
        return f"It is tried again {every}."
    if len(periods) == 1:
        return f"One thread tries it again {every}."
    return f"Each of {len(periods)} threads tries it again {every}."


def _waited(waited: Behind) -> str:
    if not waited.number:
        return ""
    number = f"{'At least ' * waited.at_least}{names.count(waited.number, 'other connect')}"
    longest = names.duration(waited.longest_s * 1e9)
    return f"{number} had to wait for it, up to {longest} (named under serialized-connects)."


def queue_is_full(listener: str) -> str:
    """Return where the same is told from the listener's side."""
    return f"The queue of its listener {listener} was full: accept-queue tells why, and the cure."


def advice(dead: Dead, waited: Behind, queue: str = "") -> tuple[str, ...]:
    """Return where to look, and what to do until it is mended.

    `queue` is the listener on this host whose queue was full, "" for none.
    """
    to, refused = dead.to(), dead.refused()
    lines = []
    if refused:
        where = "ss -ltn shows who listens" if dead.loopback() else "ss -ltn there shows it"
        lines.append(f"Nobody listens at {to} ({where}): start the service there or stop trying.")
    if queue:
        lines.append(f"Do what accept-queue says of {queue}: these attempts waited for it.")
    elif refused < len(dead.attempts):
        lines.append(_where_to_look(dead) or f"Find out why {to} does not answer: {_causes(dead)}.")
    if waited.number:
        lines.append(f"Until then stop the retries to {to} or shorten their connect timeout.")
    return tuple(lines)


def _where_to_look(dead: Dead) -> str:
    address, how = dead.address(), dead.unreachable()
    if how == "route":
        return (
            f"See where it would go: ip route get {address}. Add the route, or mend the address"
            " that the program was given."
        )
    if how == "neighbour":
        return (
            f"See ip neigh show {address} (FAILED: nobody answers): is that host up, is the address"
            " right, is it really on a network that this host is in (ip route get"
            f" {address})?"
        )
    if how == "message":
        return (
            f"Find who says so: tcpdump -ni any icmp or icmp6 names the sender. Then look there for"
            f" the route to {address}, or the packet filter that rejects."
        )
    return ""


def _causes(dead: Dead) -> str:
    full = "whose queue is full (ss -ltn shows it)"
    if dead.loopback():
        return f"a listener {full}, or packets dropped by a rule of this host's firewall"
    causes = ["host down", "packets dropped on the way", f"a listener there {full}"]
    # An address that answered before is no wrong one.
    causes += [] if dead.answered else ["a wrong address"]
    return f"{', '.join(causes[:-1])}, or {causes[-1]}"
