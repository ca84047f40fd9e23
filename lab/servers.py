"""The servers of the lab: a web site, a directory and a database, small but real.

`Servers` runs them all as one child process on the server host and waits until they listen; the
child ends with its parent, however that ends. Run as a module, this file is that child.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType

from porttrace.lab.errors import LabError
from porttrace.lab.hosts import Hosts
from porttrace.lab.throttles.child import die_with_parent

HTTP_PORT, DIRECTORY_PORT, DATABASE_PORT = 80, 389, 5432
_BACKLOG = 1024
_READY = b"ready\n"
_BODY = b"hello from the lab\n"
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)

_Answer = Callable[[asyncio.StreamReader], Awaitable[bytes | None]]


class Servers:
    """Context manager: the servers listen inside of it; `delay_s` makes every answer slow."""

    def __init__(self, hosts: Hosts, delay_s: float = 0.0) -> None:
        self._hosts = hosts
        self._delay_s = delay_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id of the running servers."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Servers:
        self._process = process = subprocess.Popen(
            self._hosts.in_server(
                [
                    *(sys.executable, "-m", "porttrace.lab.servers"),
                    *("--delay", str(self._delay_s), "--parent", str(os.getpid())),
                ]
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        if process.stdout.readline() != _READY:
            self._stop()
            raise LabError(
                f"the lab's servers did not start (exit status {process.returncode})",
                "their own message stands above; are their ports free on the server host?",
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


async def serve(delay_s: float) -> None:
    """Listen on all three ports over IPv4 and IPv6, say so on stdout, and serve for ever."""
    for port, answer in (
        (HTTP_PORT, _http_answer),
        (DIRECTORY_PORT, _directory_answer),
        (DATABASE_PORT, _database_answer),
    ):
        handler = functools.partial(_converse, answer, delay_s)
        await asyncio.start_server(handler, ["0.0.0.0", "::"], port, backlog=_BACKLOG)
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
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
    parser.add_argument("--parent", type=int, required=True, metavar="PID", help="die with it")
    options = parser.parse_args()
    die_with_parent(options.parent, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workload; the parent ends this
    asyncio.run(serve(options.delay))


if __name__ == "__main__":
    main()
