"""Why a bind(2) or listen(2) failed, and what to do about it, in sentences with exact commands.

`explain` looks at one call; the rule `bind-conflict` and the column `advice` both rest on it.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address

import numpy as np

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_names import UDP
from porttrace.analysis.model import BindCall, BindOption, Holder, Looked, Trace
from porttrace.analysis.sharing import Claim, why

_STATES = {"listener": "listening", "bound": "bound", "time_wait": "time_wait"}
_QUIC = 443
_NEVER = 1 << 62


@dataclass(frozen=True)
class Reason:
    """Why a call failed. `kind` is a holder's kind, or what else stood in the way."""

    kind: str
    why: str  # sentences
    advice: tuple[str, ...] = ()
    holder: Holder | None = None  # the one that `why` is about
    sure: float = 0.9


@dataclass(frozen=True)
class Failed:
    """One call that failed, with all that is known of it."""

    row: np.void
    holders: tuple[Holder, ...]
    looked: Looked | None
    uid: int
    exe: str = ""

    @property
    def protocol(self) -> str:
        """Either tcp or udp."""
        return "udp" if self.row["protocol"] == UDP else "tcp"

    @property
    def port(self) -> int:
        """The port that was asked for, 0: any."""
        return int(self.row["port_asked"])

    @property
    def address(self) -> str:
        """The address that was asked for."""
        return bind_names.address(self.row)

    def fact(self, name: str, unknown: int = -1) -> int:
        """Return a number that was looked up."""
        value = self.looked.facts.get(name, unknown) if self.looked else unknown
        return value if isinstance(value, int) else unknown

    def text(self, name: str) -> str:
        """Return a text that was looked up, "" for none."""
        value = self.looked.facts.get(name, "") if self.looked else ""
        return value if isinstance(value, str) else ""


class History:
    """What a trace itself saw of ports that were bound and listened on, ready to be asked often."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        binds = trace.binds
        good = binds[(binds["errno"] == 0) & (binds["port_got"] > 0)]
        self._bound: dict[tuple[int, int], list[np.void]] = {}
        self._listened: dict[tuple[int, int], int] = {}  # pid and port to since when, ns
        for row in good[good["call"] == BindCall.bind]:
            key = int(row["protocol"]), int(row["port_got"])
            self._bound.setdefault(key, []).append(row)
        for row in good[good["call"] == BindCall.listen]:
            self._listened.setdefault((int(row["pid"]), int(row["port_got"])), int(row["time_ns"]))

    def bound_before(self, row: np.void) -> np.void | None:
        """Return the latest bind of the port that `row` wants, None where there is none.

        Of another socket, and of a process that had not ended by then.
        """
        exits = self.trace.exits
        for each in reversed(self._bound.get((int(row["protocol"]), int(row["port_asked"])), [])):
            gone = exits.get(int(each["pid"]), _NEVER) < row["time_ns"]
            same = (each["pid"], each["fd"]) == (row["pid"], row["fd"])
            if each["time_ns"] < row["call_ns"] and not gone and not same:
                return each
        return None

    def listened_before(self, pid: int, port: int, time_ns: int) -> bool:
        """Return whether a process was seen to listen on a port before `time_ns`."""
        return self._listened.get((pid, port), _NEVER) < time_ns


def failed(history: History, row: np.void) -> Failed:
    """Return a failed call with what is known of it."""
    trace = history.trace
    found = bind_names.looked(trace, row)
    known = trace.processes.get(int(row["pid"]))
    holders = holders_of(history, row, found)
    return Failed(row, holders, found, int(row["uid"]), known.exe if known else "")


def holders_of(history: History, row: np.void, found: Looked | None) -> tuple[Holder, ...]:
    """Return who held the port: as it was looked up, or else as the trace itself saw it bound."""
    seen = found.holders if found else ()
    if not row["errno"]:
        return tuple(e for e in seen if e.pid not in (0, int(row["pid"])))
    if row["call"] == BindCall.listen and len(seen) > 1:
        # the socket that wants to listen is bound there, too
        others = [e for e in seen if (e.kind, e.pid) != ("bound", int(row["pid"]))]
        seen = tuple(others) or seen
    seen = tuple(_as_the_trace_knows(history, row, each) for each in seen)
    if any(each.kind not in ("unknown", "namespace") for each in seen):
        return seen
    return _from_history(history, row) or seen


def _as_the_trace_knows(history: History, row: np.void, each: Holder) -> Holder:
    # The kernel does not tell who called whom: on a port that its process listened on, others did.
    if each.kind != "client":
        return each
    if history.listened_before(each.pid, each.port, int(row["time_ns"])):
        return replace(each, kind="accepted", why="accepted by a listener that is closed")
    return each


def _from_history(history: History, row: np.void) -> tuple[Holder, ...]:
    # Kernels before 6.8 do not list sockets that are bound and do nothing.
    if row["errno"] != errno.EADDRINUSE or not row["port_asked"]:
        return ()
    each = history.bound_before(row)
    if each is None:
        return ()
    holder = _bound_before(history.trace, each, row)
    if history.listened_before(holder.pid, holder.port, int(row["time_ns"])):
        holder = replace(holder, kind="listener")
    return (holder,)


def _bound_before(trace: Trace, each: np.void, row: np.void) -> Holder:
    known = trace.processes.get(int(each["pid"]))
    return Holder(
        "bound" if bind_names.protocol(each) == "tcp" else "udp",
        bind_names.protocol(each),
        bind_names.address(each),
        int(each["port_got"]),
        pid=int(each["pid"]),
        comm=names.comm(each),
        uid=int(each["uid"]),
        user=known.user if known else "",
        container=known.container if known else "",
        netns=known.netns if known else 0,
        age_s=(int(row["time_ns"]) - int(each["time_ns"])) / 1e9,
        reuseport=bind_names.option(each, BindOption.reuseport),
        v6only=bind_names.option(each, BindOption.v6only),
        why="this trace saw it being bound",
    )


def explain(call: Failed) -> Reason:
    """Return why a call failed and what to do about it."""
    number = int(call.row["errno"])
    return _OF_ERRNO.get(number, _other)(call)


# -- EADDRINUSE --------------------------------------------------------------------


def _in_use(call: Failed) -> Reason:
    if not call.port:
        return _no_free_port(call)
    holder = call.holders[0] if call.holders else None
    if holder is None:
        return Reason("unknown", _capital(bind_names.not_shown(call.row, call.looked)) + ".",
                      _look_again(call), sure=0.7)  # fmt: skip
    said, advice = _OF_HOLDER.get(holder.kind, _nobody)(call, holder)
    more = len(call.holders) - 1
    others = (
        f" {names.count(more, 'more socket')} on the port stood in the way as well." if more else ""
    )
    sure = 0.7 if holder.kind in ("unknown", "namespace") else 0.95
    return Reason(holder.kind, said + others, advice, holder, sure)


def _no_free_port(call: Failed) -> Reason:
    first, last = call.fact("range_first"), call.fact("range_last")
    where = f" ({first}-{last})" if first > 0 else ""
    return Reason(
        "no-free-port",
        f"It asked for any port, and every one of net.ipv4.ip_local_port_range{where} was taken "
        "for this address.",
        (
            "Widen the range: sysctl -w net.ipv4.ip_local_port_range='10240 65535' (servers with "
            "fixed ports inside it must be reserved: net.ipv4.ip_local_reserved_ports).",
            "See who has them: porttrace ports, or ss -Htan | wc -l.",
        ),
    )


def _listener(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = f"{_capital(bind_names.holder(holder))}.{_and(_collides(call, holder))}"
    mine = holder.pid == int(call.row["pid"])
    if _is_other_family(call, holder):
        return f"{said} {_dual(call, holder)}", (*_dual_advice(call, holder), *_stop(holder))
    if mine:
        return f"{said} It has the port itself already: it binds it twice.", (
            "Look at its configuration: the same address stands there twice, or a wildcard "
            "(0.0.0.0, [::]) beside an address that it covers. Take one of them out.",
        )
    if holder.reuseport and bind_names.option(call.row, BindOption.reuseport):
        return said, (
            f"Run both as one user ({holder.user or holder.uid}): SO_REUSEPORT shares a port "
            "within one user only, which keeps others from taking a part of its connections.",
            *_stop(holder),
        )
    if names.comm(call.row) == holder.comm and call.uid == holder.uid:
        return f"{said} It is the same program of the same user: an instance runs already.", (
            f"Keep the one that runs, or stop it first: kill {holder.pid} (its clients are cut "
            "off); a service manager that restarts it must wait for its end.",
        )
    return said, (*_stop(holder), _another_port(call))


def _client(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    first, last = call.fact("range_first"), call.fact("range_last")
    inside = first <= call.port <= last
    said = f"{_capital(bind_names.holder(holder))}: an outgoing connection has the port."
    if inside:
        said += (
            f" Port {call.port} lies inside net.ipv4.ip_local_port_range ({first}-{last}), from "
            "which the kernel takes the local ports of clients, so any connect may get it while no "
            "server has it."
        )
    else:
        said += " Its program had bound it to this port before it connected."
    return said, (*(_reserve(call, holder) if inside else ()), *_end_connection(call, holder))


def _reserve(call: Failed, holder: Holder) -> tuple[str, ...]:
    reserved = call.text("reserved")
    ports = f"{reserved},{call.port}" if reserved else str(call.port)
    return (
        f"For good, keep clients off it: sysctl -w net.ipv4.ip_local_reserved_ports={ports} and "
        f"the same line (net.ipv4.ip_local_reserved_ports = {ports}) in "
        "/etc/sysctl.d/90-reserved-ports.conf. It costs clients one port of "
        f"{call.fact('range_last') - call.fact('range_first') + 1}; who has the port now keeps it, "
        "and each network namespace (container) has a list of its own.",
    )


def _end_connection(call: Failed, holder: Holder) -> tuple[str, ...]:
    there, _, dport = holder.remote.rpartition(":")
    end = (
        f"Now: ss -K state connected 'sport = {call.port} and dst {there} and dport = {dport}' "
        "ends this connection (its program sees an error and may connect anew)"
        if dport
        else f"Now: ss -K 'sport = {call.port}' ends it"
    )
    restart = f"; so does a restart of {bind_names.owner(holder)}" if holder.pid else ""
    return (f"{end}{restart}. Then start the server again.",)


def _accepted(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = (
        f"{_capital(bind_names.holder(holder))}: a connection that a server on this port accepted "
        f"outlived it.{_and(_collides(call, holder))}"
    )
    return said, (*_reuseaddr(call), *_stop(holder))


def _bound(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = f"{_capital(bind_names.holder(holder))}.{_and(_collides(call, holder))}"
    if _is_other_family(call, holder):
        return f"{said} {_dual(call, holder)}", (*_dual_advice(call, holder), *_stop(holder))
    return said, (*_stop(holder), _another_port(call))


def _time_wait(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    left = f"{holder.frees_in_s:.0f} s" if holder.frees_in_s >= 0 else "at most 60 s"
    said = (
        f"A closed connection to {holder.remote or 'somebody'} keeps the port in TIME_WAIT for "
        f"another {left}: the kernel waits there for packets that come late."
    )
    wait = f"Now: wait {left} and start it again; nothing else frees the port sooner."
    return said, (*_reuseaddr(call), wait)


def _closing(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    stays = holder.state == "CLOSE_WAIT"
    said = f"{_capital(bind_names.holder(holder))}: {holder.why or 'it is not over yet'}."
    if stays and holder.pid:
        return said, (
            f"It stays until {bind_names.owner(holder)} closes it (it leaks the descriptor): "
            f"kill {holder.pid}, or mend that.",
            *_reuseaddr(call),
        )
    return said, (*_reuseaddr(call), *_end_connection(call, holder))


def _udp(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = f"{_capital(bind_names.holder(holder))}.{_and(_collides(call, holder))}"
    advice = (*_stop(holder), _another_port(call))
    if _is_other_family(call, holder):
        said, advice = f"{said} {_dual(call, holder)}", (*_dual_advice(call, holder), *advice)
    if call.port == _QUIC:
        said += " 443/udp is what HTTP/3 (QUIC) is served on; it is another port than 443/tcp."
        advice = (
            *advice,
            "Or let one of the two serve HTTP/3 and switch it off in the other (nginx: no 'listen "
            "443 quic', Caddy: 'protocols h1 h2'); its clients fall back to HTTP/2 over TCP.",
        )
    return said, advice


def _nobody(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    # descriptor, kernel, namespace, unknown: the look-up's own sentence says it best.
    shown = bind_names.holder(holder)
    told = holder.why if holder.why and holder.why not in shown else ""
    said = f"{_capital(shown)}{f': {told}' if told else ''}."
    return said, (*_stop(holder), *_look_again(call))


_OF_HOLDER: dict[str, Callable[[Failed, Holder], tuple[str, tuple[str, ...]]]] = {
    "listener": _listener,
    "client": _client,
    "accepted": _accepted,
    "bound": _bound,
    "time_wait": _time_wait,
    "closing": _closing,
    "udp": _udp,
}


def _stop(holder: Holder) -> tuple[str, ...]:
    if not holder.pid:
        return ()
    inside = f" (in container {holder.container})" if holder.container else ""
    return (
        f"To free the port stop {holder.comm or 'it'}{inside}: kill {holder.pid}, or its service "
        "by 'systemctl stop' (systemctl status "
        f"{holder.pid} names it); whoever uses it is cut off.",
    )


def _another_port(call: Failed) -> str:
    free = "porttrace port N tells whether a port is free and for whom"
    return f"Or give one of the two another port or an address of its own; {free}."


def _look_again(call: Failed) -> tuple[str, ...]:
    return (f"Ask while it fails: porttrace port {call.port}/{call.protocol}.",)


def _reuseaddr(call: Failed) -> tuple[str, ...]:
    if bind_names.option(call.row, BindOption.reuseaddr):
        return ()
    return (
        "For good: let the server set SO_REUSEADDR before bind (nearly every server does; in "
        "Python allow_reuse_address, in Go it is set). It costs nothing: a running listener still "
        "keeps the port. The closed socket must have had it set, too.",
    )


def _collides(call: Failed, holder: Holder) -> str:
    first = Claim(
        protocol=holder.protocol,
        address=holder.address or "0.0.0.0",
        port=holder.port,
        v6only=holder.v6only,
        reuseport=holder.reuseport,
        reuseaddr=None,
        uid=holder.uid,
        state=_STATES.get(holder.kind, "connected"),
    )
    second = claim_of(call)
    shares = (holder.reuseport, second.reuseaddr, second.reuseport)
    if call.row["call"] == BindCall.listen:
        return _ONE_LISTENS
    if not any(shares):
        return ""  # that two cannot have one port needs no words
    try:
        return why(first, second)
    except ValueError:
        return ""


def claim_of(call: Failed) -> Claim:
    """Return what the call asked for, in the words of `sharing`."""
    option = bind_names.option
    return Claim(
        protocol=call.protocol,
        address=call.address or "0.0.0.0",
        port=call.port,
        v6only=option(call.row, BindOption.v6only),
        reuseaddr=option(call.row, BindOption.reuseaddr),
        reuseport=option(call.row, BindOption.reuseport),
        uid=call.uid,
    )


_ONE_LISTENS = (
    "SO_REUSEADDR on both lets two sockets be bound to one port, but only one of them listen."
)


def _is_other_family(call: Failed, holder: Holder) -> bool:
    return bool(holder.address) and (":" in holder.address) != (":" in call.address)


def _dual(call: Failed, holder: Holder) -> str:
    wide = holder.address if ":" in holder.address else call.address
    return (
        f"A socket of IPv6 on [{wide}] takes the same port of IPv4, too, unless it is for IPv6 "
        "only."
    )


def _dual_advice(call: Failed, holder: Holder) -> tuple[str, ...]:
    whose = "the first" if ":" in holder.address else "this program"
    return (
        f"Let {whose} set IPV6_V6ONLY before bind (nginx: 'listen [::]:{call.port} ipv6only=on'): "
        "then each family has a socket of its own. For all programs that do not choose: sysctl -w "
        "net.ipv6.bindv6only=1; those that count on one socket for both then lose IPv4. Or bind "
        "[::] alone, which serves both.",
    )


# -- the others --------------------------------------------------------------------


def _denied(call: Failed) -> Reason:
    start = call.fact("unprivileged_from", 1024)
    if 0 < call.port < start and call.fact("may_bind_low") != 1:
        known = call.looked and "unprivileged_from" in call.looked.facts
        return Reason(
            "privileged", _privileged(call, start), _low_port(call), sure=0.95 if known else 0.8
        )
    if 0 < call.port < start:
        return Reason(
            "privileged",
            f"Ports below {start} (net.ipv4.ip_unprivileged_port_start) need "
            "CAP_NET_BIND_SERVICE in the user namespace that owns the network namespace. It has "
            "the capability, so it has it in another user namespace (a rootless container), or a "
            "security module refuses it.",
            (_sysctl_low(call), _ask_modules(call)),
            sure=0.75,
        )
    return Reason(
        "refused",
        f"Port {call.port} is none that needs a privilege (those are below {start}), so no rule of "
        "TCP/IP said no: a security module (SELinux, AppArmor, Landlock), or a BPF program on the "
        "control group's bind hook did.",
        (_ask_modules(call),),
        sure=0.8,
    )


def _privileged(call: Failed, start: int) -> str:
    return (
        f"Ports below {start} (net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE, "
        f"which it, as user {call.uid}, has not."
    )


def _low_port(call: Failed) -> tuple[str, ...]:
    exe = call.text("exe") or call.exe or "PATH"
    return (
        "As a service: AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit gives it to this "
        "service alone.",
        f"Or setcap 'cap_net_bind_service=+ep' {exe}: whoever may run that file may then take "
        "low ports (of an interpreter: with any script), LD_PRELOAD is ignored for it, and an "
        "update of the file takes it away.",
        _sysctl_low(call),
    )


def _sysctl_low(call: Failed) -> str:
    return (
        f"Or sysctl -w net.ipv4.ip_unprivileged_port_start={call.port}: every user of this network "
        f"namespace may then take ports from {call.port} on, also before a server does."
    )


def _ask_modules(call: Failed) -> str:
    return (
        "Ask them: ausearch -m avc -ts recent (SELinux; semanage port -a -t TYPE -p "
        f"{call.protocol} {call.port} allows it), journalctl -k -g apparmor, bpftool cgroup tree "
        "(cgroup_inet4_bind)."
    )


def _not_available(call: Failed) -> Reason:
    six = ":" in call.address
    sysctl = f"net.ipv{6 if six else 4}.ip_nonlocal_bind"
    advice = (
        f"Is {call.address} right, and on which host? ip -br addr lists those of this host; ip "
        f"addr add {call.address}/{128 if six else 32} dev DEVICE adds it.",
        "If it comes later (DHCP, VPN, keepalived): start the service after it (systemd: "
        "After=network-online.target), or let the socket set IP_FREEBIND (systemd socket units: "
        "FreeBind=yes): it then binds an address that is not there yet, and a wrong one as well.",
        f"For all programs: sysctl -w {sysctl}=1. Mistakes in addresses then show only as "
        "connections that never come.",
    )
    if call.fact("address_is_local") == 1:
        late = " (of IPv6 perhaps while it was still checked for duplicates)" if six else ""
        return Reason(
            "address-came-later",
            f"{call.address} is an address of this host by now, and was not when it was asked "
            f"for{late}: the program started too early.",
            advice[1:],
        )
    return Reason(
        "no-such-address",
        f"{call.address} is no address of this host, or of the network namespace that the program "
        f"runs in, and neither {sysctl} nor IP_FREEBIND lets it bind one that is not.",
        advice,
    )


def _invalid(call: Failed) -> Reason:
    had = int(call.row["port_got"])
    if call.row["call"] == BindCall.listen:
        return Reason(
            "invalid", "The socket is connected already: only one that is not can listen.",
            ("A mistake of the program: listen(2) wants a socket of its own.",), sure=0.8,
        )  # fmt: skip
    if had:
        return Reason(
            "already-bound",
            f"Its socket (descriptor {int(call.row['fd'])}) is bound to port {had} already, and a "
            "socket can be bound once.",
            ("A mistake of the program: another port needs another socket.",),
        )
    if ":" in call.address and ip_address(call.address).is_link_local:
        return Reason(
            "no-scope",
            f"{call.address} is link-local: without an interface it does not say which one.",
            (f"Name the interface: {call.address}%eth0 (sin6_scope_id).",),
            sure=0.8,
        )
    return Reason(
        "invalid",
        "The socket is bound already (connect and listen bind, too), or the address has the wrong "
        "length for the socket's family.",
        ("A mistake of the program: bind(2) comes first, once, with an address of its family.",),
        sure=0.7,
    )


def _family(call: Failed) -> Reason:
    return Reason(
        "wrong-family",
        f"{call.address or 'The address'} is of another family than the socket.",
        ("A mistake of the program: AF_INET6 sockets take ::ffff:a.b.c.d for IPv4.",),
    )


def _other(call: Failed) -> Reason:
    return Reason(
        "other", f"The kernel said: {bind_names.error_words(call.row)}.",
        (f"man 2 {bind_names.call(call.row)} lists what {bind_names.error(call.row)} means.",),
        sure=0.6,
    )  # fmt: skip


_OF_ERRNO: dict[int, Callable[[Failed], Reason]] = {
    errno.EADDRINUSE: _in_use,
    errno.EACCES: _denied,
    errno.EPERM: lambda call: replace(_denied(call), sure=0.75),
    errno.EADDRNOTAVAIL: _not_available,
    errno.EINVAL: _invalid,
    errno.EAFNOSUPPORT: _family,
}


def _and(sentence: str) -> str:
    return f" {sentence}" if sentence else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].islower() and " (" not in text[:20] else text
