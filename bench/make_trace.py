"""Make a synthetic recording of any size: the same seed gives the same events.

    .venv/bin/python bench/make_trace.py -n 1_000_000 -o build/bench/million.ptrace
    /usr/bin/time -v .venv/bin/porttrace report build/bench/million.ptrace

Attempts come at random (Poisson) in a given time, over some processes with some threads each, to
a thousand destinations. Answers take a median of 2 ms; 4 % are refused, and four destinations never
answer: 2 % of the attempts are given up after 3 s, with one SYN sent again. A third of the sockets
do not block. The processes that `--throttled` counts have a gate with one slot each, as
`porttrace lab run gate` makes it. `bench/make_fleet.py` makes many hosts of it.
"""

import argparse
import errno
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from porttrace.tracer.beside import Beside, End, TraceHeader
from porttrace.tracer.event import EVENT, Events, EventType, Flag
from porttrace.tracer.facts import Host, Process, Suspect
from porttrace.tracer.tracefile import TraceWriter

Ints = npt.NDArray[np.int64]

_BATCH = 16_384
_START_NS = 1_000_000_000_000
_WALL_OFFSET_NS = 1_700_000_000_000_000_000
_SYSCTLS = {"tcp_syn_retries": 6}
_DESTINATIONS, _DEAD = 1000, 4
_FIRST_SOCK = 0xFFFF_8880_0000_0000
_GIVE_UP_NS, _RESEND_NS = 3_000_000_000, 1_000_000_000
_OVERHEAD_NS = 10_000  # from the call to the SYN, and from the end to the return
_ESTABLISHED, _CLOSE = 1, 7


@dataclass(frozen=True)
class Plan:
    """What to make; times in seconds."""

    attempts: int = 1_000_000
    processes: int = 50
    threads: int = 16
    throttled: int = 1
    duration_s: float = 600.0
    seed: int = 1
    answer_ms: float = 2.0  # the median


@dataclass(frozen=True)
class About:
    """What a recording says of its host besides the events."""

    host: Host = field(default_factory=lambda: Host("bench", "synthetic", sysctls=_SYSCTLS))
    images: tuple[str, ...] = ()  # of containers, in which the processes are in turn; () none
    suspects: tuple[Suspect, ...] = ()  # of every process; () nobody looked


@dataclass(frozen=True)
class Made:
    """One column an attempt, sorted by the time at which its thread wants to connect (ns)."""

    pid: Ints
    tid: Ints
    dport: Ints
    host: Ints  # of the destination, 0 ...
    blocking: npt.NDArray[np.bool_]
    refused: npt.NDArray[np.bool_]
    dead: npt.NDArray[np.bool_]
    gate_ns: Ints  # 0: not held
    call_ns: Ints
    syn_ns: Ints
    end_ns: Ints


def make(plan: Plan) -> Made:
    """Return the attempts of `plan`."""
    random = np.random.default_rng(plan.seed)
    count = plan.attempts
    wanted = _START_NS + np.sort(random.uniform(0, plan.duration_s * 1e9, count)).astype(np.int64)
    process = random.integers(0, plan.processes, count)
    kind = random.random(count)
    dead = kind < 0.02
    took = (random.lognormal(np.log(plan.answer_ms * 1e6), 1.0, count)).astype(np.int64)
    took = np.where(dead, _GIVE_UP_NS, took)
    called = wanted.copy()
    for number in range(plan.throttled):
        mine = np.flatnonzero(process == number)
        # A queue with one place would only grow if every fiftieth took three seconds.
        dead[mine] &= random.random(len(mine)) < 0.02
        took[mine] = np.where(dead[mine], _GIVE_UP_NS, np.minimum(took[mine], 10_000_000))
        called[mine] = _through_one_slot(wanted[mine], took[mine] + 2 * _OVERHEAD_NS)
    host = np.where(dead, 0, _DEAD) + random.integers(0, np.where(dead, _DEAD, _DESTINATIONS))
    syn = called + _OVERHEAD_NS
    pid = 10_000 + 1000 * process
    return Made(
        pid=pid,
        tid=pid + random.integers(0, plan.threads, count),
        dport=np.array([80, 443, 389, 5432])[host % 4],
        host=host,
        blocking=random.random(count) < 2 / 3,
        refused=~dead & (kind < 0.06),
        dead=dead,
        gate_ns=np.where(called > wanted, wanted, 0),
        call_ns=called,
        syn_ns=syn,
        end_ns=syn + took,
    )


def _through_one_slot(wanted: Ints, service: Ints) -> Ints:
    # When each may go: not before it wants to, nor before the one in front of it is done.
    # begin[i] = max(wanted[i], begin[i-1] + service[i-1]), without a loop.
    before = np.cumsum(service) - service
    return np.maximum.accumulate(wanted - before) + before


def batches(made: Made) -> Iterator[Events]:
    """Yield all events of the attempts in order of time, a batch at once."""
    when, kind, row = _moments(made)
    order = np.argsort(when, kind="stable")
    for at in range(0, len(order), _BATCH):
        part = order[at : at + _BATCH]
        yield _records(made, when[part], kind[part], row[part])


def _moments(made: Made) -> tuple[Ints, Ints, Ints]:
    # (time, type, attempt) of every record.
    every = np.arange(len(made.pid))
    dead = np.flatnonzero(made.dead)
    returned = np.where(made.blocking, made.end_ns, made.syn_ns) + _OVERHEAD_NS
    parts = (
        (made.syn_ns, EventType.START, every),
        (made.syn_ns[dead] + _RESEND_NS, EventType.RETRANSMIT, dead),
        (made.end_ns, EventType.END, every),
        (returned, EventType.RETURN, every),
    )
    times = np.concatenate([time for time, _, _ in parts])
    kinds = np.repeat([int(kind) for _, kind, _ in parts], [len(rows) for _, _, rows in parts])
    return times, kinds, np.concatenate([rows for _, _, rows in parts])


def _records(made: Made, when: Ints, kind: Ints, row: Ints) -> Events:
    events = np.zeros(len(when), EVENT)
    events["time_ns"], events["type"] = when, kind
    events["pid"], events["tid"], events["uid"] = made.pid[row], made.tid[row], 1000
    events["cgroup"], events["fd"], events["family"] = 77, 5, 2
    events["sock"], events["start_ns"] = (
        np.uint64(_FIRST_SOCK) + (4096 * row).astype(np.uint64),
        made.syn_ns[row],
    )
    events["call_ns"], events["gate_ns"] = made.call_ns[row], made.gate_ns[row]
    events["gate_stack"] = events["connect_stack"] = -1
    events["dport"], events["daddr"] = made.dport[row], _addresses(1, made.host[row])
    has_port = np.isin(kind, (EventType.END, EventType.RETRANSMIT))
    events["sport"] = np.where(has_port, 32_768 + row % 28_000, 0)
    events["saddr"] = _addresses(0, np.where(kind == EventType.RETURN, -1, 0))
    events["comm"] = np.array([f"worker-{n}".encode() for n in range(32)])[made.tid[row] % 32]
    _set_results(events, made, row)
    return events


def _set_results(events: Events, made: Made, row: Ints) -> None:
    ended, returned = events["type"] == EventType.END, events["type"] == EventType.RETURN
    answered = ~(made.dead | made.refused)[row]
    blocking = made.blocking[row]
    events["newstate"][ended] = np.where(answered, _ESTABLISHED, _CLOSE)[ended]
    failed = np.where(made.refused, errno.ECONNREFUSED, 0)[row]
    events["error"][ended] = failed[ended]
    result = np.where(made.dead[row], -errno.EINTR, -failed)
    events["error"][returned] = np.where(blocking, result, -errno.EINPROGRESS)[returned]
    slept = np.where(blocking, Flag.SLEPT, 0)[returned]
    events["flags"][returned] = int(Flag.STREAM) | slept


def _addresses(network: int, host: Ints) -> npt.NDArray[np.void]:
    # 10.<network>.x.y, IPv4 mapped; all zero for a host below 0, which is not known.
    packed = np.zeros((len(host), 16), np.uint8)
    packed[:, 10:12], packed[:, 12], packed[:, 13] = 255, 10, network
    packed[:, 14], packed[:, 15] = host >> 8, (host & 0xFF) + 1
    packed[host < 0] = 0
    return packed.view("V16").reshape(-1)


def write(plan: Plan, path: Path, about: About | None = None) -> int:
    """Write the recording of `plan` and return how many events it has."""
    about, made = about or About(), make(plan)
    pids = np.unique(made.pid).tolist()
    known = {pid: _process(pid, about) for pid in pids}
    suspects = {pid: about.suspects for pid in pids if about.suspects}
    total = 0
    with path.open("wb") as file:
        writer = TraceWriter(file.write, header(about.host))
        watermark_ns = _START_NS
        for events in batches(made):
            total, watermark_ns = total + len(events), int(events["time_ns"][-1])
            writer.write(events, Beside(watermark_ns, _WALL_OFFSET_NS, known, suspects=suspects))
            known, suspects = {}, {}
        end = End(watermark_ns + 1_000_000)
        writer.write(np.empty(0, EVENT), Beside(end.end_ns, _WALL_OFFSET_NS, end=end))
        writer.close()
    return total


def header(host: Host) -> TraceHeader:
    """Return the header of a recording of `host`."""
    return TraceHeader(_START_NS, _WALL_OFFSET_NS, host, "synthetic")


def _process(pid: int, about: About) -> Process:
    number = pid // 1000
    inside = about.images and about.images[number % len(about.images)]
    known = Process(pid, 1, f"service-{number}", uid=1000, user="service")
    if not inside:
        return known
    return replace(known, container=f"{pid:012x}", container_name=f"{inside}-{pid}", image=inside)


def main() -> None:
    """Make what the command line asks for."""
    plan = Plan()
    parser = argparse.ArgumentParser(description="Make a synthetic recording.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-n", "--attempts", type=int, default=plan.attempts)
    parser.add_argument("--processes", type=int, default=plan.processes)
    parser.add_argument("--threads", type=int, default=plan.threads)
    parser.add_argument("--throttled", type=int, default=plan.throttled, help="processes, one slot")
    parser.add_argument("--duration", dest="duration_s", type=float, default=plan.duration_s)
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--answer", dest="answer_ms", type=float, default=plan.answer_ms)
    chosen = vars(parser.parse_args())
    output = chosen.pop("output")
    output.parent.mkdir(parents=True, exist_ok=True)
    total = write(Plan(**chosen), output)
    size = output.stat().st_size
    print(f"{output}: {chosen['attempts']} attempts, {total} events, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
