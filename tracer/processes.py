"""What /proc says of a process, read once, at its first event.

Everything may vanish while it is read: what cannot be read stays empty.
"""

import contextlib
import os
import pwd
import re
from pathlib import Path

from porttrace.tracer.elf import defines
from porttrace.tracer.facts import Process

# Docker, containerd, CRI-O, podman and Kubernetes name a cgroup after the container's id.
# conmon stands outside of the container that it watches.
_CONTAINER = re.compile(r"(?:^|[/:-])(?<!conmon-)([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_CMDLINE_LIMIT = 4096


def read_process(pid: int, proc: Path = Path("/proc")) -> Process:
    """Return what is known of process `pid`; empty fields where it is gone already."""
    base = proc / str(pid)
    status = _status(base)
    uid = int(status.get("Uid", "0").split()[0])
    cgroup = _cgroup(base)
    container = _CONTAINER.search(cgroup)
    return Process(
        pid=pid,
        ppid=int(status.get("PPid", "0")),
        comm=_text(base / "comm").rstrip("\n"),
        exe=_link(base / "exe"),
        cmdline=_text(base / "cmdline").rstrip("\0").replace("\0", " "),
        uid=uid,
        user=user_name(uid),
        cgroup=cgroup,
        container=container[1][:12] if container else "",
        netns=_inode(base / "ns" / "net"),
        preloads=preloaded(base),
    )


def netns(pid: int) -> int:
    """Return the number of a process's network namespace, 0 when it cannot be read."""
    return _inode(Path("/proc") / str(pid) / "ns" / "net")


def user_name(uid: int) -> str:
    """Return the name of a user, or the number as text when there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def exists(pid: int) -> bool:
    """Return whether a process (not just a thread) of that number is there and alive."""
    status = _status(Path("/proc") / str(pid))
    # A zombie has closed its sockets: it waits for its parent only.
    return status.get("Tgid") == str(pid) and not status.get("State", "").startswith(("Z", "X"))


def thread_group(tid: int) -> int:
    """Return the process that a thread belongs to, 0 when there is no such thread."""
    return int(_status(Path("/proc") / str(tid)).get("Tgid", "0"))


def preloaded(base: Path) -> tuple[str, ...]:
    """Return the libraries that the environment or ld.so.preload put before all others
    and that define connect(), as they are mapped in the process under `base`."""
    asked = _text(base / "environ").split("\0")
    names = [item.partition("=")[2] for item in asked if item.startswith("LD_PRELOAD=")]
    names.append(_text(base / "root" / "etc" / "ld.so.preload"))
    wanted = {name for text in names for name in re.split(r"[\s:]+", text) if name}
    if not wanted:
        return ()
    wanted |= {_resolved(base / "root", name) for name in wanted if name.startswith("/")}
    lines = [line.split(maxsplit=5) for line in _lines(base / "maps")]
    maps = {fields[5] for fields in lines if len(fields) == 6 and fields[5].startswith("/")}
    mapped = sorted(path for path in maps if _asked_for(path, wanted))
    return tuple(path for path in mapped if defines(base / "root" / path.lstrip("/"), "connect"))


def _resolved(root: Path, name: str) -> str:
    # maps shows where a link leads to, in the process's own tree.
    with contextlib.suppress(OSError, ValueError):
        real = os.path.realpath(root / name.lstrip("/"))
        return real.removeprefix(os.path.realpath(root).rstrip("/"))
    return name


def _asked_for(path: str, wanted: set[str]) -> bool:
    return path in wanted or any("/" not in w and path.endswith("/" + w) for w in wanted)


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as handle:
            limit = _CMDLINE_LIMIT if path.name == "cmdline" else 1 << 22
            return os.fsdecode(handle.read(limit))
    except OSError:
        return ""


def _lines(path: Path) -> list[str]:
    # Not splitlines(): the kernel escapes newlines in names, but no other separator.
    return _text(path).split("\n")


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _inode(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_ino
    return 0


def _status(base: Path) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in _lines(base / "status") if ":" in line)
    return {key: value.strip() for key, value in pairs}


def _cgroup(base: Path) -> str:
    # The v2 line ("0::/path"); on a hybrid host without one, the longest path of v1.
    paths = [line.split(":", 2) for line in _lines(base / "cgroup")]
    unified = [parts[2] for parts in paths if len(parts) == 3 and parts[0] == "0"]
    others = [parts[2] for parts in paths if len(parts) == 3]
    return unified[0] if unified and unified[0] != "/" else max(others, key=len, default="")
