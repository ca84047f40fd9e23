"""Attempts behind SYN_SENT, by simulation: throttles on the way, and networks that throttle nobody.

An `Asked` is one attempt as its program wants it. `passed` lets each through a gate with so many
slots, in line or by its own retransmissions; `written` makes the rows the wire probe would give.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from porttrace.analysis.ladder import ladder
from porttrace.analysis.model import ATTEMPT, RESENT_KEPT, Answer, Host, Outcome, Process, Trace

from .simulate import MS, START_NS, Client, Key, S, row

LADDER = ladder(6, 4)
SYSCTLS = {"tcp_syn_retries": 6, "tcp_syn_linear_timeouts": 4}
RTT_NS = 300_000


@dataclass
class Asked:
    """`life_ns`: how long its program waits for a dead peer; 0 where the peer is alive."""

    start: int
    client: Client
    life_ns: int = 0
    go: int = 0  # when its SYN passed; 0 never
    last: int = 0  # when its latest SYN passed; 0: as `go`
    tries: int = 1
    resent: tuple[int, ...] = ()  # when its SYN was sent again


def wanted(seed: int, threads: int, rounds: int, dead_share: float = 0.4) -> list[Asked]:
    """Return what some threads of one process ask for, in order."""
    dice = random.Random(seed)
    found = []
    for tid in range(1, threads + 1):
        now = START_NS + int(dice.uniform(0, 300) * MS)
        for _ in range(rounds):
            dead = dice.random() < dead_share
            life_ns = int(dice.uniform(1200, 2600) * MS) if dead else 0
            there = "192.0.2.66:9100" if dead else f"192.0.2.2:{dice.choice((80, 389))}"
            found.append(Asked(now, Client(7, tid, there), life_ns))
            now += int(dice.uniform(400, 1500) * MS)
    return sorted(found, key=lambda each: each.start)


def _end(each: Asked) -> int:
    return each.start + each.life_ns if each.life_ns else each.go + RTT_NS


def queued(asked: Sequence[Asked], slots: int, seed: int) -> list[Asked]:
    """Let them go in line, `slots` at a time, soon after an end; dead ones may give up in line."""
    dice, taken = random.Random(seed), [0] * slots
    for each in asked:
        turn = min(range(slots), key=lambda slot: taken[slot])
        ready = max(each.start + 60_000, taken[turn] + int(dice.uniform(0.1, 1.5) * MS))
        if each.life_ns and ready >= each.start + each.life_ns:
            continue
        each.go = ready
        taken[turn] = _end(each)
    return list(asked)


def dropped(asked: Sequence[Asked], slots: int, seed: int) -> list[Asked]:
    """Let SYNs pass that find a slot free; the others are sent again on the ladder."""
    dice = random.Random(seed)
    due = [(each.start + 50_000, 0, number) for number, each in enumerate(asked)]
    passed: list[Asked] = []
    while due:
        due.sort(reverse=True)
        now, tried, number = due.pop()
        each = asked[number]
        if each.life_ns and now >= each.start + each.life_ns:
            continue
        if tried:
            each.resent += (now,)
        if sum(other.go < now < _end(other) for other in passed) < slots:
            each.go, each.tries = now, tried + 1
            passed.append(each)
            each.resent += _later(each, tried, dice) if each.life_ns else ()
            continue
        if tried == len(LADDER.rungs_s):
            continue  # the last SYN was lost, too
        late = LADDER.rungs_s[tried] * S * (1 + dice.uniform(0.002, 0.03))
        due.append((each.start + 50_000 + int(late), tried + 1, number))
    return list(asked)


# A peer that never answers is asked again and again, through a throttle or not.
def _later(each: Asked, tried: int, dice: random.Random) -> tuple[int, ...]:
    late = (rung * S * (1 + dice.uniform(0.002, 0.03)) for rung in LADDER.rungs_s[tried:])
    times = (each.start + 50_000 + int(each_late) for each_late in late)
    return tuple(time for time in times if time < each.start + each.life_ns)


def free(asked: Sequence[Asked], delay_ns: Sequence[int]) -> list[Asked]:
    """Let each go after a delay of its own, whatever the others do."""
    for each, late in zip(asked, delay_ns, strict=True):
        each.go = each.start + 60_000 + late
    return list(asked)


def lost(asked: Sequence[Asked], share: float, seed: int) -> list[Asked]:
    """Lose each SYN to a live peer with a chance; it is sent again on the ladder."""
    dice = random.Random(seed)
    for each in asked:
        each.tries = 1
        while not each.life_ns and dice.random() < share:
            each.tries += 1
            late = LADDER.rungs_s[each.tries - 2] * S * (1 + dice.uniform(0.002, 0.03))
            each.resent += (each.start + 60_000 + int(late),)
        each.go = each.resent[-1] if each.resent else each.start + 60_000
        each.resent += _later(each, 0, dice) if each.life_ns else ()
    return list(asked)


def limited(
    asked: Sequence[Asked], rate_per_s: float, burst: int, by: Key, seed: int
) -> list[Asked]:
    """Let so many SYNs a second pass on this host, those of dead attempts too; others are lost."""
    dice = random.Random(seed)
    due = [(each.start + 50_000, 0, number) for number, each in enumerate(asked)]
    heapq.heapify(due)
    tokens: dict[Hashable, float] = defaultdict(lambda: float(burst))
    since: dict[Hashable, int] = {}
    while due:
        now, tried, number = heapq.heappop(due)
        each, key = asked[number], by(asked[number].client)
        if each.life_ns and now >= each.start + each.life_ns:
            continue
        gone_s = (now - since.get(key, now)) / S
        tokens[key], since[key] = min(burst, tokens[key] + gone_s * rate_per_s), now
        each.resent += (now,) if tried else ()
        if tokens[key] >= 1:
            tokens[key] -= 1
            each.go, each.last = each.go or now, now
            each.tries = 1 if each.go == now else each.tries + 1
            if not each.life_ns:
                continue
        if tried < len(LADDER.rungs_s):
            late = LADDER.rungs_s[tried] * S * (1 + dice.uniform(0.002, 0.03))
            heapq.heappush(due, (each.start + 50_000 + int(late), tried + 1, number))
    return list(asked)


def _marks(each: Asked, place: str) -> dict[str, int]:
    end = _end(each) if each.life_ns or each.go else 0
    marks = {"call_ns": each.start - 5_000, "syn_ns": each.start, "end_ns": end}
    marks["return_ns"] = end + 20_000
    first = each.go if place == "egress" else each.start + 40_000
    marks["wire_ns"] = marks["wire_last_ns"] = first
    if place == "egress" and each.last:
        marks["wire_last_ns"] = each.last
    if place == "network" and each.tries > 1:
        marks["wire_last_ns"] = each.go
    if not each.life_ns:
        marks["answer_ns"] = first + RTT_NS - 40_000 if place == "ingress" else end - 30_000
    return marks


def written(asked: Sequence[Asked], place: str) -> Trace:
    """Return the trace of attempts that were held at `place`."""
    rows = []
    for number, each in enumerate(asked, 1):
        outcome = Outcome.cancelled if each.life_ns else Outcome.established
        one = row(number, each.client, _marks(each, place), outcome)
        one["watched"] = True
        one["wire_count"] = each.tries if place == "network" or each.last else 1
        one["answer"] = Answer.none if each.life_ns else Answer.syn_ack
        if place == "network" or each.last or each.resent:
            since_us = [(time - each.start) // 1000 for time in each.resent[:RESENT_KEPT]]
            padded = [*since_us, *[0] * (RESENT_KEPT - len(since_us))]
            one["resent"] = np.array(padded, "<u4").tobytes()
            one["retransmits"] = len(each.resent)
        if not one["wire_ns"]:
            one["wire_count"] = 0
        rows.append(one)
    attempts = np.array(rows, ATTEMPT)
    last = int(attempts["end_ns"].max()) + S
    host = Host(wire=True, sysctls=SYSCTLS)
    return Trace(attempts, START_NS, last, {7: Process(7, comm="p7", netns=9)}, host=host)
