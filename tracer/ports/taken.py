"""Who has the ports of a range: what a bind to any port wants to know when it finds none."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from porttrace.tracer import diag
from porttrace.tracer.ports import socks
from porttrace.tracer.ports.overlap import overlaps
from porttrace.tracer.ports.owners import owners
from porttrace.tracer.ports.socks import Sock

_MOST_NAMED = 3
_UNKNOWN = "by processes that cannot be seen"


def taken(
    protocol: str, address: str, first: int, last: int, v6only: bool = False
) -> tuple[int, str]:
    """Return how many ports from `first` to `last` are taken for `address`, and by whom in words.

    In the network namespace of the calling thread: `9 by web (pid 7), 3 in TIME_WAIT`. The name of
    a process is raw. Raises PorttraceError.
    """
    found = [
        sock
        for sock in socks.dump(protocol, ports=(first, last))
        if overlaps(sock, address, v6only)
    ]
    return len({sock.sport for sock in found}), _in_words(_by_whom(found))


# A port that several have counts for each of them.
def _by_whom(found: Iterable[Sock]) -> Counter[str]:
    having = owners(sock.inode for sock in found)
    ports: dict[str, set[int]] = {}
    names: dict[int, str] = {}
    for sock in found:
        whose = having.first(sock.inode)
        if whose:
            word = names.setdefault(whose.pid, f"by {_comm(whose.pid)} (pid {whose.pid})")
        elif sock.inode:
            word = _UNKNOWN
        else:
            word = f"in {diag.STATES[sock.state]}"
        ports.setdefault(word, set()).add(sock.sport)
    return Counter({word: len(each) for word, each in ports.items()})


def _in_words(number: Counter[str]) -> str:
    most = number.most_common()
    told = [f"{count} {word}" for word, count in most[:_MOST_NAMED]]
    rest = sum(count for _, count in most[_MOST_NAMED:])
    return ", ".join([*told, *([f"{rest} by others"] if rest else [])])


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="surrogateescape").rstrip("\n")
    except OSError:
        return "a process that ended"
