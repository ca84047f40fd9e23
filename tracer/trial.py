"""The active probe: a few connects of our own from the place of a process, and what they tell.

`Trial` measures how many attempts to an address that never answers are let through at once, whether
a connect to a live address waits meanwhile, and for whom. `conclude` says what that means.
At most 16 attempts at once, at most 10 s.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porttrace.tracer.census.host import HERE
from porttrace.tracer.cgroups import directory_of
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.words import count, endpoint

MOST_ATTEMPTS = 16
MOST_S = 10.0
_LIVE_S = 0.8  # less than the first SYN sent again: 1 s
_SYN_SENT, _CLOSE = 2, 7  # include/net/tcp_states.h
_CHILD = Path(__file__).with_name("trialchild.py")

Address = tuple[str, int]


@dataclass(frozen=True)
class Place:
    """Where a child puts itself: whose network, group ("" none), user (None: stays root)."""

    pid: int
    cgroup: str = ""
    uid: int | None = None
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """So many attempts to the dead address open, then one connect to the live one.

    `state` is that of the last dead attempt: through, before (no SYN yet), or ended with `errno`.
    """

    open: int
    state: str
    errno: int
    live: str  # connected; else where it waited or that it ended: before, through, ended
    live_s: float
    live_errno: int


@dataclass
class Measured:
    """The steps in a child, and for whom else a live connect waits while it has its attempts."""

    steps: tuple[Step, ...]
    held: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Conclusion:
    """What a trial tells. `slots` 0: no throttle seen; `scope` "" where that cannot be told."""

    slots: int
    place: str  # "before the SYN", "after the SYN", ""
    scope: str
    mechanism: str  # queue, deny, ""
    sentence: str


def place_of(pid: int) -> tuple[Place, tuple[str, ...]]:
    """Return the place of a process, and what of it a child cannot have, in words.

    Raises PorttraceError when the process is gone.
    """
    status = HERE.status(pid)
    if not status:
        raise PorttraceError(f"there is no process {pid}", "'pgrep NAME' shows those that are")
    lines = HERE.found(f"/proc/{pid}/cgroup").split("\n")
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    group = directory_of(path, [pid]) if path else ""
    groups = tuple(map(int, status.get("Groups", "").split()))
    uid, gid = int(status["Uid"].split()[1]), int(status["Gid"].split()[1])
    cannot = ["what is in the process itself: preloaded libraries, its seccomp filter, its tracer"]
    if not group:
        cannot.append("its control group, which is in no tree mounted here")
    with contextlib.suppress(OSError):
        if os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino:
            cannot.append("its user namespace")
    return Place(pid, group, uid, gid, groups), tuple(cannot)


class Trial:
    """Measures from the place of a process. Raises PorttraceError from `run`."""

    def __init__(self, place: Place, dead: Address, live: Address, slots: int) -> None:
        self._place, self._dead, self._live = place, dead, live
        self._number = min(slots, MOST_ATTEMPTS)
        self._until = time.monotonic() + MOST_S

    def run(self) -> Measured:
        """Open attempts until one waits, and look for whom else a connect waits then."""
        self._until = time.monotonic() + MOST_S
        with self._children([(self._number, self._place)]) as (told,):
            measured = Measured(tuple(_step(each) for each in told["steps"]))
            self._check(measured.steps, any(each["answered"] for each in told["steps"]))
            last = measured.steps[-1]
            if last.live != "connected" or last.state != "through":
                measured.held = self._others()
        return measured

    def _check(self, steps: Sequence[Step], answered: bool) -> None:
        first = steps[0]
        if first.live != "connected":
            why = os.strerror(first.live_errno) if first.live_errno else "no answer"
            raise PorttraceError(
                f"the live address {endpoint(*self._live)} cannot be connected to from there: "
                f"{why}",
                "name a port that somebody listens on: --live ADDRESS:PORT",
            )
        if answered or (steps[-1].open == 1 and steps[-1].state == "ended"):
            why = os.strerror(steps[-1].errno) if steps[-1].errno else "it answers"
            raise PorttraceError(
                f"{endpoint(*self._dead)} is no address that never answers: {why}",
                "name another one, such as an unused address of your own network",
            )

    def _others(self) -> dict[str, bool]:
        # While our attempts are open: does a connect wait in another process, user, group?
        place = self._place
        others = {
            "process": place,
            "user": Place(place.pid, "", place.uid, place.gid, place.groups),
            "cgroup": Place(place.pid, place.cgroup),
            "netns": Place(place.pid),
        }
        with self._children([(0, each) for each in others.values()]) as told:
            first = [_step(each["steps"][0]) for each in told]
        return {name: s.live != "connected" for name, s in zip(others, first, strict=True)}

    @contextlib.contextmanager
    def _children(self, asked: Sequence[tuple[int, Place]]) -> Iterator[list[dict[str, Any]]]:
        children = [_start() for _ in asked]
        try:
            for child, (number, place) in zip(children, asked, strict=True):
                plan = {
                    **vars(place), "number": number, "dead": self._dead, "live": self._live,
                    "limit_s": _LIVE_S,
                }  # fmt: skip
                _tell(child, plan)
            yield [_answer(child, self._until) for child in children]
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.communicate()


def _step(told: dict[str, Any]) -> Step:
    dead, live = told["dead"], told["live"]
    return Step(
        open=told["open"],
        state=_state(dead) if dead else "through",
        errno=max(0, dead["errno"]) if dead else 0,
        live="connected" if live["errno"] == 0 else _state(live),
        live_s=live["took_s"],
        live_errno=max(0, live["errno"]),
    )


def _state(told: dict[str, Any]) -> str:
    if told["errno"] >= 0:
        return "ended"
    return "through" if told["state"] == _SYN_SENT else "before"


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", str(_CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def _tell(child: "subprocess.Popen[bytes]", plan: dict[str, Any]) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(json.dumps(plan).encode() + b"\n")
        child.stdin.flush()


def _answer(child: "subprocess.Popen[bytes]", until: float) -> dict[str, Any]:
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        ready = selector.select(max(0.0, until - time.monotonic()))
    line = child.stdout.readline() if ready else b""
    told: dict[str, Any] = json.loads(line) if line else {"failed": "it did not answer in time"}
    if "failed" in told:
        raise PorttraceError(
            f"the probe could not get to the place of the process: {told['failed']}",
            "is the process still there? inside a container it takes the rights of the host's root",
        )
    return told


# -- what it means -------------------------------------------------------------------------


def conclude(measured: Measured) -> Conclusion:
    """Return what the steps tell."""
    last = measured.steps[-1]
    if last.open == 1 and last.state == "before":
        sentence = "Not even one attempt was let through: another process has the slots now, or "
        return Conclusion(0, _BEFORE, "", "queue", f"{sentence}nothing leaves this place.")
    if last.state == "before":
        return _throttled(measured, last.open - 1, _BEFORE, "queue")
    if last.state == "ended":
        return _throttled(measured, last.open - 1, _BEFORE, "deny")
    if last.live == "connected":
        sentence = (
            f"No throttle was seen: with {count(last.open, 'attempt')} open another connect took "
            f"{1000 * last.live_s:.1f} ms. One with more slots would not show."
        )
        return Conclusion(0, "", "", "", sentence)
    place = _BEFORE if last.live == "before" else _AFTER
    return _throttled(measured, last.open, place, "deny" if last.live == "ended" else "queue")


def _throttled(measured: Measured, slots: int, place: str, mechanism: str) -> Conclusion:
    scope = _scope(measured)
    does = {"queue": f"others wait, {place}", "deny": "others are refused"}[mechanism]
    whom = f" It counts {_WHOM[scope]}." if scope else ""
    sentence = f"With {count(slots, 'attempt')} open, {does}: so many at a time.{whom}"
    return Conclusion(slots, place, scope, mechanism, sentence)


_BEFORE, _AFTER = "before the SYN", "after the SYN"
_WHOM = {
    "process": "each process by itself",
    "destination": "each destination by itself",
    "user": "all processes of this user",
    "cgroup": "all processes of this control group",
    "user or cgroup": "this user in this control group",
    "netns": "all of this network namespace, or of the host",
}


def _scope(measured: Measured) -> str:
    held = measured.held
    if measured.steps[-1].live == "connected":
        return "destination"
    if not held:
        return ""
    if not held["process"]:
        return "process"
    if held["netns"]:
        return "netns"
    if held["user"] != held["cgroup"]:
        return "user" if held["user"] else "cgroup"
    return "user or cgroup"
