"""A known workload of bind(2) and listen(2): prints what each call was for and how it ended.

One JSON object a line: call, protocol, addr, asked, got (null on failure), errno, options.
"""

import json
import socket
import time
from typing import Any

OPTIONS = {
    "reuseaddr": (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    "reuseport": (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    "v6only": (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
    "freebind": (socket.IPPROTO_IP, 15),
    "late_port": (socket.IPPROTO_IP, 24),
}
PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def made(protocol: str, address: str, *on: str) -> socket.socket:
    """Return a socket with these options on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, PROTOCOLS[protocol])
    for name in on:
        sock.setsockopt(*OPTIONS[name], 1)
    return sock


def tell(
    call: str, sock: socket.socket, address: str, port: int, *on: str, backlog: int = 0
) -> int:
    """Make the call, say how it ended, and return the port that the socket has."""
    number = 0
    try:
        sock.listen(backlog) if call == "listen" else sock.bind((address, port))
    except OSError as error:
        number = error.errno or 0
    got = sock.getsockname()[1]
    said: dict[str, Any] = {
        "call": call,
        "protocol": "tcp" if sock.type == socket.SOCK_STREAM else "udp",
        "addr": address,
        "port_asked": port,
        "port_got": None if number else got or None,
        "errno": number,
        "options": sorted(on),
        "backlog": backlog if call == "listen" else None,
    }
    print(json.dumps(said), flush=True)
    return int(got)


def patience_s() -> float:
    """Return how long we stay to be asked: longer on a machine that is emulated."""
    begun_s = time.monotonic()
    sum(range(1_000_000))
    return 0.3 + 20 * (time.monotonic() - begun_s)


def main() -> None:
    keep = []
    for protocol in PROTOCOLS:
        for address in ("127.0.0.1", "::1", "0.0.0.0", "::"):
            first = made(protocol, address)
            port = tell("bind", first, address, 0)
            if protocol == "tcp":
                tell("listen", first, address, port, backlog=7)
                tell("listen", first, address, port, backlog=9)
            second = made(protocol, address, "reuseaddr")
            tell("bind", second, address, port, *(["reuseaddr"]))
            keep += [first, second]
    options = made("tcp", "::", "reuseaddr", "reuseport", "v6only", "late_port")
    options.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    tell("bind", options, "::", 0, "reuseaddr", "v6only", "late_port")
    tell("bind", options, "::", 0, "reuseaddr", "v6only", "late_port")
    free = made("udp", "192.0.2.77", "freebind")
    tell("bind", free, "192.0.2.77", 0, "freebind")
    tell("bind", made("udp", "192.0.2.77"), "192.0.2.77", 0)
    unbound = made("tcp", "0.0.0.0")
    tell("listen", unbound, "0.0.0.0", 0, backlog=3)
    tell("bind", unbound, "0.0.0.0", 0)  # it has a port: EINVAL
    # Nobody but TCP and UDP counts, and no other family.
    socket.socket(socket.AF_UNIX).bind("\0porttrace-binds-workload")
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).bind(("127.0.0.1", 0))
    keep += [options, free, unbound]
    # What the kernel chose can be asked while the sockets are there.
    time.sleep(patience_s())


if __name__ == "__main__":
    main()
