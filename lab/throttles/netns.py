"""Network namespaces from the inside: which one of the lab's is this, and which the router's?"""

from __future__ import annotations

from pathlib import Path

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import namespaces
from porttrace.tracer.namespaces import NAMED

_OWN = Path("/proc/thread-self/ns/net")


def own_name() -> str:
    """Return the name of this process's namespace where it is one of the lab's, else ""."""
    own = _OWN.stat().st_ino
    return next((name for name in namespaces() if _inode(NAMED / name) == own), "")


def router_name() -> str:
    """Return the name of the router between the two hosts, seen from the client host."""
    router = own_name().replace("-client", "-router")
    if "-router" not in router or router not in namespaces():
        raise LabError(
            "there is no router between this place and the servers",
            "run the throttle gateway through porttrace lab run or a scenario, which make one",
        )
    return router


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
