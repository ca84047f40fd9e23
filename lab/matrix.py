"""The scenario matrix: which runs there are, all of them drawn from one seed.

Pure. `matrix_run` makes the runs, and `matrix_table` judges them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from porttrace.lab.expected import Expected, expected_of
from porttrace.lab.scenarios import SCENARIOS
from porttrace.lab.story import Settings
from porttrace.lab.throttle import SCOPES_OF_KIND, TIMED_KINDS, Throttle, default_scope

SLOTS = (1, 2, 3, 10)
_SHORT_SLOTS = (1, 2)
_WORKLOADS = ("threads", "processes")
PAIR = "pair"
_DENYING = ("deny", "deny-cgroup")
_RATES = (3.0, 6.0)  # attempts a second, for the throttles that count time

_PROCESSES = Settings(processes=4, users=2, cgroups=2)
_SHARING = {"user": 2, "cgroup": 2, "host": 4}  # of these processes, counted together
_DEAD_DUTY = 0.39  # share of the time that a thread waits for the dead, with the pauses of deniers
# In one process every wider scope is the same; these alone can be told from it there.
_SEEN_IN_ONE_PROCESS = ("thread", "process", "destination")


@dataclass(frozen=True)
class Case:
    """One run: a throttle around a storm, or a control (`throttle` None); `key` names it."""

    key: str
    story: str
    settings: Settings
    throttle: Throttle | None

    @property
    def expected(self) -> Expected | None:
        """Return what must be found, None for a control."""
        return expected_of(self.throttle) if self.throttle else None


def cases(runs: int, seed: int, short: bool = False, controls: int | None = None) -> list[Case]:
    """List all runs: each throttle and each control `runs` times, with timing by the seed.

    `controls`: how often each control is run instead.
    """
    found: list[Case] = []
    for number in range(runs):
        found += _throttled(seed + number, _SHORT_SLOTS if short else SLOTS, short)
        found += [_pair(kind, seed + number) for kind in SCOPES_OF_KIND if kind not in TIMED_KINDS]
    for number in range(runs if controls is None else controls):
        found += _controls(seed + number)
    return found


def _throttled(seed: int, all_slots: Sequence[int], short: bool) -> list[Case]:
    found = []
    for kind, scopes in SCOPES_OF_KIND.items():
        for scope in scopes[:2] if short else scopes:
            for slots in (1,) if kind in TIMED_KINDS else all_slots:
                found += [
                    _throttled_case(kind, scope, slots, workload, seed)
                    for workload in _WORKLOADS
                    if _telling(kind, scope, workload)
                ]
    return found


# A thread that waits in connect(2) makes no second attempt, so a shim by thread holds nobody.
# In one process a throttle by user or host says nothing else than one by process.
def _telling(kind: str, scope: str, workload: str) -> bool:
    if (kind, scope) == ("preload", "thread"):
        return False
    return workload == "processes" or scope in _SEEN_IN_ONE_PROCESS


# The smallest case: one dead attempt, and one that waits for it. Nobody can be sure of that.
def _pair(kind: str, seed: int) -> Case:
    key = f"{kind}/{default_scope(kind)}/1/{PAIR}/{seed}"
    settings = Settings(
        dead_time_s=round(random.Random(key).uniform(1.2, 2.5), 3),
        blocking=kind == "preload",
        scope=default_scope(kind),
    )
    return Case(key, "two-threads", settings, Throttle(kind, 1, default_scope(kind)))


def _throttled_case(kind: str, scope: str, slots: int, workload: str, seed: int) -> Case:
    key = f"{kind}/{scope}/{slots}/{workload}/{seed}"
    draw = random.Random(key)
    throttle = Throttle(kind, slots, scope, rate_per_s=round(draw.uniform(*_RATES), 2))
    return Case(key, "storm", _storm(throttle, workload, draw), throttle)


# Enough threads that some stand in line, whoever is counted together.
def _storm(throttle: Throttle, workload: str, draw: random.Random) -> Settings:
    spread = asdict(_PROCESSES if workload == "processes" else Settings())
    if throttle.kind == "deny-cgroup":
        spread["cgroups"] = 0  # the throttle's own cgroup is the one that counts
    return Settings(
        **{
            **spread,
            "threads": _threads(throttle, workload),
            "connects": _connects(throttle, workload),
            "overlapping": throttle.slots if throttle.scope == "thread" else 0,
            "dead_time_s": round(draw.uniform(*_dead_times(throttle)), 3),
            "dead_share": round(draw.uniform(*_dead_shares(throttle)), 3),
            "pause_between_s": round(draw.uniform(*_pauses(throttle)), 3),
            "spread_s": round(draw.uniform(0.1, 0.5), 3),
            "blocking": throttle.kind == "preload",
            "slots": throttle.slots,
            "scope": throttle.scope,
            "seed": draw.randrange(10**6),
        }
    )


# Enough that some stand in line. Of who is denied nobody does: there the slots must be full about
# half of the time, or there is nothing to compare.
def _threads(throttle: Throttle, workload: str) -> int:
    if throttle.scope == "thread":
        return 3
    if throttle.kind in _DENYING:
        together = "host" if throttle.kind == "deny-cgroup" else throttle.scope
        sharing = _SHARING.get(together, 1) if workload == "processes" else 1
        return max(3, round((throttle.slots / _DEAD_DUTY + 2) / sharing))
    if throttle.kind in TIMED_KINDS and workload == "processes":
        return 4
    return throttle.slots + (6 if _slow(throttle) else 4)


# Where SYNs are dropped, all go on together, a rung later: it takes many rounds to tell their turns
# from an outage. Of many slots some becomes free all the time: it takes many who wait for one.
def _connects(throttle: Throttle, workload: str) -> int:
    if throttle.kind in _DENYING:
        return 14
    if throttle.kind.endswith("-drop") or throttle.kind in TIMED_KINDS or throttle.slots >= 10:
        return 8
    return 2 if _slow(throttle) and workload == "processes" else 4


# Who is denied comes back at once: without longer pauses all is over in one stretch.
def _pauses(throttle: Throttle) -> tuple[float, float]:
    return (0.4, 0.7) if throttle.kind in _DENYING else (0.03, 0.1)


# Dropped SYNs come again after a second, and the kernel's own timers end a blocking attempt then.
def _dead_times(throttle: Throttle) -> tuple[float, float]:
    if throttle.kind in _DENYING:
        return 0.7, 0.95
    return (1.2, 1.9) if _slow(throttle) else (0.4, 0.9)


# A rate holds the living and the dead alike.
def _dead_shares(throttle: Throttle) -> tuple[float, float]:
    return (0.15, 0.3) if throttle.kind in TIMED_KINDS else (0.35, 0.5)


def _slow(throttle: Throttle) -> bool:
    return throttle.kind.endswith("-drop") or throttle.kind in ("preload", *TIMED_KINDS)


def _controls(seed: int) -> list[Case]:
    found = []
    for name, story in SCENARIOS.items():
        if not story.throttled:
            key = f"control/{name}/{seed}"
            draw = random.Random(key)
            settings = Settings(
                dead_time_s=round(draw.uniform(0.8, 2.5), 3),
                pages=6,
                page_interval_s=round(draw.uniform(0.2, 0.5), 3),
                pause_s=round(draw.uniform(0.2, 0.8), 3),
                seed=draw.randrange(10**6),
            )
            found.append(Case(key, name, settings, None))
    return found
