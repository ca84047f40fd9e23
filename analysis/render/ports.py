"""A port as text: who has it, what the host says of it, and what would come of a bind."""

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from porttrace.analysis.frees import or_later
from porttrace.analysis.may_bind import Verdict
from porttrace.analysis.port_check import command, process
from porttrace.analysis.port_ranges import Ranges, as_text, at_risk, reserve_command
from porttrace.analysis.render.escape import padded, printable
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.sharing import Claim
from porttrace.tracer.facts import IN_QUEUE, UNSEEN, Holder
from porttrace.tracer.words import bracketed, count, endpoint


@dataclass(frozen=True)
class PortView:
    """All that is told of one port of one protocol in one network namespace."""

    protocol: str
    port: int
    service: str  # its name in /etc/services, "" none
    netns: int
    ephemeral: tuple[int, int]
    reserved: tuple[tuple[int, int], ...]
    unprivileged_from: int
    holders: tuple[Holder, ...]
    beside: tuple[Holder, ...]  # who has it in other network namespaces
    not_seen: tuple[str, ...]  # sentences
    asked: Claim
    user: str
    bind: Verdict
    listen: Verdict | None  # None for UDP
    place: str = ""  # what that namespace is called, "" our own without a name
    within: str = ""  # what enters that network namespace, before a command; "" our own
    tried: tuple[str, int] | None = None  # call that failed ("" none) and errno
    in_the_way: tuple[bool | None, ...] = ()  # of each holder
    to_do: tuple[str, ...] = ()  # sentences

    @property
    def is_reserved(self) -> bool:
        """Whether the port is kept out of the ephemeral range."""
        return any(low <= self.port <= high for low, high in self.reserved)


def class_of(port: int) -> str:
    """Return the class of a port by RFC 6335: well-known, registered or dynamic."""
    return "well-known" if port < 1024 else "registered" if port < 49152 else "dynamic"


def called(number: int) -> str:
    """Return what an errno is called, "success" for 0."""
    return errno.errorcode.get(number, f"errno {number}") if number else "success"


def port_text(view: PortView) -> str:
    """Return what is told of a port in lines of at most 80 columns."""
    name = f" ({view.service})" if view.service else ""
    place = f"; network namespace {view.place}" if view.place else ""
    said = f"Port {view.port}/{view.protocol}{name}, {class_of(view.port)}{place}"
    lines = wrapped(printable(said), "", "  ")
    for label, sentence in _sentences(view):
        lines += wrapped(printable(sentence), f"  {label:<10}", " " * 12)
    return "\n".join(lines)


_MARKS = {True: "in the way", False: "not in the way", None: "perhaps in the way"}


def _sentences(view: PortView) -> Iterator[tuple[str, str]]:
    labels = ["held by", *[""] * len(view.holders)]
    marks = (*view.in_the_way, *[None] * len(view.holders))
    for label, holder, mark in zip(labels, view.holders, marks, strict=False):
        yield label, f"{who(holder)}; {_MARKS[mark]}"
    if not view.holders:
        yield "held by", "nobody here"
    for holder in view.beside:
        yield "elsewhere", who(holder)
    yield "range", _range(view)
    yield "bind", _verdict(view)
    if view.tried is not None:
        yield "tried", tried_sentence(view)
    for sentence in view.to_do:
        yield "to do", sentence
    for sentence in view.not_seen:
        yield "not seen", sentence


def who(holder: Holder) -> str:
    """Return a holder in one sentence: whose it is, which socket, and how it has the port."""
    parts = [f"{_process(holder)}: {_socket(holder)}", holder.why, queue(holder)]
    parts += [f"it runs: {command(holder)}"] if command(holder) else []
    if holder.kind == "client" or holder.age_s >= 0:
        parts += [f"{length(holder.age_s)} old"] if holder.age_s >= 0 else []
    if holder.frees_in_s >= 0:
        parts.append(f"free in {length(holder.frees_in_s)}{or_later(holder)}")
    if holder.reuseport:
        parts.append("SO_REUSEPORT is set")
    return "; ".join(filter(None, parts))


def _process(holder: Holder) -> str:
    if not holder.pid and IN_QUEUE in holder.why:
        return "the listener's queue"  # whose it will be is open
    user = f", user {holder.user}" if holder.user else ""
    if not holder.pid:
        return f"{'a process that cannot be seen' if UNSEEN in holder.why else 'no process'}{user}"
    return f"{process(holder)}{user}"


def _socket(holder: Holder) -> str:
    to = f" to {holder.remote}" if holder.remote else ""
    local = endpoint(holder.address, holder.port)
    return f"{holder.kind.replace('_', ' ')}, {holder.state} {local}{_families(holder)}{to}"


def _families(holder: Holder) -> str:
    # A wildcard of IPv6 takes the port of IPv4, too, unless its socket was told not to.
    if holder.address != "::" or holder.v6only is None:
        return ""
    return " (IPv6 only)" if holder.v6only else " (IPv4, too)"


def queue(holder: Holder) -> str:
    """Return in words how many connections wait for a listener, "" for none."""
    if holder.queue <= 0:
        return ""
    if holder.queue <= holder.limit:
        return (
            f"{count(holder.queue, 'connection')} of at most {holder.limit + 1} wait for accept(2)"
        )
    return (
        f"its accept queue is full: {count(holder.queue, 'connection')} wait for accept(2), one "
        f"more than its limit of {holder.limit}, and further clients get no answer"
    )


def length(seconds: float) -> str:
    """Return a length of time in words: 0.3 s, 42 s, 5 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _range(view: PortView) -> str:
    low, high = view.ephemeral
    if not low <= view.port <= high:
        return f"outside of the ephemeral range {low}-{high}: no client is put there"
    if not at_risk(view.port, view.ephemeral, view.reserved):
        return f"reserved in the ephemeral range {low}-{high}: no client is put there"
    command = reserve_command([view.port], view.reserved, view.within)
    return (
        f"inside the ephemeral range {low}-{high} and not reserved: the kernel may give it to any "
        f"client; for a fixed service: {command}"
    )


def asked_for(view: PortView) -> str:
    """Return in words which bind is meant."""
    asked = view.asked
    chosen = {"SO_REUSEADDR": asked.reuseaddr, "SO_REUSEPORT": asked.reuseport,
              "IPV6_V6ONLY": asked.v6only and ":" in asked.address}  # fmt: skip
    options = [name for name, is_set in chosen.items() if is_set]
    told = f" with {', '.join(options)}" if options else ""
    return f"{endpoint(asked.address, view.port)} as {view.user}{told}"


def _verdict(view: PortView) -> str:
    told = f"to {asked_for(view)}: {outcome(view.bind)}. {view.bind.why}"
    if view.listen and view.bind.works and not view.listen.works:
        told += f" listen(2) then: {outcome(view.listen)}. {view.listen.why}"
    return told


def outcome(verdict: Verdict) -> str:
    """Return in words what a call does."""
    failures = " or ".join(called(number) for number in sorted(verdict.errnos) if number)
    if verdict.works:
        return "works, by rule"
    return f"fails with {failures}, by rule" if verdict.works is False else f"works or {failures}"


def tried_sentence(view: PortView) -> str:
    """Return what came of the trial, and whether the rule said so."""
    assert view.tried
    call, number = view.tried
    told = f"{call} failed with {called(number)}" if number else "it worked, and was closed at once"
    verdict = view.listen if call == "listen" and view.listen else view.bind
    if number in verdict.errnos:
        return f"really: {told}"
    return f"really: {told}. The rule said otherwise: something else is in the way, or was then"


def settings_lines(
    place: str,
    ephemeral: tuple[int, int],
    reserved: tuple[tuple[int, int], ...],
    unprivileged_from: int,
    states: Mapping[str, int],
    used: str = "",
) -> list[str]:
    """Return what the kernel does with ports, each with its setting and Windows' name for it."""
    low, high = ephemeral
    kept = sum(last - first + 1 for first, last in clipped_ranges(reserved, ephemeral))
    count = high - low + 1 - kept
    known = {"ESTABLISHED": "established", "LISTEN": "listening", "BOUND": "bound and idle",
             "TIME_WAIT": "in TIME_WAIT", "udp": "of UDP"}  # fmt: skip
    told = [f"{states[each]} {word}" for each, word in known.items() if states.get(each)]
    rest = sum(states.values()) - sum(states.get(each, 0) for each in known)
    told += [f"{rest} in other states"] if rest else []
    rows = [
        ("ephemeral", f"{low}-{high}, {count} ports for clients: net.ipv4.ip_local_port_range "
         "(Windows: netsh int ipv4 show dynamicport tcp)"),
        *([("of these", used)] if used else []),
        ("reserved", f"{as_text(reserved) or 'none'}: net.ipv4.ip_local_reserved_ports "
         "(Windows: netsh int ipv4 show excludedportrange tcp)"),
        ("privileged", f"below {unprivileged_from}: net.ipv4.ip_unprivileged_port_start"),
        ("sockets", ", ".join(told) or "none"),
    ]  # fmt: skip
    lines = wrapped(printable(f"Ports of network namespace {place}"), "", "  ")
    for label, what in rows:
        lines += wrapped(what, f"  {label:<12}", " " * 14)
    return lines


def clipped_ranges(ranges: Sequence[tuple[int, int]], within: tuple[int, int]) -> Ranges:
    """Return the parts of ranges that lie in another."""
    low, high = within
    cut = [(max(first, low), min(last, high)) for first, last in ranges]
    return [(first, last) for first, last in cut if first <= last]


_WIDTHS = (10, 18, 22, 10)


def inventory_lines(holders: Sequence[Holder], risks: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield a table of sockets, the same ones of one process and address as one line."""
    yield from _row(("PORT", "ADDRESS", "PROCESS", "USER", "REMARKS"))
    rows = dict.fromkeys(map(_cells, holders, risks))
    for cells in rows:
        yield from _row(cells)
    if not rows:
        yield "nobody serves a port here"


def _cells(holder: Holder, risks: tuple[str, ...]) -> tuple[str, ...]:
    where = f", {holder.container}" if holder.container else ""
    having = f"{holder.comm} ({holder.pid}{where})" if holder.pid else "-"
    port = f"{holder.port}/{holder.protocol}"
    address = f"{bracketed(holder.address)}{_families(holder)}"
    return (port, address, having, holder.user, ", ".join(risks))


def _row(cells: Sequence[str]) -> list[str]:
    # Remarks that find no room in the last column go on below, in that column.
    start = "".join(padded(cell, width) + " " for cell, width in zip(cells, _WIDTHS, strict=False))
    lines = wrapped(printable(cells[-1]), start, " " * (sum(_WIDTHS) + len(_WIDTHS)))
    return lines or [start.rstrip()]
