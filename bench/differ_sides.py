"""What strace, tcpdump and ss tell of connects, each by itself: text in, records out."""

import errno
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ABORTED = "aborted"
_AFTER_SIGNAL = 512  # ERESTARTSYS: the call begins again, or the program sees EINTR
_GOES_ON = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR, _AFTER_SIGNAL)
# Mistakes in the call itself: nobody was to be reached.
_MISTAKES = (errno.EFAULT, errno.EINVAL, errno.EAFNOSUPPORT)


@dataclass(frozen=True)
class Call:
    """One system call as strace saw it; `number` is its errno, `value` what it returned, or -1."""

    at_s: float
    end_s: float
    tid: int
    name: str
    words: str
    number: int
    value: int
    inode: int  # of the socket it was about, 0 none

    @property
    def there(self) -> tuple[str, int] | None:
        """The address and port in its arguments."""
        return _there(self.words)


@dataclass
class Expected:
    """One attempt, made up from the calls about its socket."""

    pid: int
    tid: int
    inode: int
    daddr: str
    dport: int
    calls: list[Call] = field(default_factory=list)
    sport: int = 0
    result: int | None = None  # errno, 0 established, None: it was still connecting
    asked: bool = True  # False where the result was never asked for

    def __str__(self) -> str:
        said = ", ".join(f"{c.name} {c.number or c.value} at {c.at_s:.6f}" for c in self.calls)
        return (f"pid {self.pid} tid {self.tid} socket {self.inode} port {self.sport} to "
                f"{self.daddr} {self.dport}: {said}; result {self.result}")  # fmt: skip


# -- strace ----------------------------------------------------------------------------------

_LINE = re.compile(r"(\d+\.\d+) (\w+)\((.*)\)\s+= (\?|-?\w+)(.*?)(?: <(\d+\.\d+)>)?$")
_CUT = re.compile(r"(\d+\.\d+) (\w+)\((.*?)(?: <unfinished \.\.\.>)?\)?\s+= \?$")
_V4 = re.compile(r'sa_family=AF_INET, sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)')
_V6 = re.compile(r'sa_family=AF_INET6, sin6_port=htons\((\d+)\),.*inet_pton\(AF_INET6, "([^"]+)"')
_SOCKET = re.compile(r"\d+<socket:\[(\d+)\]>")


def _there(words: str) -> tuple[str, int] | None:
    found = _V4.search(words) or _V6.search(words)
    return (plain(found[2]), int(found[1])) if found else None


def plain(address: str) -> str:
    """Return an address as everybody writes it; IPv4 in IPv6 as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip)


def calls(prefix: Path) -> tuple[list[Call], dict[int, int]]:
    """Return the calls of all threads in the order of their beginnings, and tid -> pid."""
    found: list[Call] = []
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        tid = int(path.name.rpartition(".")[2])
        lines = path.read_text(errors="replace").splitlines()
        found += [call for line in lines if (call := _call(tid, line))]
    found.sort(key=lambda call: call.at_s)
    return found, _pids(found)


def _call(tid: int, line: str) -> Call | None:
    match = _LINE.match(line) or _CUT.match(line)
    if not match:
        return None
    at_s, name, words = float(match[1]), match[2], match[3]
    returned, more, took = (*match.groups()[3:], None, None, None)[:3]
    number = re.search(r"\bE[A-Z0-9]+\b", more or "") if returned in ("-1", "?") else None
    sock = _SOCKET.match(words) or (_SOCKET.match(f"{returned}{more}") if more else None)
    return Call(
        at_s, at_s + float(took or 0), tid, name, words,
        _AFTER_SIGNAL if number and number[0].startswith("ERESTART")
        else getattr(errno, number[0]) if number else 0,
        int(returned) if returned and re.fullmatch(r"-?\d+", returned) else -1,
        int(sock[1]) if sock else 0,
    )  # fmt: skip


def _pids(found: Iterable[Call]) -> dict[int, int]:
    threads = {
        call.value: call.tid
        for call in found
        if call.name in ("clone", "clone3") and "CLONE_THREAD" in call.words and call.value > 0
    }
    pids = {}
    for tid in {call.tid for call in found}:
        pid = tid
        while pid in threads:
            pid = threads[pid]
        pids[tid] = pid
    return pids


class _Sock:
    # One socket: what state its calls have brought it to.
    def __init__(self) -> None:
        self.is_tcp = self.defers = False
        self.state = "idle"  # deferred, connecting, connected, erred
        self.now: Expected | None = None


class Story:
    """Makes attempts from calls: by socket, since several calls may be about one attempt."""

    def __init__(self, pids: dict[int, int]) -> None:
        self._pids, self._socks = pids, dict[int, _Sock]()
        self.attempts: list[Expected] = []
        self.others = 0  # connects that are no TCP attempts

    def add(self, call: Call) -> None:
        """Add the next call."""
        if call.name == "socket" and call.inode:
            sock = self._socks[call.inode] = _Sock()
            sock.is_tcp = "AF_INET" in call.words and "SOCK_STREAM" in call.words
        sock = self._socks.get(call.inode) or _Sock()
        handler = getattr(self, f"_{call.name}", None)
        if handler:
            handler(call, sock)

    def _connect(self, call: Call, sock: _Sock) -> None:
        if not sock.is_tcp:
            self.others += 1
        elif "AF_UNSPEC" in call.words:
            sock.state = "idle"
        elif sock.state in ("connecting", "erred") and sock.now:
            self._again(call, sock, sock.now)
        elif sock.state == "idle" and call.number not in _MISTAKES:
            self._begin(call, sock)

    def _begin(self, call: Call, sock: _Sock) -> None:
        there = call.there
        if not there:
            return
        sock.now = Expected(self._pids[call.tid], call.tid, call.inode, *there, [call])
        self.attempts.append(sock.now)
        if call.number in _GOES_ON or (call.value == -1 and not call.number):
            sock.state = "connecting"
        elif call.number:
            sock.now.result = call.number
        elif sock.defers:
            sock.state = "deferred"
        elif call.name == "connect":
            sock.state, sock.now.result = "connected", 0
        else:
            sock.state = "connecting"

    def _again(self, call: Call, sock: _Sock, now: Expected) -> None:
        now.calls.append(call)
        if call.number in _GOES_ON:
            return
        if call.number == errno.ECONNABORTED:
            sock.state = "idle"
        elif call.number in (0, errno.EISCONN):
            sock.state, now.result = "connected", 0
        else:
            sock.state, now.result = "idle", call.number

    def _sendto(self, call: Call, sock: _Sock) -> None:
        if sock.is_tcp and "MSG_FASTOPEN" in call.words and sock.state == "idle":
            self._begin(call, sock)
        elif sock.state == "deferred" and sock.now:
            sock.now.calls.append(call)
            sock.state = "idle" if call.number else "connecting"
            sock.now.result = call.number or None

    def _setsockopt(self, call: Call, sock: _Sock) -> None:
        if "TCP_FASTOPEN_CONNECT" in call.words and not call.number:
            sock.defers = True

    def _getsockopt(self, call: Call, sock: _Sock) -> None:
        found = re.search(r"SO_ERROR, \[(\w+)\]", call.words)
        if found and sock.state == "connecting" and sock.now:
            sock.now.result = int(found[1]) if found[1].isdigit() else getattr(errno, found[1])
            sock.state = "erred" if sock.now.result else "connected"

    def _getsockname(self, call: Call, sock: _Sock) -> None:
        there = call.there
        if sock.now and there and not sock.now.sport:
            sock.now.sport = there[1]

    def _shutdown(self, call: Call, sock: _Sock) -> None:
        if sock.state == "connecting" and not call.number:
            sock.state = "idle"


def expected(prefix: Path) -> tuple[list[Expected], int]:
    """Return the attempts that strace's files tell of, and how many other connects."""
    found, pids = calls(prefix)
    story = Story(pids)
    for call in found:
        story.add(call)
    return story.attempts, story.others


# -- tcpdump ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Syn:
    """One SYN on its way out."""

    at_s: float
    sport: int
    daddr: str
    dport: int


# Of loopback libpcap gives what comes in alone, of other devices what goes out is wanted.
_SYN = re.compile(
    r"(\d+\.\d+) (?:lo +In |(?!lo )\S+ +Out) +IP6? (\S+)\.(\d+) > (\S+)\.(\d+): Flags \[S[EW]*\]"
)


def syns(text: str) -> list[Syn]:
    """Return the SYNs that tcpdump -tt printed."""
    found = map(_SYN.match, text.splitlines())
    return [Syn(float(m[1]), int(m[3]), plain(m[4]), int(m[5])) for m in found if m]


# -- ss --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """One look of ss at the sockets in SYN_SENT, between two times."""

    begin_s: float
    end_s: float
    sockets: frozenset[tuple[int, str, int]]  # local port, and where to
    inodes: dict[tuple[int, str, int], int] = field(hash=False, default_factory=dict)


_WAITING = re.compile(r"\d+\s+\d+\s+(\S+):(\d+)\s+(\S+):(\d+)\s(.*)")
LOOKS = 'while :; do date +"at %s.%N"; ss -Htne state syn-sent; date +"to %s.%N"; sleep 0.04; done'
"""What a shell has to run for `looks`."""


def looks(text: str) -> Iterator[Look]:
    """Yield what the shell of LOOKS printed."""
    begin_s, rows = 0.0, {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        match = _WAITING.match(line.strip())
        if word == "at":
            begin_s, rows = float(rest), {}
        elif word == "to" and begin_s:
            yield Look(begin_s, float(rest), frozenset(rows), rows)
        elif match:
            inode = re.search(r"\bino:(\d+)", match[5])
            where = plain(match[3].strip("[]"))
            rows[int(match[2]), where, int(match[4])] = int(inode[1]) if inode else 0
