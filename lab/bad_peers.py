"""Servers that behave badly without throttling anybody, for the lab's controls.

resolver    a name server on UDP 53 that answers late, each question by itself
full-queue  a server that accepts one connection at a time and too late: its queue is full
            (with --backlog: room for so many more)
restarting  a server that goes away for a second, again and again: attempts are refused then
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import time
from typing import cast

from porttrace.lab.hosts import SERVER_V4
from porttrace.lab.peer import parse_and_bind, say_ready

FULL_PORT, RESTARTING_PORT, DNS_PORT = 8082, 8081, 53
_UP_S, _DOWN_S = 1.5, 1.0
_A_RECORD, _ANSWER_FLAGS, _TTL_S = 1, 0x8180, 0


class Resolver(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address by the server's, late; others by nothing."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to send the answers."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question later; meanwhile others may come."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        loop.call_later(self._delay_s, self._transport.sendto, answer(data), addr)


def answer(question: bytes) -> bytes:
    """Return the answer to a DNS question: the server's address where one for IPv4 is asked."""
    end = question.index(b"\0", 12) + 5  # behind the name: its type and class
    kind = struct.unpack_from("!H", question, end - 4)[0]
    records = b""
    if kind == _A_RECORD:
        head = struct.pack("!HHHIH", 0xC00C, _A_RECORD, 1, _TTL_S, 4)
        records = head + socket.inet_aton(SERVER_V4)
    counts = struct.pack("!HHHHH", _ANSWER_FLAGS, 1, int(bool(records)), 0, 0)
    return question[:2] + counts + question[12:end] + records


async def resolve(delay_s: float) -> None:
    """Serve names for ever."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Resolver(delay_s), local_addr=(SERVER_V4, DNS_PORT))
    say_ready()
    await asyncio.Event().wait()


def accept_late(delay_s: float, backlog: int) -> None:
    """Accept one connection every `delay_s`, with a queue of `backlog`, for ever."""
    with socket.create_server(("", FULL_PORT), backlog=backlog) as server:
        say_ready()
        while True:
            time.sleep(delay_s)
            server.accept()[0].close()


def restart() -> None:
    """Listen for a while, go away for a second, and so on for ever."""
    ready = False
    while True:
        with socket.create_server(("", RESTARTING_PORT), backlog=1024) as server:
            if not ready:
                say_ready()
                ready = True
            _accept_until(server, time.monotonic() + _UP_S)
        time.sleep(_DOWN_S)


def _accept_until(server: socket.socket, end_s: float) -> None:
    while (left_s := end_s - time.monotonic()) > 0:
        server.settimeout(left_s)
        try:
            server.accept()[0].close()
        except OSError:
            continue


def main() -> None:
    """Serve badly until killed, or until the parent dies."""
    parser = argparse.ArgumentParser(prog="porttrace.lab.bad_peers", description=__doc__)
    parser.add_argument("role", choices=("resolver", "full-queue", "restarting"))
    parser.add_argument("--delay", type=float, default=0.5, metavar="S")
    parser.add_argument("--backlog", type=int, default=1, metavar="N")
    options = parse_and_bind(parser)
    if options.role == "resolver":
        asyncio.run(resolve(options.delay))
    elif options.role == "full-queue":
        accept_late(options.delay, options.backlog)
    else:
        restart()


if __name__ == "__main__":
    main()
