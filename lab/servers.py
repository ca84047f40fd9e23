"""The servers of the lab: a web site, a directory and a database, small but real.

`Servers` runs them all as one child process on the server host and waits until they listen; the
child ends with its parent, however that ends. Run as a module, this file is that child.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from collections.abc import Awaitable, Callable

from porttrace.lab.hosts import Hosts
from porttrace.lab.peer import Peer, parse_and_bind, say_ready

HTTP_PORT, DIRECTORY_PORT, DATABASE_PORT = 80, 389, 5432
_BACKLOG = 1024
_BODY = b"hello from the lab\n"
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)

_Answer = Callable[[asyncio.StreamReader], Awaitable[bytes | None]]


class Servers(Peer):
    """Context manager: the servers listen inside of it; `delay_s` makes every answer slow."""

    def __init__(self, hosts: Hosts, delay_s: float = 0.0) -> None:
        super().__init__(hosts, "porttrace.lab.servers", "--delay", str(delay_s))


async def serve(delay_s: float) -> None:
    """Listen on all three ports over IPv4 and IPv6, say so on stdout, and serve for ever."""
    for port, answer in (
        (HTTP_PORT, _http_answer),
        (DIRECTORY_PORT, _directory_answer),
        (DATABASE_PORT, _database_answer),
    ):
        handler = functools.partial(_converse, answer, delay_s)
        await asyncio.start_server(handler, ["0.0.0.0", "::"], port, backlog=_BACKLOG)
    say_ready()
    await asyncio.Event().wait()


async def _converse(
    answer: _Answer, delay_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while (reply := await answer(reader)) is not None:
            await asyncio.sleep(delay_s)
            writer.write(reply)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client went away or speaks nonsense: nothing to tell it
    finally:
        writer.close()


async def _http_answer(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\r\n\r\n")
    return _RESPONSE


async def _directory_answer(reader: asyncio.StreamReader) -> bytes | None:
    line = await reader.readline()
    return b"welcome %s\n" % line.strip() if line else None


async def _database_answer(reader: asyncio.StreamReader) -> bytes | None:
    return await reader.readline() or None


def main() -> None:
    """Serve until killed, or until the process `--parent` dies."""
    parser = argparse.ArgumentParser(prog="porttrace.lab.servers", description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="before each answer")
    options = parse_and_bind(parser)
    asyncio.run(serve(options.delay))


if __name__ == "__main__":
    main()
