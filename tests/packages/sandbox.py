"""Run a command as systemd would for the unit: its user, rights, filter of calls, mounts.

    unshare --mount --net --propagation private \
        /usr/bin/python3 tests/packages/sandbox.py UNIT COMMAND...

What it takes from the unit are capabilities, system calls, mask and folder in /run; file systems
are made read-only as ProtectSystem=strict and ProtectKernelTunables=yes do. Families of addresses,
namespaces and devices are not restricted here. To be run by the system's Python, which has seccomp.
"""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import seccomp

USER = 61184  # the first of those that DynamicUser= takes
READ_ONLY = ("/", "/sys", "/sys/kernel/tracing", "/sys/kernel/debug", "/sys/fs/bpf")


def setting(unit: str, name: str) -> list[str]:
    """Return the words of a line of the unit."""
    found = re.search(rf"^{name}=(.*)$", unit, re.M)
    assert found, f"the unit has no {name}="
    return found[1].split()


def calls(word: str) -> set[str]:
    """Return the system calls of a name or of systemd's group of that name."""
    if not word.startswith("@"):
        return {word}
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    names = (line.strip() for line in listing.splitlines()[1:])
    return set().union(*(calls(name) for name in names if name and not name.startswith("#")))


def mount_read_only() -> None:
    """Let nothing be written to the host's files in this mount namespace."""
    for place in READ_ONLY:
        if os.path.ismount(place):
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)


def make_folder(unit: str) -> None:
    """Make the unit's folder in /run, as only this mount namespace sees it."""
    [name] = setting(unit, "RuntimeDirectory")
    [mode] = setting(unit, "RuntimeDirectoryMode")
    folder = Path("/run") / name
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], check=True)
    folder.mkdir()
    folder.chmod(int(mode, 8))
    os.chown(folder, USER, USER)


def deny_other_calls(allowed: set[str]) -> None:
    """Answer any other system call with EPERM, from now on and in what is run."""
    rules = seccomp.SyscallFilter(seccomp.ERRNO(1))
    for name in sorted(allowed):
        with contextlib.suppress(RuntimeError, OSError):  # of another architecture
            rules.add_rule(seccomp.ALLOW, name)
    rules.load()


def main() -> None:
    """Become the service, then its command."""
    unit = Path(sys.argv[1]).read_text()
    rights = ",".join(f"+{name[4:].lower()}" for name in setting(unit, "AmbientCapabilities"))
    allowed = set().union(*map(calls, setting(unit, "SystemCallFilter")))
    mount_read_only()
    make_folder(unit)
    os.umask(int(setting(unit, "UMask")[0], 8))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    deny_other_calls(allowed)
    os.execvp("setpriv", [
        "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs",
        f"--inh-caps=-all,{rights}", f"--ambient-caps={rights}", f"--bounding-set=-all,{rights}",
        *sys.argv[2:],
    ])  # fmt: skip


if __name__ == "__main__":
    main()
