"""The perf buffer, read from its mapped pages: whole rounds of records at once.

bcc's own reader calls back once a record, which costs more than all the rest of
the reading, and every call has to win Python's lock. Here a round is one copy per CPU.

    page 0        data pages (a power of two)
    head, tail -> | header 8 | size 4 | struct event | pad | header 8 | ...

Layout: struct perf_event_mmap_page and perf_event_header, include/uapi/linux/perf_event.h.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import select
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from porttrace.tracer.errors import NotPermittedError, PorttraceError
from porttrace.tracer.event import EVENT, Events, copied, together

_PAGE = mmap.PAGESIZE
_RING_BYTES, _TOTAL_BYTES = 4 << 20, 64 << 20
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_SOFTWARE, _BPF_OUTPUT, _SAMPLE_RAW = 1, 10, 1 << 10
_WATERMARK = 1 << 14  # bit of perf_event_attr: wake by bytes, not by records
_CLOEXEC = 8
_ENABLE = 0x2400
_HEAD = slice(1024, 1032)
_TAIL = slice(1032, 1040)
_RECORD_SAMPLE = 9
_NOTICE = struct.Struct("<IHH")  # type, misc, size: how every record begins
_AHEAD = 64  # records that are looked at together, more where nothing else comes in between
# header, the raw data's own size, then the record; perf rounds up to 8 bytes.
_RAW_OFFSET = _NOTICE.size + 4
_STRIDE = (_RAW_OFFSET + EVENT.itemsize + 7) // 8 * 8
_RECORD = np.dtype(
    {
        "names": ["type", "size", "event"],
        "formats": ["<u4", "<u2", EVENT],
        "offsets": [0, 6, _RAW_OFFSET],
        "itemsize": _STRIDE,
    }
)


def reasonable_pages(cpus: int) -> int:
    """Return pages per CPU: 4 MiB, a tenth of a second at 250,000 events/s, or less."""
    pages = min(_RING_BYTES, _TOTAL_BYTES // max(cpus, 1)) // _PAGE
    return int(max(1 << (max(pages, 16).bit_length() - 1), 16))


def online_cpus(listing: Path = Path("/sys/devices/system/cpu/online")) -> list[int]:
    """Return the numbers of the CPUs that are online."""
    cpus: list[int] = []
    for part in listing.read_text().strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


class PerfBuffer:
    """One ring of `pages` (0: reasonably many) per online CPU.

    `connect(cpu, fd)` tells the kernel program where to write. `at_once`: every record wakes who
    waits, not a quarter of a ring.

    Raises NotPermittedError or PorttraceError when a ring cannot be made.
    """

    def __init__(
        self, pages: int, connect: Callable[[int, int], None], at_once: bool = False
    ) -> None:
        self._rings: list[_Ring] = []
        self._poll = select.poll()
        self._woken = -1
        try:
            self._woken = os.eventfd(0)
            self._poll.register(self._woken, select.POLLIN)
            cpus = online_cpus()
            for cpu in cpus:
                ring = _Ring(cpu, pages or reasonable_pages(len(cpus)), at_once)
                self._rings.append(ring)
                self._poll.register(ring.fd, select.POLLIN)
                connect(cpu, ring.fd)
        except BaseException:
            self.close()
            raise

    def wait(self, timeout_ms: int) -> bool:
        """Wait until a ring is a quarter full or (`at_once`) not empty, at most `timeout_ms`.

        Return whether one is, or somebody called `wake`.
        """
        with contextlib.suppress(InterruptedError):
            return bool(self._poll.poll(timeout_ms))
        return False

    def wake(self) -> None:
        """Let whoever waits go on, now and from now on."""
        os.eventfd_write(self._woken, 1)

    def read(self) -> Events:
        """Return every record there is: each CPU's in order, CPU after CPU."""
        parts = [part for ring in self._rings for part in decode(ring.peek())]
        events = copied(parts[0]) if len(parts) == 1 else together(parts)
        for ring in self._rings:
            ring.advance()
        return events

    def close(self) -> None:
        """Unmap and close every ring."""
        for ring in self._rings:
            ring.close()
        self._rings = []
        if self._woken >= 0:
            os.close(self._woken)
        self._woken = -1


def decode(data: bytes | memoryview) -> Iterator[Events]:
    """Yield the records in the bytes of one ring, a run at a time; they are those bytes, no copy.

    Anything else in between (notices of loss: the exact count is kept in the kernel)
    is stepped over; a record that is cut or damaged ends the round.
    """
    offset, ahead = 0, _AHEAD
    while offset + _NOTICE.size <= len(data):
        kind, _, size = _NOTICE.unpack_from(data, offset)
        if kind != _RECORD_SAMPLE or size != _STRIDE:
            if size < _NOTICE.size:
                return
            offset += size
            ahead = _AHEAD
            continue
        run = _run(data, offset, ahead)
        if not len(run):
            return
        yield run
        offset += len(run) * _STRIDE
        # A few at first: whatever comes in between, no byte is looked at often.
        ahead *= 4


def _run(data: bytes | memoryview, offset: int, most: int) -> Events:
    count = min((len(data) - offset) // _STRIDE, most)
    run = np.frombuffer(data, _RECORD, count, offset)
    fits = (run["type"] == _RECORD_SAMPLE) & (run["size"] == _STRIDE)
    length = count if fits.all() else int(np.argmin(fits))
    return run["event"][:length]


class _Ring:
    def __init__(self, cpu: int, pages: int, at_once: bool) -> None:
        self._size = pages * _PAGE
        self.fd = _open_ring(cpu, 1 if at_once else self._size // 4)
        try:
            self._map = mmap.mmap(self.fd, _PAGE + self._size)
        except OSError as error:
            os.close(self.fd)
            raise PorttraceError(
                f"cannot map {pages} pages for the perf buffer of CPU {cpu}: {error.strerror}",
                "raise the limit of locked memory (ulimit -l unlimited)",
            ) from None
        self._head = 0  # up to where was peeked
        self._barrier = threading.Lock()
        self._barrier.acquire()
        fcntl.ioctl(self.fd, _ENABLE, 0)

    def peek(self) -> bytes | memoryview:
        """Return what lies between tail and head, in one piece, good until `advance`."""
        (head,) = struct.unpack("<Q", self._map[_HEAD])
        (tail,) = struct.unpack("<Q", self._map[_TAIL])
        self._head = head
        if head == tail:
            return b""
        self._keep_order()
        begin, end = tail % self._size, head % self._size
        if begin < end:
            return memoryview(self._map)[_PAGE + begin : _PAGE + end]
        return self._map[_PAGE + begin :] + self._map[_PAGE : _PAGE + end]

    def advance(self) -> None:
        """Let the kernel have the room of what was peeked."""
        self._keep_order()
        self._map[_TAIL] = struct.pack("<Q", self._head)

    def _keep_order(self) -> None:
        # Data is not read before head, nor after tail is written: a release and an acquire.
        self._barrier.release()
        self._barrier.acquire()

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


_PARANOID = 2  # the highest level that Linux itself knows


def _open_ring(cpu: int, watermark: int) -> int:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise PorttraceError(
            f"porttrace does not know {platform.machine()}", "it runs on x86_64 and aarch64"
        )
    # type, size, config, sample_period, sample_type, read_format, flags, wakeup, bp_type, ...
    attr = struct.pack(
        "<IIQQQQQII40x", _SOFTWARE, 96, _BPF_OUTPUT, 1, _SAMPLE_RAW, 0, _WATERMARK, watermark, 0
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, attr, -1, cpu, -1, _CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise NotPermittedError(
            f"cannot open a perf buffer on CPU {cpu}: {os.strerror(code)}",
            _hint(),
        )
    return fd


def _hint(paranoid: Path = Path("/proc/sys/kernel/perf_event_paranoid")) -> str:
    # Debian's and Ubuntu's kernels know a level 3 and more, with which CAP_PERFMON is not enough.
    with contextlib.suppress(OSError, ValueError):
        if int(paranoid.read_text()) > _PARANOID:
            return (
                "with kernel.perf_event_paranoid above 2 this kernel may ask for CAP_SYS_ADMIN: "
                "give that, too, or run 'sudo sysctl -w kernel.perf_event_paranoid=2'"
            )
    return "run porttrace with sudo; it needs CAP_PERFMON or CAP_SYS_ADMIN"
