"""Why a bind(2) or listen(2) failed, and what to do about it, in sentences with exact commands.

`explain` looks at one call; the rule `bind-conflict` and the column `advice` both rest on it.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from porttrace.analysis import bind_names
from porttrace.analysis.bind_failed import Failed, Reason
from porttrace.analysis.bind_holders import in_use
from porttrace.analysis.model import BindCall


def explain(call: Failed) -> Reason:
    """Return why a call failed and what to do about it."""
    number = int(call.row["errno"])
    return _OF_ERRNO.get(number, _other)(call)


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
    if call.uid == 0:
        return (
            f"Ports below {start} (net.ipv4.ip_unprivileged_port_start) need the capability "
            "CAP_NET_BIND_SERVICE; it runs as root (user 0), and that capability was taken from it."
        )
    return (
        f"Ports below {start} (net.ipv4.ip_unprivileged_port_start) need CAP_NET_BIND_SERVICE, "
        f"which it, as user {call.uid}, has not."
    )


def _low_port(call: Failed) -> tuple[str, ...]:
    if call.uid == 0:
        return (
            "Give it CAP_NET_BIND_SERVICE back: in its unit in CapabilityBoundingSet=, in a "
            "container --cap-add NET_BIND_SERVICE (Kubernetes: capabilities.add).",
            _sysctl_low(call),
        )
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
        f"Or {call.there}sysctl -w net.ipv4.ip_unprivileged_port_start={call.port}: every "
        f"user of this network namespace may then take ports from {call.port} on, also before a "
        "server does."
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
        f"For all programs: {call.there}sysctl -w {sysctl}=1. Mistakes in addresses then show "
        "only as connections that never come.",
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
    errno.EADDRINUSE: in_use,
    errno.EACCES: _denied,
    errno.EPERM: lambda call: replace(_denied(call), sure=0.75),
    errno.EADDRNOTAVAIL: _not_available,
    errno.EINVAL: _invalid,
    errno.EAFNOSUPPORT: _family,
}
