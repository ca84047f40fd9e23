"""Each thing that porttrace uses on this host: is it there, what is lost, what mends it.

The facts come from features; here they get their price. `porttrace doctor` prints
the list, and `verdict` turns it into an exit code.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from porttrace.tracer import clock, features, modes, namespaces
from porttrace.tracer.errors import NotPermittedError, UnsupportedError
from porttrace.tracer.features import ROOT
from porttrace.tracer.hooks import BLIND_SPOT, MODES
from porttrace.tracer.privileges import KEPT
from porttrace.tracer.sysctls import sysctl

_NO_TRACING = "no live tracing; recorded traces can still be read"


@dataclass(frozen=True)
class Check:
    """One thing of this host; `ok` is None where this user may not look."""

    name: str
    ok: bool | None
    detail: str  # what was found
    cost: str = ""  # what is lost without it
    remedy: str = ""  # the command that mends it, or where there is none, what would
    essential: bool = False  # no live tracing without it
    permission: bool = False  # only the user's rights are in the way
    word: str = "missing"  # for what is not ok


def checks(root: Path = ROOT) -> tuple[Check, ...]:
    """Look at everything, changing nothing; `root` is "/" except in tests."""
    return (
        _bcc(),
        _pid_namespace(root),
        _clock(root),
        _capabilities(root),
        *_optional_capabilities(root),
        _bpf_call(root),
        _lockdown(root),
        *_tracing(root),
        _hook_mode(root),
        *_kernel_facts(root),
        *_lab(),
    )


def verdict(found: tuple[Check, ...]) -> int:
    """Return 0 when live tracing can work, 3 when only rights are missing, 4 when more is."""
    faults = [check for check in found if check.essential and check.ok is False]
    if not faults:
        return 0
    rights_only = all(check.permission for check in faults)
    return NotPermittedError.exit_code if rights_only else UnsupportedError.exit_code


def _bcc() -> Check:
    try:
        place = features.find_bcc()
        version = features.bcc_version(place) or "version not told"
        detail, remedy, ok = f"{version}, {place}; needs no kernel headers", "", True
    except UnsupportedError as error:
        detail, remedy, ok = error.message, error.hint, False
    return Check("bcc", ok, detail, _NO_TRACING, remedy, essential=True)


def _pid_namespace(root: Path) -> Check:
    sees = namespaces.sees_host_pids(root)
    details = {True: "that of the host", False: "one of its own", None: "cannot be told"}
    return Check(
        "pid namespace",
        sees,
        details[sees],
        _NO_TRACING,
        namespaces.NO_HOST_PIDS_HINT,
        essential=True,
    )


def _clock(root: Path) -> Check:
    ahead = clock.ahead_s(root)
    return Check(
        "clock",
        not ahead,
        f"{clock.in_words(ahead)} the kernel's" if ahead else "the kernel's",
        _NO_TRACING,
        clock.OTHER_CLOCK_HINT,
        essential=True,
    )


def _capabilities(root: Path) -> Check:
    held = features.effective_capabilities(root)
    missing = features.missing_capabilities(root)
    if missing:
        detail = f"{', '.join(missing)} missing"
    else:
        detail = ", ".join(name for name in sorted(held)) or "root"
    remedy = features.permission_hint(root)
    return Check(
        "capabilities", not missing, detail, _NO_TRACING, remedy, essential=True, permission=True
    )


# What a trace loses without each, tried by tests/kernel/test_privileges.py.
_LOST = {
    "CAP_SYS_ADMIN": "no wire, samples and holders of ports in other network namespaces; no BPF "
    "programs among suspects",
    "CAP_SYS_PTRACE": "no executables, libraries, namespaces and holders of ports of other users' "
    "processes, nor the wire of their namespaces",
    "CAP_DAC_READ_SEARCH": "no holders of ports and no suspects by descriptors of other users",
    "CAP_NET_RAW": "nothing of the wire: where a SYN was held or lost is not told",
    "CAP_NET_ADMIN": "no packet filters and queues among suspects",
    "CAP_SYSLOG": "no names of functions: where in the kernel a connect is held is not told",
}


def _optional_capabilities(root: Path) -> Iterator[Check]:
    held = features.effective_capabilities(root)
    for name, what in KEPT.items():
        yield Check(
            name, name in held, what, _LOST[name], _giving(name, root),
            permission=True, word="limited",
        )  # fmt: skip


def _giving(name: str, root: Path) -> str:
    if os.geteuid() == 0:
        return features.permission_hint(root)
    return f"sudo, or give it {name}: docs/security.md has the command"


def _bpf_call(root: Path) -> Check:
    users = sysctl("kernel.unprivileged_bpf_disabled", root)
    setting = f"kernel.unprivileged_bpf_disabled = {users or 'absent'}"
    if features.missing_capabilities(root):
        return Check("bpf(2)", None, f"not tried without the capabilities; {setting}")
    refused = features.load_trial()
    detail = f"fails: {os.strerror(refused)}" if refused else "loads a program"
    where = features.container(root)
    if where:
        detail += f"; in a container ({where})"
    return Check(
        "bpf(2)",
        not refused,
        f"{detail}; {setting}",
        _NO_TRACING,
        features.permission_hint(root),
        essential=True,
        permission=refused in (errno.EPERM, errno.EACCES),
    )


def _lockdown(root: Path) -> Check:
    mode = features.lockdown(root)
    return Check(
        "lockdown",
        mode != "confidentiality",
        mode,
        _NO_TRACING,
        "boot without lockdown=confidentiality",
        essential=True,
    )


# (name, tracepoints, what is lost without them); lines up with bpf/porttrace.bpf.c
_OPTIONAL = (
    (
        "socket errors",
        ("sock:inet_sk_error_report",),
        "no errno of non-blocking connects that fail",
    ),
    ("retransmissions", ("tcp:tcp_retransmit_skb",), "SYNs sent again are not counted"),
    ("scheduler", ("sched:sched_switch",), "no holds before the kernel's own connect"),
    (
        "processes",
        ("task:task_newtask", "sched:sched_process_exec", "sched:sched_process_exit"),
        "children are not followed, names of processes may be out of date",
    ),
    (
        "socket calls",
        ("syscalls:sys_enter_socket", "syscalls:sys_exit_socket"),
        "connects that fail before the SYN are not seen",
    ),
    (
        "binds",
        tuple(
            f"syscalls:sys_{when}_{call}"
            for call in ("bind", "listen", "setsockopt")
            for when in ("enter", "exit")
        ),
        "no calls of bind and listen, or their options are asked afterwards",
    ),
)


def _tracing(root: Path) -> tuple[Check, ...]:
    tracefs = features.find_tracefs(root)
    if tracefs is None and features.missing_capabilities(root):
        return (Check("tracefs", None, "only root may look; its tracepoints are not known"),)
    mount = "sudo mount -t tracefs nodev /sys/kernel/tracing"
    mounted = Check(
        "tracefs",
        tracefs is not None,
        str(tracefs or "not mounted; live tracing mounts it itself"),
        "nothing yet: the tracepoints are not known until it is mounted",
        mount,
    )
    if tracefs is None:
        return (mounted,)
    return (
        mounted,
        _tracepoints(root, "connect calls", features.CONNECT_CALLS, _NO_TRACING, True),
        _tracepoints(root, "state changes", (features.STATE_CHANGES,), _NO_TRACING, True),
        *(_tracepoints(root, name, events, cost) for name, events, cost in _OPTIONAL),
    )


def _hook_mode(root: Path) -> Check:
    if features.missing_capabilities(root):
        return Check("hook mode", None, "not tried without the capabilities")
    reasons = {mode: modes.why_not(mode, root) for mode in MODES}
    best = next(mode for mode, reason in reasons.items() if not reason)
    refused = [f"not {mode}, since {reason}" for mode, reason in reasons.items() if reason]
    said = f"hooks the kernel by {best}" + (", the best that works here" if refused else "")
    return Check(
        "hook mode",
        best != "tracepoint",
        "; ".join([said, *refused]),
        f"little: attempts and findings are the same, but {BLIND_SPOT}",
        "a kernel with kprobes (CONFIG_KPROBE_EVENTS), or with BTF and open to fentry",
        word="limited",
    )


def _tracepoints(
    root: Path, name: str, events: tuple[str, ...], cost: str, essential: bool = False
) -> Check:
    lacking = [event for event in events if not features.has_tracepoint(event, root)]
    detail = f"no {', '.join(lacking)}" if lacking else ", ".join(events)
    syscalls = any(event.startswith("syscalls:") for event in lacking)
    remedy = "a kernel built with CONFIG_FTRACE_SYSCALLS" if syscalls else "a newer kernel"
    return Check(name, not lacking, detail, cost, remedy, essential)


def _kernel_facts(root: Path) -> tuple[Check, ...]:
    btf = features.has_btf(root)
    restrict = sysctl("kernel.kptr_restrict", root)
    symbols: bool | None = features.shows_symbols(root)
    if not symbols and features.missing_capabilities(root):
        symbols = None
    hidden = "" if symbols else ("; only root may look" if symbols is None else ": hidden")
    return (
        Check(
            "BTF",
            btf,
            "/sys/kernel/btf/vmlinux" if btf else "none",
            "a hold before connect is told by its stack alone",
            "a kernel built with CONFIG_DEBUG_INFO_BTF",
        ),
        Check(
            "kernel symbols",
            symbols,
            f"kernel.kptr_restrict = {restrict or 'absent'}{hidden}",
            "holds before the kernel's own connect are not seen: its functions have no names",
            _show_symbols(root),
        ),
    )


def _show_symbols(root: Path) -> str:
    # kptr_restrict 1 shows them to whoever has CAP_SYSLOG, 2 to nobody.
    if "CAP_SYSLOG" not in features.effective_capabilities(root):
        return "give it CAP_SYSLOG"
    return "sudo sysctl kernel.kptr_restrict=1"


# (name, program, packages of Debian, what the lab cannot do without it)
_LAB = (
    ("ip", "ip", "iproute2", "no lab scenarios: no network namespaces"),
    ("gcc", "gcc", "gcc libc6-dev", "no throttle 'preload' in the lab"),
    ("strace", "strace", "strace", "no second opinion on the lab: strace -f -T -e connect"),
)


def _lab() -> tuple[Check, ...]:
    # sbin is not on every user's PATH, and the lab runs as root
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = [
        (name, shutil.which(program, path=path), package, cost)
        for name, program, package, cost in _LAB
    ]
    seccomp = "python3-seccomp" if find_spec("seccomp") else None
    found.append(("seccomp", seccomp, "python3-seccomp", "no throttle 'gate' in the lab"))
    return tuple(
        Check(name, place is not None, place or "not found", cost, f"sudo apt install {package}")
        for name, place, package, cost in found
    )
