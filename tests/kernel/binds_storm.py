"""Binds that fail, so many a second for so long: binds_storm.py RATE SECONDS PORTS.

Every port is held by a listener of ours. Prints how many calls failed.
"""

import socket
import sys
import time

_PACE_S = 0.01


def main(rate: int, seconds: float, ports: int) -> None:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(ports)]
    names = [each.getsockname() for each in held]
    failed, begun_s = 0, time.monotonic()
    while (since_s := time.monotonic() - begun_s) < seconds:
        for _ in range(int(min(since_s, seconds) * rate) - failed):
            with socket.socket() as sock:
                try:
                    sock.bind(names[failed % ports])
                except OSError:
                    failed += 1
        time.sleep(_PACE_S)
    print(failed)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
