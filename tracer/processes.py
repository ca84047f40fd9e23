"""What /proc says of a process, read once, at its first event.

Everything may vanish while it is read: what cannot be read stays empty.
"""

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from porttrace.tracer.containers import Container, container_of, paths_of, unit_of
from porttrace.tracer.elf import defines
from porttrace.tracer.facts import Process

_PROC = Path("/proc")
_CMDLINE_LIMIT = 4096


def read_process(
    pid: int,
    proc: Path = _PROC,
    name_of: Callable[[Container], str] | None = None,
    image_of: Callable[[Container], str] | None = None,
) -> Process:
    """Return what is known of process `pid`; empty fields where it is gone already.

    `name_of` says what a container's runtime calls it; without it only the path tells. `image_of`
    says what it was made of.
    """
    base = proc / str(pid)
    status = _status(base)
    uid = _number(status.get("Uid", ""))
    paths = paths_of(_text(base / "cgroup"))
    container = container_of(paths)
    return Process(
        pid=pid,
        ppid=_number(status.get("PPid", "")),
        comm=_text(base / "comm").rstrip("\n"),
        exe=_link(base / "exe"),
        cmdline=_text(base / "cmdline").rstrip("\0").replace("\0", " "),
        uid=uid,
        user=user_name(uid),
        cgroup=_cgroup(paths),
        container=container.short if container else "",
        container_name=_called(container, paths, name_of),
        ns_pid=_innermost(status),
        netns=_inode(f"{base}/ns/net"),
        preloads=preloaded(base),
        image=image_of(container) if container and image_of else "",
    )


def placed(
    process: Process, cgroup: str, name_of: Callable[[Container], str] | None = None
) -> Process:
    """Return a process that was gone before it could be read, with what its control group tells."""
    container = container_of([cgroup])
    return replace(
        process,
        cgroup=cgroup,
        container=container.short if container else "",
        container_name=_called(container, [cgroup], name_of),
    )


def _called(
    container: Container | None, paths: list[str], name_of: Callable[[Container], str] | None
) -> str:
    if container is None:
        return unit_of(paths)[0]
    return name_of(container) if name_of else container.name


def _innermost(status: dict[str, str]) -> int:
    # One number for each pid namespace, the host's first.
    _, *others = status.get("NSpid", "").split() or [""]
    return _number(others[-1]) if others else 0


def container(pid: int, proc: Path = _PROC) -> Container | None:
    """Return the container that process `pid` is in, None where there is none or it is gone."""
    return container_of(paths_of(_text(proc / str(pid) / "cgroup")))


def unit(pid: int, proc: Path = _PROC) -> tuple[str, str]:
    """Return the systemd service that process `pid` is in, and its control group; else ""."""
    return unit_of(paths_of(_text(proc / str(pid) / "cgroup")))


def all_pids(proc: Path = _PROC) -> Iterator[int]:
    """Yield the processes that are there."""
    yield from (int(name) for name in os.listdir(proc) if name.isdigit())


def called_inside(number: int, proc: Path = _PROC) -> list[int]:
    """Return the processes that have this pid in a pid namespace of their own."""
    return [pid for pid in all_pids(proc) if _innermost(_status(proc / str(pid))) == number]


def threads_of_other_names(comm: str, proc: Path = _PROC) -> dict[int, list[str]]:
    """Return by pid the names of threads that are not called as their process `comm` is."""
    found = {}
    for pid in all_pids(proc):
        if _text(proc / str(pid) / "comm").rstrip("\n") != comm:
            continue
        names = [_text(path).rstrip("\n") for path in (proc / str(pid) / "task").glob("*/comm")]
        others = sorted(set(names) - {comm, ""})
        if others:
            found[pid] = others
    return found


def netns(pid: int) -> int:
    """Return the number of a process's network namespace, 0 when it cannot be read."""
    return _inode(f"{_PROC}/{pid}/ns/net")


def netns_of_thread(pid: int, tid: int) -> int:
    """Return the number of the network namespace of one thread of a process, 0 when it is gone.

    setns(2) moves a thread alone: others of its process may be elsewhere.
    """
    return _inode(f"{_PROC}/{pid}/task/{tid}/ns/net")


def user_name(uid: int) -> str:
    """Return the name of a user, or the number as text when there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def exists(pid: int) -> bool:
    """Return whether a process (not just a thread) of that number is there and alive."""
    status = _status(_PROC / str(pid))
    # A zombie has closed its sockets: it waits for its parent only.
    return status.get("Tgid") == str(pid) and not status.get("State", "").startswith(("Z", "X"))


def thread_group(tid: int) -> int:
    """Return the process that a thread belongs to, 0 when there is no such thread."""
    return _number(_status(_PROC / str(tid)).get("Tgid", ""))


def thread_comm(pid: int, tid: int) -> str:
    """Return the first line of a thread's name, "" when there is no such thread."""
    with contextlib.suppress(OSError):
        text = (_PROC / str(pid) / "task" / str(tid) / "comm").read_text(errors="surrogateescape")
        return text.split("\n")[0]
    return ""


def preloaded(base: Path) -> tuple[str, ...]:
    """Return the libraries that the environment or ld.so.preload put before all others
    and that define connect(), as they are mapped in the process under `base`."""
    return tuple(path for path in mapped_preloads(base) if defines_connect(base, path))


def defines_connect(base: Path, library: str) -> bool:
    """Return whether a library of the process under `base` defines connect()."""
    return defines(base / "root" / library.lstrip("/"), "connect")


def mapped_preloads(base: Path) -> tuple[str, ...]:
    """Return the libraries that the environment or ld.so.preload put before all others, whatever
    they define, as they are mapped in the process under `base`."""
    asked = _text(base / "environ").split("\0")
    names = [item.partition("=")[2] for item in asked if item.startswith("LD_PRELOAD=")]
    names.append(_text_of_theirs(base / "root" / "etc" / "ld.so.preload"))
    wanted = {name for text in names for name in re.split(r"[\s:]+", text) if name}
    if not wanted:
        return ()
    wanted |= {_resolved(base / "root", name) for name in wanted if name.startswith("/")}
    lines = [line.split(maxsplit=5) for line in _lines(base / "maps")]
    maps = {fields[5] for fields in lines if len(fields) == 6 and fields[5].startswith("/")}
    return tuple(sorted(path for path in maps if _asked_for(path, wanted)))


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


def _text_of_theirs(path: Path) -> str:
    # In a tree of somebody else: looked at before it is opened, since opening a pipe waits for a
    # writer, and opening a device may do anything.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return _text(Path(f"/proc/self/fd/{handle}"))
        finally:
            os.close(handle)
    return ""


def _lines(path: Path) -> list[str]:
    # Not splitlines(): the kernel escapes newlines in names, but no other separator.
    return _text(path).split("\n")


def _link(path: Path) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _inode(path: str) -> int:
    # Text, not a Path: of 5,000 processes those take longer to make than to ask.
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino
    return 0


def _status(base: Path) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in _lines(base / "status") if ":" in line)
    return {key: value.strip() for key, value in pairs}


def _number(text: str) -> int:
    # The first one; 0 where there is none, as in a file that is not what it should be.
    match = re.match(r"[0-9]{1,10}", text)
    return int(match[0]) if match else 0


def _cgroup(paths: list[str]) -> str:
    # That of v2, which comes first; on a hybrid host without one, the longest path of v1.
    return paths[0] if paths and paths[0] != "/" else max(paths, key=len, default="")
