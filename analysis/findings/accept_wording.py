"""The sentences of an `accept-queue` finding."""

from porttrace.analysis import names
from porttrace.analysis.findings.queueing import Queue
from porttrace.analysis.model import Hypothesis


def summary(queue: Queue) -> str:
    """Return whose queue it is, how full, what was dropped, and who waited for it."""
    if not queue.seen:
        return f"{_owner(queue)} accepts late on {queue.name()}: {_late(queue)}."
    times = names.count(len(queue.full), "time")
    text = (
        f"The accept queue of {queue.name()} ({_owner(queue)}) was full {times} when it was looked"
        f" at: up to {names.count(queue.longest, 'connection')} waited for accept(2), and its"
        f" limit is {queue.limit} (the kernel queues one more)."
    )
    return " ".join(filter(None, (text, _dropped(queue), _victims(queue), _accepted(queue))))


def _owner(queue: Queue) -> str:
    if queue.pid in queue.trace.processes:
        return names.process(queue.trace, queue.pid)
    if queue.pid:
        return f"{queue.comm} (pid {queue.pid})"
    return "its owner could not be seen"


def _dropped(queue: Queue) -> str:
    if not queue.overflows:
        return "Nothing was dropped yet."
    whose = (
        f"this and {names.count(queue.others, 'other full queue')} of the namespace"
        if queue.others
        else "it"
    )
    return (
        f"Meanwhile {whose} overflowed {names.count(queue.overflows, 'time')} (ListenOverflows):"
        " the kernel drops such a SYN, and the client sends it again after 1, 3, 7 s."
    )


def _victims(queue: Queue) -> str:
    if not queue.victims:
        return ""
    worst = queue.victims[0]
    number = len(queue.victims)
    had = "connect of this host had its SYN" if number == 1 else "connects of this host had a SYN"
    return (
        f"{number} {had} dropped there and sent again: the worst, of {worst.comm} (pid"
        f" {worst.pid}), took {names.duration(worst.wait_s * 1e9)}."
    )


def _accepted(queue: Queue) -> str:
    return f"Of what it did take, {_late(queue)}." if queue.accepted else ""


def _late(queue: Queue) -> str:
    known = queue.accepted
    assert known is not None
    return (
        f"{known.slow} of {names.count(known.number, 'connection')} waited 100 ms or more between"
        f" ESTABLISHED and accept(2), {names.duration(queue.mean_s() * 1e9)} on average,"
        f" {names.duration(known.longest_ns)} at worst"
    )


def hypotheses(queue: Queue) -> tuple[Hypothesis, ...]:
    """Return what else could explain it, and what the trace says to that."""
    if not queue.seen:
        return ()
    burst = f"full in {len(queue.full)} of {names.count(queue.seen, 'sample')}"
    found = [
        Hypothesis("short burst", "refuted" if len(queue.full) > 1 else "open", burst),
        Hypothesis(
            "SYN backlog",
            "supported" if queue.backlog_drops else "refuted",
            f"TCPReqQFullDrop grew by {queue.backlog_drops}"
            f" (tcp_max_syn_backlog {queue.settings.get('tcp_max_syn_backlog', 'not known')})",
        ),
    ]
    if queue.victims:
        why = f"the server is on this host, and it counted {queue.overflows} overflows meanwhile"
        found.append(Hypothesis("SYNs lost on the network", "refuted", why))
    if queue.others:
        why = f"{names.count(queue.others, 'other queue')} of the namespace ran full, too"
        found.append(Hypothesis("another listener", "open", why))
    return tuple(found)


def advice(queue: Queue) -> tuple[str, ...]:
    """Return what to do, each with its command and its price; the cure first."""
    who = _owner(queue) if queue.pid else f"the server on {queue.name()}"
    lines = [
        f"Have {who} accept sooner: take connections in a loop or thread of its own and hand the"
        " work on, or run more workers. Price: a change in the program, and memory for the workers."
    ]
    if queue.seen:
        lines += [_longer(queue), *_abort(queue)]
    return tuple(lines)


def _longer(queue: Queue) -> str:
    most = queue.settings.get("somaxconn", "")
    price = (
        "Price: bursts are carried, but a server that is always too slow only makes its clients"
        " wait longer."
    )
    if most.isdigit() and queue.limit >= int(most):
        return (
            f"Raise the limit: {queue.enter}sysctl -w"
            f" net.core.somaxconn={max(4096, 4 * int(most))}, and have the server listen anew with"
            f" a larger backlog. {price}"
        )
    return (
        f"Raise the limit: it is the server's own, the backlog of its listen(2) ({queue.limit};"
        f" net.core.somaxconn would allow {most or 'more'}): nginx backlog=, Apache ListenBacklog,"
        f" socket.listen(n). {price}"
    )


def _abort(queue: Queue) -> list[str]:
    if not queue.overflows or queue.settings.get("tcp_abort_on_overflow") == "1":
        return []
    return [
        f"Only where clients can try elsewhere: {queue.enter}sysctl -w"
        " net.ipv4.tcp_abort_on_overflow=1 resets a connection that finds no room instead of"
        " leaving its client waiting. Price: a short burst becomes an error."
    ]
