"""Connects that have nothing to do with anything else: so many a second to a listener of its own.

    python -m porttrace.lab.workloads.background --rate 2000 --seconds 60

Loopback only. It stops by itself after the time, and when its parent ends.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time

from porttrace.lab.throttles.child import die_with_parent

_NO_LINGER = struct.pack("ii", 1, 0)  # reset at close: no port stays behind in TIME_WAIT
_STEP_S = 0.005


def main() -> None:
    """Connect and close at the rate until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, required=True, help="connects a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    options = parser.parse_args()
    if options.parent:
        die_with_parent(options.parent)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        _connect(listener, options.rate, time.monotonic() + options.seconds)


def _connect(listener: socket.socket, rate: float, until_s: float) -> None:
    begun_s, made = time.monotonic(), 0
    while (now_s := time.monotonic()) < until_s:
        for _ in range(int((now_s - begun_s) * rate) - made):
            _one(listener)
            made += 1
        time.sleep(_STEP_S)


def _one(listener: socket.socket) -> None:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    client.close()
    server.close()


if __name__ == "__main__":
    main()
