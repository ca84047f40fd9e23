"""The sentences of an `ephemeral-exhaustion` finding."""

from porttrace.analysis import names
from porttrace.analysis.findings.shortage import STILL_NS, Short, Use
from porttrace.analysis.model import Hypothesis
from porttrace.analysis.samples import Ports

_TIME_WAIT_S = 60  # TCP_TIMEWAIT_LEN
_WIDE, _WIDER = 50_000, "10240 65535"
_MOSTLY = 0.5
_MOST_NAMED = 3
_NO_PORT = (
    "Where a program binds a source address before it connects: have it set"
    " IP_BIND_ADDRESS_NO_PORT on the socket, so that bind(2) takes no port for all destinations at"
    " once. Price: none but a line of code (Linux 4.2)."
)


def summary(short: Short) -> str:
    """Return what is short, for whom, and what still works."""
    peak, number = short.peak(), len(short.failed)
    if not number:
        assert peak is not None
        return f"{_use(short, peak)} No connect has failed yet{_when_full(short, peak)}."
    first = f"{_who(short)} got no local port for {names.count(number, 'connect')} from"
    first += f" {short.source} to {short.destination} (EADDRNOTAVAIL)."
    return " ".join(filter(None, (first, _use(short, peak), _frees(peak), _others(short))))


def _who(short: Short) -> str:
    told = ", ".join(names.process(short.trace, pid) for pid in short.pids[:_MOST_NAMED])
    more = len(short.pids) - _MOST_NAMED
    return f"{told} and {more} more" if more > 0 else told


def _use(short: Short, use: Use | None) -> str:
    if use is None:
        return "The sockets were not counted near it, so what holds the ports is not in this trace."
    if short.is_bound():
        return (
            f"Towards {short.destination} only {use.group.used} of the {use.number()} local ports"
            f"{_from(use.ports)} were in use, but {use.in_range()} sockets to other destinations"
            " have one: what bind(2) chose before the connect is taken from every destination."
        )
    share, group = min(100, round(100 * use.share())), use.group
    what = "at least " if use.left_out else ""
    text = f"{what}{use.taken()} of the {use.number()} local ports towards {short.destination}"
    text = f"{text} ({share} %) were in use{_from(use.ports)}: {_parts(use)}"
    return f"{text[0].upper()}{text[1:]}{_kept(use)}." if group.used else f"{text}."


def _from(ports: Ports) -> str:
    return f", of {ports.first} to {ports.last}"


def _parts(use: Use) -> str:
    left = use.group.fin_wait2
    waiting = use.taken() - use.open() - left
    shown = [f"{waiting} in TIME_WAIT"] if waiting > 0 else []
    shown += [f"{left} in FIN_WAIT2"] if left else []
    if use.open():
        shown.append(names.count(use.open(), "open connection"))
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:]))) or "none"


def _kept(use: Use) -> str:
    kept = []
    if use.ports.reserved:
        kept.append(f"{use.ports.reserved} more are reserved")
    if use.listening:
        kept.append(f"{use.listening} are kept by listening sockets")
    return "".join(f"; {each}" for each in kept)


def _when_full(short: Short, use: Use) -> str:
    left, pace, still_ns = use.number() - use.taken(), short.per_s(), short.still_ns()
    if still_ns >= STILL_NS:
        return f"; it has not grown for {names.duration(still_ns)}"
    if pace <= 0 or left <= 0:
        return ""
    return f"; as it grew, the last one is gone in about {names.duration(left / pace * 1e9)}"


def _frees(use: Use | None) -> str:
    if use is None or not use.group.used:
        return ""
    if use.group.fin_wait2 > _MOSTLY * use.group.used:
        return _when_left(use)
    if use.group.frees_in_s < 0:
        return "None of them is in TIME_WAIT: a port is free when a connection is closed."
    again = names.duration(max(use.group.frees_in_s, 0.001) * 1e9)
    lasting = use.number() / _TIME_WAIT_S
    return (
        f"The next port was free {again} later: each stays in TIME_WAIT for {_TIME_WAIT_S} s after"
        f" this side closed it, so {lasting:.3g} connects a second are all that lasts."
    )


# In FIN_WAIT2 without a process; the kernel waits for the other end as long as its setting says.
def _when_left(use: Use) -> str:
    ends_s = use.group.fin_wait2_ends_in_s
    first = f", the first in {names.duration(ends_s * 1e9)}" if ends_s >= 0 else ""
    setting = (use.sample.settings or {}).get("tcp_fin_timeout", "")
    limit = f" ({setting} s)" if setting else ""
    return (
        "What is in FIN_WAIT2 was closed here, and the server has not closed it: each goes after"
        f" net.ipv4.tcp_fin_timeout{limit}{first}, or {_TIME_WAIT_S} s after the server has closed"
        " it (TIME_WAIT)."
    )


def _others(short: Short) -> str:
    if short.works:
        more = f"; {', '.join(short.works_not)} got none either" if short.works_not else ""
        return f"Other destinations still worked: {', '.join(short.works)}{more}."
    if short.works_not:
        return f"Neither did {', '.join(short.works_not)}."
    return "Another destination has a range of its own; none was tried meanwhile."


def hypotheses(short: Short) -> tuple[Hypothesis, ...]:
    """Return what else could explain it, and what the trace says to that."""
    found = []
    if len(short.failed):
        why = "the kernel had chosen the source and was in SYN_SENT: only the port was missing"
        found.append(Hypothesis("source address is not there", "refuted", why))
    peak = short.peak()
    if peak and peak.group.used:
        share = f"{peak.open()} of {peak.group.used} are open connections"
        leaks = peak.open() > _MOSTLY * peak.group.used
        found.append(
            Hypothesis("connections are never closed", "open" if leaks else "refuted", share)
        )
    if peak and peak.group.fin_wait2:
        left = f"{peak.group.fin_wait2} of {peak.group.used} were closed here and not there"
        mostly = peak.group.fin_wait2 > _MOSTLY * peak.group.used
        found.append(
            Hypothesis("the server does not close", "supported" if mostly else "open", left)
        )
    if not short.nearly and peak:
        why = (
            f"{round(100 * peak.share())} % were in use when the sockets were counted: a short"
            " burst, or a range of the socket's own (IP_LOCAL_PORT_RANGE)"
        )
        found.append(Hypothesis("range of the socket", "open", why))
        bound = f"{peak.in_range()} sockets have a port of the range, whatever their destination"
        verdict = "supported" if short.is_bound() else "refuted"
        found.append(Hypothesis("ports that bind(2) chose", verdict, bound))
    if not short.nearly:
        return tuple(found)
    times = f"counted {names.count(len(short.nearly), 'time')} at 80 % or more"
    return (*found, Hypothesis("short burst", "refuted", times))


def advice(short: Short) -> tuple[str, ...]:
    """Return what to do, each with its exact command and its price; the cure first."""
    use = short.peak()
    lines = [_NO_PORT] if short.is_bound() else []
    leaks = use is not None and use.open() > _MOSTLY * use.group.used
    if leaks:
        lines.append(
            f"Look which connections are open: {short.enter}ss -tnp dst"
            f" {short.destination}. What nobody uses any more was never closed."
        )
    if use and use.group.fin_wait2 > _MOSTLY * use.group.used:
        lines += _server(short, use)
    # All open and none over: to keep them open is what it does already.
    if not leaks or (use and use.group.time_wait + use.group.fin_wait2):
        lines.append(_pool(short, use))
    if use:
        lines += [*_wider(short, use), *_reuse(short, use)]
    lines += [] if short.is_bound() else [_NO_PORT]
    lines.append(
        "A second source address, or a second port of the server, has a whole range of its own."
        " Price: it must be configured and spread by the program."
    )
    return tuple(lines)


def _server(short: Short, use: Use) -> list[str]:
    port = short.destination.rpartition(":")[2]
    now = (use.sample.settings or {}).get("tcp_fin_timeout", "60")
    return [
        f"Let the server {short.destination} close its connections once the client has: on its host"
        f" they stand in CLOSE_WAIT, and ss -tnp state close-wait 'sport = :{port}' names the"
        " program that does not. Price: a change in the server; until then it keeps a descriptor"
        " for each.",
        f"Until then wait less for it: {_sysctl(short, 'tcp_fin_timeout=10')} (now {now}), for what"
        " is closed from then on. Price: what a server sends later than that is answered by a"
        " reset.",
    ]


def _pool(short: Short, use: Use | None) -> str:
    text = f"Keep connections to {short.destination} open and reuse them (a pool, keep-alive)"
    over = use.group.time_wait + use.group.fin_wait2 if use else 0
    if use and over:
        size = max(1, use.open())
        text += (
            f": {names.count(size, 'port')} instead of {use.group.used}, since {over} of them only"
            " waited"
        )
    return f"{text}. Price: a change in the program, and idle connections on the server."


def _wider(short: Short, use: Use) -> list[str]:
    if use.ports.last - use.ports.first + 1 >= _WIDE:
        return []
    return [
        f"Widen the range: {_sysctl(short, f'ip_local_port_range={chr(34)}{_WIDER}{chr(34)}')}."
        " Price: services that listen in the new part must be reserved first"
        " (net.ipv4.ip_local_reserved_ports=...), or a client may hold their port when they start."
    ]


def _reuse(short: Short, use: Use) -> list[str]:
    if use.reuses or use.group.time_wait <= _MOSTLY * use.group.used:
        return []
    known = use.sample.settings or {}
    now = known.get("tcp_tw_reuse", "")
    stamps = "" if known.get("tcp_timestamps", "1") != "0" else (
        " It needs TCP timestamps, which are off here (net.ipv4.tcp_timestamps=0)."
    )  # fmt: skip
    return [
        f"Let connects take ports that have been in TIME_WAIT for a second:"
        f" {_sysctl(short, 'tcp_tw_reuse=1')} (now {now})."
        " Safe where both ends use TCP timestamps and nothing between them (NAT, load balancer)"
        f" rewrites those; accepted connections are not touched.{stamps} Price: an old packet"
        " may meet a new connection where timestamps do not tell them apart."
    ]


def _sysctl(short: Short, setting: str) -> str:
    return f"{short.enter}sysctl -w net.ipv4.{setting}"
