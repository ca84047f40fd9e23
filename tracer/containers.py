"""Which container a process is in, read off its control groups: a pattern in a path, no more.

Docker, containerd, CRI-O, podman and Kubernetes name a control group after the container's id,
systemd-nspawn and LXC after its name, systemd after the unit. What a runtime calls an id is
asked in `runtimes`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# A scope (docker-ID.scope), a plain directory (/docker/ID), or one with colons, as kubelet makes
# without systemd. conmon stands outside of the container that it watches.
_BY_ID = re.compile(r"(?:.*[:-])?(?<!conmon-)([0-9a-f]{64})(?:\.scope)?")
_BY_NAME = re.compile(
    r"systemd-nspawn@(?P<nspawn>.+)\.service|machine-(?P<machine>.+)\.scope|lxc\.payload\.(?P<lxc>.+)"
)
_UNIT = re.compile(r"[^/]+\.service")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_USER = re.compile(r"/user-(\d+)\.slice/")
_SHORT = 12  # characters of an id that Docker and the others show


@dataclass(frozen=True)
class Container:
    """A container by its control group. `name` is there where the path tells it already."""

    id: str  # 64 hex digits; of machines, the name
    path: str  # of its control group, as /proc/PID/cgroup has it
    name: str = ""

    @property
    def short(self) -> str:
        """The id as the runtimes' own tools show it."""
        return self.id if self.name else self.id[:_SHORT]

    @property
    def uid(self) -> int:
        """The user whose own runtime made it; 0 for the host's."""
        found = _USER.search(self.path)
        return int(found[1]) if found else 0


def container_of(paths: Iterable[str]) -> Container | None:
    """Return the innermost container that one of a process's control groups names, if any."""
    for path in paths:
        words = path.split("/")
        for depth in range(len(words), 0, -1):
            found = _named(words[:depth], words[depth : depth + 1])
            if found:
                return found
    return None


def _named(words: list[str], below: list[str]) -> Container | None:
    path = "/".join(words)
    by_id = _BY_ID.fullmatch(words[-1])
    if by_id:
        return Container(by_id[1], path)
    by_name = _BY_NAME.fullmatch(words[-1])
    # systemd-nspawn keeps itself beside what it runs.
    if by_name is None or below == ["supervisor"]:
        return None
    name = unescaped(next(filter(None, by_name.groups())))
    return Container(name, path, name)


def unit_of(paths: Iterable[str]) -> tuple[str, str]:
    """Return the innermost systemd service of a process, and the path of its control group.

    Two empty strings where there is none.
    """
    for path in paths:
        words = path.split("/")
        for depth in range(len(words), 0, -1):
            if _UNIT.fullmatch(words[depth - 1]):
                return unescaped(words[depth - 1]), "/".join(words[:depth])
    return "", ""


def unescaped(name: str) -> str:
    r"""Return a name that systemd escaped (`my\x2dweb`) as it was (`my-web`)."""
    raw = name.encode(errors="surrogateescape")
    plain = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), raw)
    return plain.decode(errors="surrogateescape")


def paths_of(text: str) -> list[str]:
    """Return the paths that a /proc/PID/cgroup lists, that of control groups v2 first.

    Where it lists others alone, "/" stands first.
    """
    lines = [line.split(":", 2) for line in text.split("\n")]
    whole = [parts for parts in lines if len(parts) == 3]
    unified = [parts[2] for parts in whole if parts[0] == "0"]
    others = [parts[2] for parts in whole if parts[0] != "0"]
    return [*(unified or ["/"]), *others] if whole else []
