"""EADDRINUSE in sentences: why holder and call collide, and what to do, with its price."""

import re
from collections.abc import Callable

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_failed import Failed, Reason
from porttrace.analysis.model import BindCall, BindOption, Holder
from porttrace.analysis.port_check import command
from porttrace.analysis.sharing import Claim, why
from porttrace.tracer.facts import INHERITED

_STATES = {"listener": "listening", "bound": "bound", "time_wait": "time_wait"}
_QUIC = 443
_INTERPRETERS = re.compile(r"python|java|node|perl|ruby|php|bash|(da|k|z)?sh$|deno|bun|dotnet|beam")
_WITH_VALUE = (["-cp"], ["-classpath"], ["-W"], ["-X"], ["-r"], ["--require"])


def in_use(call: Failed) -> Reason:
    """Return who keeps the port from a call that failed with EADDRINUSE, and what to do."""
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
    if call.text("netns_by"):
        return Reason("unknown", said, advice, sure=0.6)
    return Reason(holder.kind, said + others, advice, holder, sure)


def _no_free_port(call: Failed) -> Reason:
    return Reason(
        "no-free-port",
        f"It asked for any port, and {bind_names.range_taken(call.looked)}.",
        (
            f"Widen the range: {call.there}sysctl -w net.ipv4.ip_local_port_range='10240 65535' "
            "(fixed ports of servers inside it must be reserved: "
            "net.ipv4.ip_local_reserved_ports).",
            f"See who has them: porttrace ports{_netns(call)}, or {call.there}ss -Htan.",
            "If it binds only to choose the source address of a connection: set "
            "IP_BIND_ADDRESS_NO_PORT before bind; connect then finds a port for each destination "
            "anew.",
        ),
    )


def _listener(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = f"{_capital(bind_names.holder(holder))}.{_and(_collides(call, holder))}"
    if holder.why.startswith(INHERITED):
        said += f" {_capital(holder.why)}."
    if _is_other_family(call, holder):
        return f"{said} {_dual(call, holder)}", (*_dual_advice(call, holder), *_stop(call, holder))
    if _is_mine(call, holder):
        return f"{said} {_TWICE}", _TAKE_ONE_OUT
    if call.row["call"] == BindCall.listen:
        return said, (_IN_ONE_BREATH, *_stop(call, holder), _another_port(call))
    if holder.reuseport and bind_names.option(call.row, BindOption.reuseport):
        return said, (
            f"Run both as one user ({holder.user or holder.uid}): SO_REUSEPORT shares a port "
            "within one user only, which keeps others from taking a part of its connections.",
            *_stop(call, holder),
        )
    if names.comm(call.row) == holder.comm and call.uid == holder.uid:
        if _same_program(call):
            return f"{said} It is the same program of the same user: an instance runs already.", (
                f"Keep the one that runs, or stop it first: kill {_listed(call, holder)} (its "
                "clients are cut off); a service manager that restarts it must wait for its end.",
            )
        said += f" It is another {holder.comm}: {call.text('holder_cmdline') or 'look which one'}."
    elif command(holder):
        said += f" It runs: {command(holder)}."
    return said, (*_stop(call, holder), _another_port(call))


_TWICE = "It has the port itself already: it binds it twice."
_TAKE_ONE_OUT = (
    "Look at its configuration: the same address stands there twice, or a wildcard (0.0.0.0, [::]) "
    "beside an address that it covers. Take one of them out.",
)
_IN_ONE_BREATH = (
    "Let the server call listen right after bind, in one breath: in between another may listen. "
    "Or let a systemd socket unit (ListenStream=) bind and listen, and hand it the socket."
)


def _is_mine(call: Failed, holder: Holder) -> bool:
    return holder.pid == int(call.row["pid"])


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
    # What lets the server start now comes first, what keeps it from happening again after that.
    return said, (*_end_connection(call, holder), *(_reserve(call) if inside else ()))


def _reserve(call: Failed) -> tuple[str, ...]:
    reserved = call.text("reserved")
    ports = f"{reserved},{call.port}" if reserved else str(call.port)
    setting = "net.ipv4.ip_local_reserved_ports"
    stays = f"the same line ({setting} = {ports}) in /etc/sysctl.d/90-reserved-ports.conf"
    if call.is_elsewhere and call.container:
        stays = (
            "to stay, it belongs to how the container is started (docker run --sysctl "
            f"{setting}={ports})"
        )
    elif call.is_elsewhere:
        stays = "again whenever that network namespace is made"
    return (
        f"Keep clients off it: {call.there}sysctl -w {setting}={ports} and {stays}. It costs "
        "clients one port of "
        f"{call.fact('range_last') - call.fact('range_first') + 1}; who has the port now keeps it, "
        "and each network namespace (container) has a list of its own.",
    )


def _end_connection(call: Failed, holder: Holder) -> tuple[str, ...]:
    there, _, dport = holder.remote.rpartition(":")
    alike = [each for each in call.holders if each.kind == holder.kind]
    several = len(alike) > 1 or holder.why.endswith("such sockets)")
    one = f" and dst {there} and dport = {dport}" if dport and not several else ""
    what = "these connections" if several else "this connection"
    state = "state connected " if dport else ""
    restart = f"; so does a restart of {bind_names.owner(holder)}" if holder.pid else ""
    return (
        f"To free it at once: {call.there}ss -tK {state}'sport = {call.port}{one}' ends {what} "
        f"(its program sees an error and may connect anew){restart}. Then start the server again.",
    )


def _accepted(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = (
        f"{_capital(bind_names.holder(holder))}: a connection that a server on this port accepted "
        f"outlived it.{_and(_collides(call, holder))}"
    )
    return said, _reuseaddr(call, *_end_connection(call, holder))


def _bound(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = f"{_capital(bind_names.holder(holder))}.{_and(_collides(call, holder))}"
    if _is_other_family(call, holder):
        return f"{said} {_dual(call, holder)}", (*_dual_advice(call, holder), *_stop(call, holder))
    if _is_mine(call, holder):
        return f"{said} {_TWICE}", _TAKE_ONE_OUT
    return said, (*_stop(call, holder), _another_port(call))


def _time_wait(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    left = f"{holder.frees_in_s:.0f} s" if holder.frees_in_s >= 0 else "at most 60 s"
    said = (
        f"A closed connection to {holder.remote or 'somebody'} keeps the port in TIME_WAIT for "
        f"another {left}: the kernel waits there for packets that come late."
        f"{_and(_collides(call, holder))}"
    )
    late = bind_names.option(call.row, BindOption.reuseaddr)
    wait = (
        f"{'Wait' if late else 'Until then: wait'} {left} and start it again, or end the wait: "
        f"{call.there}ss -tK state time-wait 'sport = {call.port}' (where the kernel has "
        "CONFIG_INET_DIAG_DESTROY)."
    )
    return said, _reuseaddr(call, wait)


def _closing(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    stays = holder.state == "CLOSE_WAIT"
    why = holder.why or "it is not over yet"
    said = f"{_capital(bind_names.holder(holder))}. {why[:1].upper()}{why[1:]}."
    if stays and _is_mine(call, holder):
        return said, (
            "It is a connection of its own that it has not closed: let it close that first.",
            *_reuseaddr(call),
        )
    if stays and holder.pid:
        return said, (
            f"It stays until {bind_names.owner(holder)} closes it (it leaks the descriptor): "
            f"kill {holder.pid}, or mend that.",
            *_reuseaddr(call),
        )
    return said, _reuseaddr(call, *_end_connection(call, holder))


def _udp(call: Failed, holder: Holder) -> tuple[str, tuple[str, ...]]:
    said = f"{_capital(bind_names.holder(holder))}.{_and(_collides(call, holder))}"
    advice = (*_stop(call, holder), _another_port(call))
    if _is_mine(call, holder):
        said, advice = f"{said} {_TWICE}", _TAKE_ONE_OUT
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
    return said, (*_stop(call, holder), *_look_again(call))


_OF_HOLDER: dict[str, Callable[[Failed, Holder], tuple[str, tuple[str, ...]]]] = {
    "listener": _listener,
    "client": _client,
    "accepted": _accepted,
    "bound": _bound,
    "time_wait": _time_wait,
    "closing": _closing,
    "udp": _udp,
}


def _stop(call: Failed, holder: Holder) -> tuple[str, ...]:
    if not holder.pid or _is_mine(call, holder):
        return ()
    inside = f" (in container {holder.container})" if holder.container else ""
    pids = _listed(call, holder)
    every = ", all that have it" if " " in pids else ""
    return (
        f"To free the port stop {holder.comm or 'it'}{inside}: kill {pids}{every}; or its service "
        "by 'systemctl stop' (systemctl status "
        f"{holder.pid} names it); whoever uses it is cut off.",
    )


def _listed(call: Failed, holder: Holder) -> str:
    return " ".join(map(str, all_pids(call, holder)))


def _same_program(call: Failed) -> bool:
    exe = call.text("holder_exe")
    if exe and call.exe and exe != call.exe:
        return False
    name = call.exe or exe or names.comm(call.row)
    if not _INTERPRETERS.match(name.rpartition("/")[2]):
        return True
    # Of an interpreter the script is the program.
    mine, theirs = _script(call.cmdline), _script(call.text("holder_cmdline"))
    return bool(mine) and mine == theirs


def _script(cmdline: str) -> str:
    words = cmdline.split(" ")[1:]
    for at, word in enumerate(words):
        if word in ("-m", "-jar", "-c", "-e"):
            return " ".join(words[at:] if word in ("-c", "-e") else words[at : at + 2])
        if word and not word.startswith("-") and words[at - 1 : at] not in _WITH_VALUE:
            return word
    return ""


def all_pids(call: Failed, holder: Holder) -> tuple[int, ...]:
    """Return every process that keeps the port as `holder` does: its group, and their children."""
    group = [each for each in call.holders if each.kind == holder.kind and each.pid]
    pids = [pid for each in (holder, *group) for pid in (each.pid, *each.also)]
    return tuple(pid for pid in dict.fromkeys(pids) if pid != int(call.row["pid"]))


def _another_port(call: Failed) -> str:
    free = "porttrace port N tells whether a port is free and for whom"
    return f"Or give one of the two another port or an address of its own; {free}."


def _netns(call: Failed) -> str:
    if not call.is_elsewhere:
        return ""
    place = call.text("netns_name") or call.fact("netns_pid", 0)
    return f" --netns {place}" if place else ""


def _look_again(call: Failed) -> tuple[str, ...]:
    return (f"Ask while it fails: porttrace port {call.port}/{call.protocol}{_netns(call)}.",)


# What helps at once comes first: where the option is set already, no start of this program does.
def _reuseaddr(call: Failed, *now: str) -> tuple[str, ...]:
    if bind_names.option(call.row, BindOption.reuseaddr):
        return (
            *now,
            "For the next time: this program sets SO_REUSEADDR, and it helps only where both did, "
            "before bind: let the one that had the port before set it, too.",
        )
    return (
        "Let the server set SO_REUSEADDR before bind (nearly every server does; in "
        "Python allow_reuse_address, in Go it is set). It costs nothing: a running listener still "
        "keeps the port. The closed socket must have had it set, too.",
        *now,
    )


def _collides(call: Failed, holder: Holder) -> str:
    second = claim_of(call)
    first = Claim(
        protocol=holder.protocol,
        address=holder.address or "0.0.0.0",
        port=holder.port,
        v6only=holder.v6only,
        reuseport=holder.reuseport,
        # beside a listener it is no help, whether that has set it or not
        reuseaddr=second.reuseaddr if holder.kind == "listener" else None,
        uid=holder.uid,
        state=_STATES.get(holder.kind, "connected") if holder.protocol == "tcp" else "bound",
    )
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
    # No help where somebody has the port of this family, too.
    if any((":" in each.address) == (":" in call.address) for each in call.holders if each.address):
        return ()
    whose = "the first" if ":" in holder.address else "this program"
    # Of two programs each wants the port for itself.
    alone = " Or bind [::] alone, which serves both." if _is_mine(call, holder) else ""
    return (
        f"Let {whose} set IPV6_V6ONLY before bind (nginx: 'listen [::]:{call.port} ipv6only=on'): "
        "then each family has a socket of its own. For all programs that do not choose: sysctl -w "
        "net.ipv6.bindv6only=1; those that count on one socket for both then lose IPv4."
        f"{alone}",
    )


def _and(sentence: str) -> str:
    return f" {sentence}" if sentence else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].islower() and " (" not in text[:20] else text
