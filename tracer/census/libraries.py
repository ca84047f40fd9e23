"""What stands between a program and its own connect(2): preloaded libraries, proxies.

All of it is at the place `user`, before the system call, except for a proxy: a host elsewhere.
"""

import re
from collections.abc import Iterator

from porttrace.tracer.census.host import HERE, HostFiles, UnreadError
from porttrace.tracer.facts import Fact, NotLooked, Process, Suspect
from porttrace.tracer.processes import mapped_preloads

_PROXY = re.compile(r"(?:https?|all|ftp|socks)_proxy", re.I)


def look(process: Process, files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield the libraries that `process` was made to load, and the proxies it is told to use."""
    yield from (_preload(process, library) for library in process.preloads)
    for library in mapped_preloads(files.path(f"/proc/{process.pid}")):
        if library not in process.preloads:
            yield Suspect(
                "preload-other",
                "user",
                f"{library} is preloaded into {process.comm} (pid {process.pid}) and defines no "
                "connect() of its own",
                f"/proc/{process.pid}/maps",
                process.pid,
            )
    try:
        environment = _environment(files.text(f"/proc/{process.pid}/environ"))
    except UnreadError as unread:
        yield NotLooked("environment (LD_AUDIT, proxies)", str(unread))
        return
    yield from _audit(process, environment.get("LD_AUDIT", ""), files)
    proxies = sorted(
        name for name, value in environment.items() if _PROXY.fullmatch(name) and value
    )
    if proxies:
        # Names only: a value may hold a password.
        yield Suspect(
            "proxy",
            "network",
            f"{', '.join(proxies)} in the environment of {process.comm} (pid {process.pid}): what "
            "honours it connects to a proxy, which may queue",
            f"/proc/{process.pid}/environ",
            process.pid,
        )


def _preload(process: Process, library: str) -> Suspect:
    return Suspect(
        kind="preload",
        place="user",
        what=f"{library} is preloaded into {process.comm} (pid {process.pid}) "
        "and defines its own connect()",
        source=f"/proc/{process.pid}/maps",
        pid=process.pid,
    )


def _audit(process: Process, value: str, files: HostFiles) -> Iterator[Fact]:
    # It may bind connect() to anything, whatever it defines: la_symbind of rtld-audit(7)
    maps = files.found(f"/proc/{process.pid}/maps")
    for library in filter(None, value.split(":")):
        if library.rpartition("/")[2] in maps:
            yield Suspect(
                "audit-library",
                "user",
                f"{library} audits the linking of {process.comm} (pid {process.pid}) (LD_AUDIT) "
                "and can bind connect() to a function of its own",
                f"/proc/{process.pid}/environ, maps",
                process.pid,
            )


def _environment(text: str) -> dict[str, str]:
    # As getenv(3) sees it: the first of several counts.
    found: dict[str, str] = {}
    for item in text.split("\0"):
        name, equals, value = item.partition("=")
        if equals:
            found.setdefault(name, value)
    return found
