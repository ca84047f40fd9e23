"""Code in the kernel that did not come with it: out-of-tree modules, live patches."""

import re
from collections.abc import Iterator

from porttrace.tracer.census.host import HERE, HostFiles, UnreadError
from porttrace.tracer.facts import Fact, NotLooked, Suspect
from porttrace.tracer.words import count

_MODULES, _TAINTED, _PATCHES = "/proc/modules", "/proc/sys/kernel/tainted", "/sys/kernel/livepatch"
# Documentation/admin-guide/tainted-kernels.rst
_FLAGS = {"O": "built outside of the kernel's tree", "E": "unsigned", "P": "proprietary"}
_OUT_OF_TREE = 1 << 12
_MOST = 20


def look(files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield what may have put itself into the kernel's connect."""
    yield from _modules(files)
    yield from _patches(files)


def _modules(files: HostFiles) -> Iterator[Fact]:
    try:
        lines = files.text(_MODULES).splitlines()
    except UnreadError as unread:
        yield NotLooked("kernel modules", f"{unread} (a kernel without modules has none)")
        return
    foreign = [(line.split()[0], _taint(line)) for line in lines if _taint(line)]
    for name, flags in foreign[:_MOST]:
        why = ", ".join(_FLAGS[flag] for flag in flags)
        yield Suspect("module", "connect", f"the kernel module {name} is loaded: {why}", _MODULES)
    if len(foreign) > _MOST:
        more = len(foreign) - _MOST
        yield NotLooked(
            f"{count(more, 'more kernel module')} of others", f"too many; {_MODULES} lists them"
        )
    yield from _vanished(any("O" in flags for _, flags in foreign), files)


def _vanished(listed: bool, files: HostFiles) -> Iterator[Fact]:
    tainted = files.found(_TAINTED).strip()
    if not listed and tainted.isdigit() and int(tainted) & _OUT_OF_TREE:
        yield Suspect(
            "module-gone",
            "connect",
            "an out-of-tree module was loaded since boot and is not listed: unloaded, or hidden",
            f"{_TAINTED}, {_MODULES}",
        )


def _taint(line: str) -> str:
    # name size users by state address (OE)
    match = re.search(r"\(([A-Z+-]+)\)\s*$", line)
    return "".join(flag for flag in _FLAGS if flag in match[1]) if match else ""


def _patches(files: HostFiles) -> Iterator[Fact]:
    try:
        names = files.names(_PATCHES)
    except UnreadError:
        return  # this kernel cannot be patched, or never was
    for name in names[:_MOST]:
        if files.found(f"{_PATCHES}/{name}/enabled").strip() == "1":
            yield Suspect(
                "livepatch",
                "connect",
                f"the live patch {name} is in force: it replaces functions of the kernel",
                f"{_PATCHES}/{name}/enabled",
            )
