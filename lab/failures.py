"""The stories of ordinary failures: one for each row of docs/troubleshooting.md.

No throttle is in any of them. What must be found stands with each; where it is None, the line of
the attempt and the end of the report say all there is.
"""

from __future__ import annotations

from collections.abc import Callable

from porttrace.lab import surroundings
from porttrace.lab.hosts import SERVER_V4
from porttrace.lab.site import DEAD
from porttrace.lab.story import Scenario, Settings

CLOSED = f"{SERVER_V4}:9"
"""Nobody listens there: the server's kernel refuses."""
NO_ROUTE = "198.51.100.7:443"
"""The client has no route there."""
NO_HOST = "192.0.2.77:443"
"""On the client's own network, and nobody has the address."""


def _connects(to: str, connects: int) -> Callable[[Settings], list[str]]:
    def workload(settings: Settings) -> list[str]:
        return [
            *("porttrace.lab.workloads.habits", "steady", "--live", to, "--dead", DEAD),
            *("--threads", str(settings.threads or 2)),
            *("--connects", str(settings.connects or connects)),
            *("--pause", str(settings.pause_between_s or 0.1), "--seed", str(settings.seed)),
        ]

    return workload


def _bind(mode: str) -> Callable[[Settings], list[str]]:
    return lambda settings: ["porttrace.lab.workloads.failing_binds", mode]


FAILURES = (
    Scenario(
        "port-in-use",
        "a server wants a port on which another user's program listens: EADDRINUSE",
        None,
        _bind("in-use"),
        "bind-conflict",
    ),
    Scenario(
        "port-of-a-client",
        "a server wants a port that a client's outgoing connection has: EADDRINUSE",
        None,
        _bind("client"),
        "bind-conflict",
    ),
    Scenario(
        "port-in-time-wait",
        "a server is started again right after it was stopped, without SO_REUSEADDR: EADDRINUSE",
        None,
        _bind("time-wait"),
        "bind-conflict",
    ),
    Scenario(
        "privileged-port",
        "a user who is not root wants port 80: EACCES",
        None,
        _bind("privileged"),
        "bind-conflict",
    ),
    Scenario(
        "no-such-address",
        "a server wants an address that its host does not have: EADDRNOTAVAIL",
        None,
        _bind("no-address"),
        "bind-conflict",
    ),
    Scenario(
        "refused",
        "nobody listens on the server's port, and its host says so: ECONNREFUSED",
        None,
        _connects(CLOSED, 4),
        "dead-destination",
    ),
    Scenario(
        "dead-server",
        "a server never answers, and the kernel gives up: ETIMEDOUT (after 3 s here, not 127)",
        None,
        _connects(DEAD, 2),
        "dead-destination",
        surroundings=surroundings.one_retry,
    ),
    Scenario(
        "no-such-host",
        "nobody on the client's network has the address: EHOSTUNREACH",
        None,
        _connects(NO_HOST, 2),
        "dead-destination",
    ),
    Scenario(
        "no-route",
        "the client has no route to the address: ENETUNREACH, and no SYN is ever sent",
        None,
        _connects(NO_ROUTE, 4),
        "dead-destination",
    ),
)
