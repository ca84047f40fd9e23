"""Servers that do not get their port, each for another reason.

    in-use         another user's program listens on the port
    client         a client's outgoing connection has the port
    time-wait      the server was stopped a moment ago, and sets no SO_REUSEADDR
    privileged     a user who is not root wants port 80
    no-address     the address is none of this host's

The programs are processes with names and users of their own. The truth has every bind and listen
with its errno. All end by themselves.
"""

from __future__ import annotations

import sys
import time

from porttrace.lab.workloads.port_sharing import PORT, Program
from porttrace.lab.workloads.truth import Report, run_program

_OWNER_UID, _SERVER_UID = 60001, 60002  # users that no distribution gives to anybody
_STAY_S = 0.5  # who was turned away does not vanish at once, nor who is in the way
_NOBODYS_ADDRESS = "192.0.2.77"


def in_use(report: Report) -> None:
    """Have a server want the port of another one."""
    with (
        Program("first", _OWNER_UID, report) as first,
        Program("second", _SERVER_UID, report) as second,
    ):
        first.bind("tcp")
        first.listen()
        second.bind("tcp", "SO_REUSEADDR")
        time.sleep(_STAY_S)


def client(report: Report) -> None:
    """Have a server want the port that the kernel gave to a client."""
    with (
        Program("first", _OWNER_UID, report) as first,
        Program("client", _OWNER_UID, report) as taker,
        Program("second", _SERVER_UID, report) as second,
    ):
        first.bind("tcp")
        first.listen()
        second.bind("tcp", "SO_REUSEADDR", port=taker.connect())
        time.sleep(_STAY_S)


def time_wait(report: Report) -> None:
    """Have a server started anew right after it has closed a connection and stopped."""
    with (
        Program("first", _OWNER_UID, report) as first,
        Program("client", _OWNER_UID, report) as caller,
        Program("second", _OWNER_UID, report) as second,
    ):
        first.bind("tcp")
        first.listen()
        caller.connect()
        first.accept()
        caller.close()
        second.bind("tcp")
        time.sleep(_STAY_S)


def privileged(report: Report) -> None:
    """Have a server want port 80 without being root."""
    with Program("server", _SERVER_UID, report) as server:
        server.bind("tcp", port=80)
        time.sleep(_STAY_S)


def no_address(report: Report) -> None:
    """Have a server want an address that this host does not have."""
    with Program("server", _SERVER_UID, report) as server:
        server.bind("tcp", address=_NOBODYS_ADDRESS, port=PORT)
        time.sleep(_STAY_S)


MODES = {
    "in-use": in_use,
    "client": client,
    "time-wait": time_wait,
    "privileged": privileged,
    "no-address": no_address,
}


def main(argv: list[str] | None = None) -> int:
    """Run one of them and return the exit status."""
    return run_program("failing_binds", __doc__, MODES, argv)


if __name__ == "__main__":
    sys.exit(main())
