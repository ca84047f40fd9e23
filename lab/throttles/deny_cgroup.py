"""The throttle `deny-cgroup`: a cgroup connect hook returns EPERM while C attempts are in flight.

The command runs in a cgroup of its own, together with all its children, and that cgroup is the
scope. What is counted: TCP sockets of the cgroup in SYN_SENT. The kernel's table of sockets is read
over and over while one is in flight, so a slot is free again a few milliseconds after an end.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from porttrace.lab.cgroups import cgroups, enter
from porttrace.lab.errors import LabError
from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import child
from porttrace.lab.throttles.connect_hook import Counters, denying
from porttrace.lab.throttles.sockdiag import all_connecting

_PAUSE_S = 0.001


def run(throttle: Throttle, command: list[str]) -> int:
    """Run `command` in a cgroup that denies; return its exit status."""
    if throttle.slots == 0:
        raise LabError(
            "the throttle deny-cgroup needs at least one slot",
            "give --slots 1 or more, or run the command without a throttle",
        )
    with cgroups("denied") as (folder,), denying(folder, throttle.slots) as counters:
        process = child.start(command, before_exec=lambda: enter(folder))
        try:
            with child.signals_to(process):
                return _serve(process, folder, counters)
        except child.Stopped:
            return child.exit_status(process.wait())


def _serve(process: subprocess.Popen[bytes], folder: Path, counters: Counters) -> int:
    started = 0
    while process.poll() is None:
        began_s = time.monotonic()
        # What was let go before the last round has reached SYN_SENT by now, or is over.
        if started > counters.ended:
            counters.tell_ended(max(counters.ended, started - _in_flight(folder)))
        started = counters.started
        time.sleep(max(_PAUSE_S, 2 * (time.monotonic() - began_s)))
    return child.exit_status(process.wait())


def _in_flight(folder: Path) -> int:
    ids = {os.stat(path).st_ino for path, _folders, _files in os.walk(folder)}
    return sum(owner.cgroup in ids for owner in all_connecting())
