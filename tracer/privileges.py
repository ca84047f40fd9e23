"""What a trace lets go of once its programs are attached, and what it keeps until its end.

Events and maps are read through descriptors that are open by then. What is left to do is to look
at processes, namespaces, holders of ports and suspects as they come: `KEPT` says which capability
each of these takes, and docs/security.md how that was found.
"""

import ctypes
import os
import platform
import pwd
from dataclasses import dataclass, replace

from porttrace.tracer import capabilities
from porttrace.tracer.capabilities import Sets, bits
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.output import invoking_ids

KEPT = {
    "CAP_SYS_ADMIN": "entering network namespaces (setns), listing BPF programs and links",
    "CAP_SYS_PTRACE": "reading programs, descriptors and namespaces of others' processes",
    "CAP_DAC_READ_SEARCH": "reading files and folders in /proc, /run and tracefs that are others'",
    "CAP_NET_RAW": "watching the wire of network namespaces that are seen later",
    "CAP_NET_ADMIN": "listing packet filters and their queues",
    "CAP_SYSLOG": "naming the functions on kernel stacks",
}
"""The capabilities that a trace keeps, and what for."""
_FOR_COMMANDS = ("CAP_NET_ADMIN", "CAP_NET_RAW")  # nft and iptables-save, which a census asks
_INSTEAD = ("CAP_BPF",)  # reads maps in place of CAP_SYS_ADMIN, on kernels before 5.19
_NOBODY = 65534
# The C library's setresuid() changes every thread; the system call only the one that asks.
_SETRESUID = {"x86_64": 117, "aarch64": 147}.get(platform.machine())
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 8, 38


@dataclass(frozen=True)
class Privileges:
    """What a trace goes on with. `user` is uid, gid and groups, None where it cannot change."""

    user: tuple[int, int, tuple[int, ...]] | None
    keep: int  # capabilities, of those that are held

    def drop(self) -> None:
        """Let go of everything else, in this thread and those that it begins from now on.

        Raises PorttraceError; what was dropped by then is gone.
        """
        before = capabilities.held()
        keep = before.permitted & self.keep
        try:
            if before.effective & bits(("CAP_SETPCAP",)):
                capabilities.limit(keep)
            if self.user:
                _become(*self.user)
            passed = keep & bits(_FOR_COMMANDS)
            capabilities.hold(Sets(keep, keep, passed))
            capabilities.pass_on(passed)
            if capabilities.prctl(_PR_SET_NO_NEW_PRIVS, 1):
                raise OSError("no_new_privs is refused")
        except OSError as error:
            raise PorttraceError(
                f"rights that are not needed any more cannot be dropped: {error}",
                "a sandbox may be in the way; --keep-root traces with all of them",
            ) from None


def lesser(folder: str | None = None, has_command: bool = False) -> Privileges:
    """Return what a trace can do with, begun by this user.

    Under sudo it goes on as who called it, whose the files are. Begun by root itself it goes on as
    nobody, and stays root where it writes files, which are root's, to `folder`. `has_command`: it
    has to end a command that runs as the user of the beginning.
    """
    user = None if os.geteuid() else _user(folder is not None)
    keep = bits(KEPT)
    if not capabilities.held().permitted & bits(("CAP_SYS_ADMIN",)):
        keep |= bits(_INSTEAD)
    if user and user[0] and has_command:
        keep |= bits(("CAP_KILL",))
    if user and not user[0] and folder is not None and os.stat(folder or ".").st_uid:
        keep |= bits(("CAP_DAC_OVERRIDE",))
    return Privileges(user, keep)


def lacking() -> list[str]:
    """Return what cannot be looked at for want of a capability, in words.

    Of packets and stacks it shows where they are tried.
    """
    permitted = capabilities.names(capabilities.held().permitted)
    tried = ("CAP_NET_RAW", "CAP_SYSLOG")
    return [
        f"{what} (that takes {name})"
        for name, what in KEPT.items()
        if name not in permitted and name not in tried
    ]


def _user(writes_files: bool) -> tuple[int, int, tuple[int, ...]]:
    ids = invoking_ids()
    if ids is None:
        return (0, 0, ()) if writes_files else (_NOBODY, _NOBODY, ())
    try:
        name = pwd.getpwuid(ids[0]).pw_name
    except KeyError:  # a user without a name has no other groups
        return *ids, (ids[1],)
    return *ids, tuple(os.getgrouplist(name, ids[1]))


def _become(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    # The C library changes the user in every thread, and those that libraries began (OpenBLAS,
    # jemalloc) lose every capability by that. Root comes back for this one alone.
    if capabilities.prctl(_PR_SET_KEEPCAPS, 1):
        raise OSError("capabilities cannot be kept")
    if uid:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
    os.setresuid(uid or _NOBODY, uid or _NOBODY, uid or _NOBODY)
    if not uid:
        _root_again()


def _root_again() -> None:
    sets = capabilities.held()
    capabilities.hold(replace(sets, effective=sets.permitted))
    failed = _SETRESUID is None or ctypes.CDLL(None).syscall(_SETRESUID, 0, 0, 0)
    if failed or os.geteuid():
        raise OSError("the user of one thread cannot be changed")
