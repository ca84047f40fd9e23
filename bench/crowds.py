"""Trials with crowds: of processes, of network namespaces, of tracers.

Each returns a figure for its line, and raises FaultError; bench/faults.py runs them.
"""

import time
from collections.abc import Callable

from trialkit import (
    Bench,
    all_attempts,
    at_once,
    begun,
    entering,
    group,
    over,
    require,
)

from porttrace.analysis import load

_PYTHON = "/usr/bin/python3"

# Each process makes two, so many times over, waits for them and connects.
_BOMB = """
import os, socket, sys
def burst(depth):
    for _ in range(2 if depth else 0):
        if not os.fork():
            burst(depth - 1)
            os._exit(0)
    while depth:
        try:
            os.wait()
        except ChildProcessError:
            break
    assert socket.socket().connect_ex(("127.0.0.1", 9)) == 111
burst(int(sys.argv[1]))
"""


def fork_bomb(bench: Bench, depth: int = 10) -> str:
    """Processes double until there are 2,047: each connect is there, by its own pid."""
    path, limit, wanted = bench.path(), {"pids.max": "2200"}, 2 ** (depth + 1) - 1
    with group("pids", limit, limit) as procs:
        words = ("record", "-o", str(path), "--", _PYTHON, "-c", _BOMB, str(depth))
        with begun(*words, before=entering(procs)) as process:
            over(process, 120)
    told = all_attempts(path, wanted)
    found = load(path)
    rows, lost = found.trace.attempts, found.trust.lost_events
    pids = len(set(rows["pid"].tolist()))
    require(lost or pids == wanted, f"{len(rows)} attempts of {pids} processes")
    return told


def ten_at_once(bench: Bench, tracers: int = 10) -> str:
    """Ten recordings of one storm: each has all of it."""
    connects, paths = 20_000, [bench.path() for _ in range(tracers)]
    at_once(bench, paths, connects)
    lost = 0
    for path in paths:
        told = all_attempts(path, connects)
        lost = max(lost, load(path).trust.lost_events)
    return f"{told}; {lost:,} lost by the one that lost most"


_NAMESPACES = """
import ctypes, fcntl, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
wait, go = os.pipe()
done, tell = os.pipe()
number = int(sys.argv[1])
for _ in range(number):
    if os.fork():
        continue
    os.close(go)
    assert not libc.unshare(0x40000000), ctypes.get_errno()  # CLONE_NEWNET
    s = socket.socket()
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    assert s.connect_ex(("127.0.0.1", 9)) == 111
    os.write(tell, b".")
    os.read(wait, 1)  # until all are there
    os._exit(0)
os.close(wait)
for _ in range(number):
    os.read(done, 1)
time.sleep(1 + number / 1000)  # of one that is gone nobody can say in which it was
os.close(go)
for _ in range(number):
    assert os.wait()[1] == 0
"""


def many_namespaces(bench: Bench, number: int = 1000) -> str:
    """So many network namespaces at once, a connect in each: all of them are there."""
    path, begun_s = bench.path(), time.monotonic()
    command = (_PYTHON, "-c", _NAMESPACES, str(number))
    with begun("record", "-o", str(path), "--", *command) as process:
        over(process, 180)
    told = all_attempts(path, number)
    found = load(path)
    pids = set(found.trace.attempts["pid"].tolist())
    spaces = {found.trace.processes[pid].netns for pid in pids}
    require(found.trust.lost_events or len(pids) == number, "pids were mixed up")
    require(found.trust.lost_events or len(spaces) == number, f"{len(spaces)} namespaces")
    return f"{told}, in {time.monotonic() - begun_s:.0f} s"


TRIALS: tuple[Callable[..., str], ...] = (fork_bomb, ten_at_once, many_namespaces)
