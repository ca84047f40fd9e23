"""The tracks of a Perfetto trace: each gets a number and is described before its first use."""

from collections.abc import Mapping

from porttrace.analysis import names
from porttrace.analysis.export.protobuf import integer, message, string
from porttrace.analysis.model import Process
from porttrace.analysis.tables import text

_MONOTONIC = 3
# One writer, so one sequence, whose number means nothing; times are of CLOCK_MONOTONIC.
_COMMON = integer(10, 1) + integer(58, _MONOTONIC)
_COUNT = 2  # CounterDescriptor.Unit.UNIT_COUNT


def packet(content: bytes) -> bytes:
    """Return one TracePacket, ready to be written: a trace is a run of them."""
    return message(1, _COMMON + content)


def event(time_ns: int, content: bytes) -> bytes:
    """Return the packet of a TrackEvent at `time_ns`."""
    return packet(integer(8, time_ns) + message(11, content))


class Tracks:
    """Numbers tracks from 1 on; `news` gives the descriptors that are not written yet."""

    def __init__(self, processes: Mapping[int, Process]) -> None:
        self._processes = processes
        self._known: dict[tuple[object, ...], int] = {}
        self._news: list[bytes] = []

    def news(self) -> bytes:
        """Return the descriptors of the tracks that were first asked for since the last call."""
        news, self._news = self._news, []
        return b"".join(news)

    def process(self, pid: int) -> int:
        """Return the track of a process."""
        known = self._processes.get(pid)
        called = " ".join(filter(None, (names.inside(known), known.comm))) if known else ""
        name = string(6, text(called)) if called else b""
        return self._track(("process", pid), 0, message(3, integer(1, pid) + name))

    def thread(self, pid: int, tid: int, lane: int, comm: str) -> int:
        """Return a track of a thread: lane 0 is its own, the others lie below it.

        Sockets that were connecting before the trace have no thread (tid 0).
        """
        key = ("thread", pid, tid, lane)
        if key in self._known:
            return self._known[key]
        if not tid:
            return self._track(key, self.process(pid), string(2, "older than the trace"))
        if lane:
            return self._track(key, self.thread(pid, tid, 0, comm), string(2, "more attempts"))
        names = integer(1, pid) + integer(2, tid) + string(5, comm)
        return self._track(key, self.process(pid), message(4, names))

    def counter(self, pid: int, name: str) -> int:
        """Return a track of a process that shows a count."""
        content = string(2, name) + message(8, integer(3, _COUNT))
        return self._track(("counter", pid, name), self.process(pid), content)

    def losses(self, cpu: int) -> int:
        """Return the track of what was lost on one CPU."""
        return self._track(("losses", cpu), 0, string(2, f"events lost on CPU {cpu}"))

    def _track(self, key: tuple[object, ...], parent: int, content: bytes) -> int:
        if key not in self._known:
            number = self._known[key] = len(self._known) + 1
            above = integer(5, parent) if parent else b""
            self._news.append(packet(message(60, integer(1, number) + above + content)))
        return self._known[key]
