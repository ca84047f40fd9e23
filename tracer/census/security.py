"""Security modules (LSMs) with a say in connect, and what this process is to them."""

from collections.abc import Iterator

from porttrace.tracer.census.host import HERE, HostFiles, UnreadError
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect

_LIST = "/sys/kernel/security/lsm"
_LABELLING = ("selinux", "apparmor", "smack", "tomoyo")  # have a hook socket_connect, and labels
_BLIND = frozenset(("landlock", "ipe"))  # what they do to a process is not shown to others
# Linux' own without that hook; bpf's programs are looked at by themselves.
_QUIET = frozenset(
    ("lockdown", "capability", "yama", "loadpin", "safesetid", "integrity", "ima", "evm", "bpf")
)
_FREE = ("unconfined", "kernel", "_")


def look(process: Process, files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield the modules that decide about connects of `process`.

    Those of Linux itself can refuse a connect and never queue one: a fact, and a weak one. One
    that is not of Linux itself can do anything.
    """
    try:
        active = files.text(_LIST).strip().split(",")
    except UnreadError as unread:
        yield NotLooked("security modules", f"{unread} (is securityfs mounted?)")
        return
    for name in filter(None, active):
        if name in _LABELLING:
            yield from _labelled(name, process, files)
        elif name in _BLIND:
            yield NotLooked(f"{name} rules of the process", "the kernel shows them to nobody else")
        elif name not in _QUIET:
            yield Suspect(
                "lsm-foreign",
                "connect",
                f"the security module {name} is active and not one of Linux itself",
                _LIST,
            )


def _labelled(name: str, process: Process, files: HostFiles) -> Iterator[Fact]:
    label, source = _label(name, process.pid, files)
    if not label or label.startswith(_FREE) or ":unconfined_t" in label:
        return
    if name == "selinux" and files.found("/sys/fs/selinux/enforce").strip() != "1":
        return
    yield Suspect(
        "lsm",
        "connect",
        f"{name} confines {process.comm} (pid {process.pid}) as {label}: it can refuse a connect, "
        "not queue it",
        source,
    )


def _label(name: str, pid: int, files: HostFiles) -> tuple[str, str]:
    # Of several modules each has its own folder; the file beside them is that of the first.
    for source in (f"/proc/{pid}/attr/{name}/current", f"/proc/{pid}/attr/current"):
        label = files.found(source).rstrip("\n\0")
        if label:
            return label, source
    return "", ""
