"""Tells whether a socket, known by its inode, is in SYN_SENT.

/proc/PID/net/tcp answers for any namespace but walks the kernel's whole hash table (over 1 ms on a
machine with much memory), too slow to ask a thousand times a second. So it is read only for sockets
not seen before, once per round for all of them; from then on sock_diag's exact lookup answers.
"""

from __future__ import annotations

import re
import socket
import struct
from pathlib import Path

from porttrace.tracer import diag

_ROW = re.compile(rb"^ *\d+: ([0-9A-F:]+) ([0-9A-F:]+) 02 \S+ \S+ \S+ +\d+ +\d+ (\d+)", re.M)


class SynSent:
    """Answers for the sockets of one gate; remembers the addresses of those seen in SYN_SENT."""

    def __init__(self) -> None:
        self._netns = _netns("self")
        self._diag = _open_diag()
        self._ids: dict[int, bytes] = {}
        self._tables: dict[tuple[int, int], dict[int, bytes]] = {}

    def close(self) -> None:
        """Close the sock_diag socket."""
        if self._diag is not None:
            self._diag.close()

    def start_round(self) -> None:
        """Forget the tables: what is asked from now on is seen as of now or later."""
        self._tables.clear()

    def has(self, pid: int, family: int, inode: int) -> bool:
        """Tell whether the socket `inode` of process `pid` is in SYN_SENT, as of this round."""
        found = self._by_lookup(family, inode) if inode in self._ids else None
        if found is None:
            found = self._by_table(pid, family, inode)
        if not found:
            self._ids.pop(inode, None)
        return found

    def _by_table(self, pid: int, family: int, inode: int) -> bool:
        netns = _netns(str(pid))
        rows = self._tables.get((netns, family))
        if rows is None:
            rows = self._tables[netns, family] = _read_table(pid, family)
        if inode not in rows:
            return False
        if self._diag is not None and netns == self._netns:
            self._ids[inode] = rows[inode]
        return True

    # None where the kernel gives no clear answer: then the table decides.
    def _by_lookup(self, family: int, inode: int) -> bool | None:
        assert self._diag is not None
        try:
            reply = diag.one(self._diag, family, self._ids[inode])
        except OSError:
            return None
        if reply is None:
            return None
        *_, found = diag.SOCKET.unpack_from(reply, diag.SOCKET_AT)
        return bool(found == inode and reply[diag.STATE_AT] == diag.SYN_SENT)


def _open_diag() -> socket.socket | None:
    try:
        return diag.opened(timeout_s=0.1)
    except OSError:
        return None


def _netns(pid: str) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


# Returns inode -> ports and addresses in the layout of struct inet_diag_sockid.
def _read_table(pid: int, family: int) -> dict[int, bytes]:
    name = "tcp6" if family == socket.AF_INET6 else "tcp"
    try:
        table = Path(f"/proc/{pid}/net/{name}").read_bytes()
    except OSError:
        return {}
    return {int(m[3]): _socket_id(m[1].decode(), m[2].decode()) for m in _ROW.finditer(table)}


def _socket_id(local: str, remote: str) -> bytes:
    (saddr, sport), (daddr, dport) = (end.split(":") for end in (local, remote))
    ports = struct.pack("!HH", int(sport, 16), int(dport, 16))
    return ports + _address(saddr) + _address(daddr)


# The table prints an address as 32-bit words of this machine's byte order.
def _address(text: str) -> bytes:
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return struct.pack(f"={len(words)}I", *words).ljust(16, b"\0")
