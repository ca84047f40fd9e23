"""What a program did after its bind or listen failed: another port, the same later, or its end."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from porttrace.analysis.model import Binds, Trace

GAVE_UP_NS = 5_000_000_000
"""A program that ends so soon after its failure ended because of it."""
SOON_NS = 1_000_000_000
"""Who has its port so soon after all was not kept from it."""
NEAR = 10
"""So far from the port that failed lies one that is taken in its place, at most."""


@dataclass(frozen=True)
class After:
    """What came after calls that failed alike; all as far as the trace saw it."""

    got_it_s: float | None = None  # seconds from the first failure until it had the port
    other: int = 0  # the port that it took instead
    gave_up: bool = False  # it ended soon, and did nothing else before
    runs_on: bool = False  # it did other things, or was there long after

    @property
    def is_harmless(self) -> bool:
        """Whether it had this port, or one in its place, at once."""
        return bool(self.other) or (self.got_it_s is not None and self.got_it_s * 1e9 < SOON_NS)


def after(trace: Trace, rows: Binds) -> After:
    """Return what the program did after the calls `rows`, which failed alike."""
    last = rows[-1]
    mine = _of_its_kind(trace.binds, last)
    got_it_s = _had_it(mine, rows)
    if got_it_s is not None:
        return After(got_it_s)
    other = _instead(mine, last)
    if other:
        return After(other=other)
    ended_ns = trace.exits.get(int(last["pid"]), 0) or trace.end_ns + 1
    since_ns = ended_ns - int(last["time_ns"])
    acts = _acts(trace, last)
    gone = ended_ns <= trace.end_ns
    return After(
        gave_up=gone and 0 <= since_ns < GAVE_UP_NS and not acts,
        runs_on=acts or since_ns >= GAVE_UP_NS,
    )


# The later calls of the same kind by the same program, good or not.
def _of_its_kind(binds: Binds, last: np.void) -> Binds:
    later = binds[binds["time_ns"] > last["time_ns"]]
    for name in ("call", "protocol", "netns", "comm", "uid"):
        later = later[later[name] == last[name]]
    return np.asarray(later)


def _had_it(mine: Binds, rows: Binds) -> float | None:
    last = rows[-1]
    same = mine[(mine["errno"] == 0) & (mine["port_asked"] == last["port_asked"])]
    same = same[_equal(same["addr"], last["addr"])]
    if not len(same) or not last["port_asked"]:
        return None
    return (int(same["time_ns"][0]) - int(rows["time_ns"][0])) / 1e9


# Whoever looks for a free port asks for one near by next, at the same address, until it has one.
# Other ports of the same program are no replacement.
def _instead(mine: Binds, last: np.void) -> int:
    before = last
    for row in mine[mine["tid"] == last["tid"]]:
        near = abs(int(row["port_asked"]) - int(before["port_asked"])) <= NEAR
        soon = row["time_ns"] - before["time_ns"] < SOON_NS
        if not (near and soon and row["addr"].tobytes() == last["addr"].tobytes()):
            return 0
        if not row["errno"]:
            return int(row["port_got"])
        before = row
    return 0


def _acts(trace: Trace, last: np.void) -> bool:
    binds, attempts = trace.binds, trace.columns
    served = (binds["pid"] == last["pid"]) & (binds["time_ns"] > last["time_ns"])
    called = (attempts["pid"] == last["pid"]) & (attempts["call_ns"] > last["time_ns"])
    return bool((served & (binds["errno"] == 0)).any() or called.any())


def _equal(addresses: npt.NDArray[np.void], one: np.void) -> npt.NDArray[np.bool_]:
    halves = np.ascontiguousarray(addresses).view("<u8").reshape(-1, 2)
    wanted = np.frombuffer(one.tobytes(), "<u8")
    same: npt.NDArray[np.bool_] = (halves == wanted).all(axis=1)
    return same
