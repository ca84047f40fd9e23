"""Rule `port-shared`: several sockets have one port, by SO_REUSEPORT or (UDP) SO_REUSEADDR.

Workers of one program and one user share it on purpose. Another program or user among them gets
a part of what was meant for the first: a leftover of an old version, or a takeover. Ports are
counted in each network namespace apart: sockets of two share nothing, and of a call whose namespace
nobody knows (no BTF, and the process gone) nothing is said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np
import numpy.typing as npt

from porttrace.analysis import bind_names, names
from porttrace.analysis.bind_names import UDP
from porttrace.analysis.model import BindCall, BindOption, Binds, Finding, Process, Trace
from porttrace.analysis.sharing import Claim, meet

RULE = "port-shared"
_SHARING = BindOption.reuseport | BindOption.reuseaddr
# mDNS, LLMNR, SSDP: every program of a host hears the same multicast.
_OWN_USER = ("Run it as a user of its own: SO_REUSEPORT shares a port within one user only.",)
_MULTICAST = {5353, 5355, 1900}


@dataclass(frozen=True)
class _Socket:
    pid: int
    program: str  # its file, or its name
    comm: str
    uid: int
    user: str
    address: str
    since_ns: int  # 0: it was there before the trace


def port_shared(trace: Trace, found: Sequence[Finding]) -> list[Finding]:
    """Find ports that several sockets have at once, and tell worker groups from takeovers."""
    rows = trace.binds[_sharing(trace.binds)]
    findings = []
    for netns, group in _groups(trace, rows):
        sockets = _together(trace, group)
        if len(sockets) > 1:
            findings.append(_finding(netns, group[-1], sockets))
    return findings


def _sharing(binds: Binds) -> npt.NDArray[np.bool_]:
    on = binds["options"] & binds["options_known"]
    udp = (binds["protocol"] == UDP) & (binds["call"] == BindCall.bind) & (on & _SHARING > 0)
    tcp = (binds["call"] == BindCall.listen) & (on & BindOption.reuseport > 0)
    fixed = (binds["port_asked"] > 0) & (binds["errno"] == 0)
    sharing: npt.NDArray[np.bool_] = fixed & (udp | tcp)
    return sharing


def _groups(trace: Trace, rows: Binds) -> Iterator[tuple[int, list[np.void]]]:
    groups: dict[tuple[int, int, int], list[np.void]] = {}
    for row in rows:
        netns = bind_names.netns(row, bind_names.looked(trace, row))
        if netns:  # else nobody can tell whom it meets
            key = netns, int(row["protocol"]), int(row["port_asked"])
            groups.setdefault(key, []).append(row)
    yield from ((netns, group) for (netns, _, _), group in groups.items())


# Those that had the port when the last of them got it.
def _together(trace: Trace, group: Sequence[np.void]) -> list[_Socket]:
    last = group[-1]
    own = [(int(row["fd"]), _of_row(trace, row)) for row in group]
    seen = {(each.pid, fd): each for fd, each in own if _stands(trace, each.pid, last)}
    pids = {each.pid for each in seen.values()}
    looked = bind_names.looked(trace, last)
    for holder in looked.holders if looked else ():
        if holder.pid and holder.pid not in pids and holder.kind in ("listener", "udp"):
            program = holder.comm or str(holder.pid)
            seen[holder.pid, -1] = _Socket(
                holder.pid, program, holder.comm, holder.uid, holder.user, holder.address, 0
            )
    return [each for each in seen.values() if _meet(each, last)]


def _of_row(trace: Trace, row: np.void) -> _Socket:
    pid = int(row["pid"])
    known = trace.processes.get(pid, Process(pid))
    comm = known.comm or names.comm(row)
    return _Socket(
        pid, comm, comm, int(row["uid"]), bind_names.user(trace, row), bind_names.address(row),
        int(row["time_ns"]),
    )  # fmt: skip


def _stands(trace: Trace, pid: int, last: np.void) -> bool:
    return trace.exits.get(pid, int(last["time_ns"])) >= int(last["time_ns"])


def _meet(each: _Socket, last: np.void) -> bool:
    if not each.address:
        return True
    v6only = bind_names.option(last, BindOption.v6only)
    return meet(Claim(address=each.address), Claim(address=bind_names.address(last), v6only=v6only))


def _finding(netns: int, last: np.void, sockets: Sequence[_Socket]) -> Finding:
    owners = sorted({(each.program, each.uid) for each in sockets})
    strange = len(owners) > 1
    port, protocol = int(last["port_asked"]), bind_names.protocol(last)
    heard = protocol == "udp" and (port in _MULTICAST or _is_multicast(last))
    pids = sorted({each.pid for each in sockets})
    return Finding(
        rule=RULE,
        severity="warning" if strange and not heard else "info",
        confidence=0.9,
        subject={"port": port, "protocol": protocol, "address": bind_names.address(last)},
        summary=_summary(last, sockets, strange, heard),
        evidence={
            "kind": "multicast" if heard else "takeover" if strange else "workers",
            "sockets": len(sockets),
            "pids": pids,
            "netns": netns,
            "options": bind_names.options(last),
            "owners": [{"program": program, "uid": uid} for program, uid in owners],
        },
        advice=_advice(last, sockets) if strange and not heard else (),
    )


def _is_multicast(last: np.void) -> bool:
    return ip_address(bind_names.address(last)).is_multicast


def _summary(last: np.void, sockets: Sequence[_Socket], strange: bool, heard: bool) -> str:
    what = f"{bind_names.protocol(last)} {bind_names.local(last)}"
    first = sockets[0]
    if not strange:
        one = len({each.pid for each in sockets}) == 1
        who = f"{first.comm} (pid {first.pid})" if one else f"{first.comm}, user {_user(first)}"
        return (
            f"{what} is shared by {len(sockets)} sockets of one program ({who}): a group of "
            "workers, among which the kernel spreads what comes in."
        )
    listed = ", ".join(f"{each.comm} (pid {each.pid}, user {_user(each)})" for each in sockets[:8])
    if heard:
        return f"{what} is shared by {listed}: for multicast that is meant so, each hears all."
    option = "SO_REUSEPORT" if bind_names.option(last, BindOption.reuseport) else "SO_REUSEADDR"
    newest = _of_last(last, sockets)
    return (
        f"{what} is shared by different programs or users: {listed}. {option} on all of them "
        f"allows that, and {_part(option, sockets)}: {newest.comm} (pid {newest.pid}) may take "
        "what was meant for another."
    )


# udp_lib compute_score: an address of its own counts more than the wildcard, whoever came last.
def _part(option: str, sockets: Sequence[_Socket]) -> str:
    if option == "SO_REUSEPORT":
        return "each gets a part of what comes in"
    if len({each.address for each in sockets}) > 1:
        return (
            "what comes to an address goes to the socket that is bound to it, the rest to the "
            "wildcard (of several alike, to the one that bound last)"
        )
    return "the one that bound last gets everything that comes in"


def _of_last(last: np.void, sockets: Sequence[_Socket]) -> _Socket:
    return next((each for each in sockets if each.pid == int(last["pid"])), sockets[-1])


def _user(each: _Socket) -> str:
    return each.user or str(each.uid)


def _advice(last: np.void, sockets: Sequence[_Socket]) -> tuple[str, ...]:
    newest = _of_last(last, sockets)
    by_port = bind_names.option(last, BindOption.reuseport)
    one_user = len({each.uid for each in sockets}) == 1
    return (
        f"Find out whether {newest.comm} is meant to have the port: systemctl status {newest.pid}, "
        f"ls -l /proc/{newest.pid}/exe. If not, kill {newest.pid}: what it received is lost.",
        "Let the server whose port it is leave out SO_REUSEPORT (UDP: SO_REUSEADDR, too): then "
        "nobody can join it; its own workers then have to inherit one socket.",
        *(_OWN_USER if by_port and one_user else ()),
    )
