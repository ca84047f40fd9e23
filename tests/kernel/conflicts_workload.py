"""Makes one kind of collision on a port for real: conflicts_workload.py KIND.

Prints one JSON object, who holds which port, before the call that fails: port, holder (pid), remote
("" for none). Whoever holds something is a child and goes with us.
"""

import array
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

NOBODY = 65534
LOOP, ANY, ANY6 = "127.0.0.1", "0.0.0.0", "::"
_children: list[int] = []
_last_port = 0


def tcp(*options: int, family: int = socket.AF_INET) -> socket.socket:
    """Return a TCP socket with these options of SOL_SOCKET on."""
    sock = socket.socket(family)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    return sock


def child(work: Callable[[], dict[str, object]], uid: int = 0) -> dict[str, object]:
    """Run `work` in another process, which then keeps its sockets; return what it says."""
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        if uid:
            os.setresuid(uid, uid, uid)
        said = {"remote": "", "holder": os.getpid(), **work()}
        os.write(tell, json.dumps(said).encode())
        os.close(tell)
        signal.pause()
        os._exit(0)
    _children.append(pid)
    os.close(tell)
    with os.fdopen(ready) as out:
        return dict(json.load(out))


_keep: list[object] = []


def listens(*options: int, address: str = LOOP, backlog: int = 5) -> dict[str, object]:
    sock = tcp(*options, family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.bind((address, 0))
    sock.listen(backlog)
    _keep.append(sock)
    return {"port": sock.getsockname()[1]}


def binds_only() -> dict[str, object]:
    sock = tcp()
    sock.bind((LOOP, 0))
    _keep.append(sock)
    return {"port": sock.getsockname()[1]}


def connects(server: tuple[str, int]) -> dict[str, object]:
    sock = socket.create_connection(server)
    _keep.append(sock)
    return {"port": sock.getsockname()[1], "remote": f"{server[0]}:{server[1]}"}


def receives(port: int = 0) -> dict[str, object]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ANY, port))
    _keep.append(sock)
    return {"port": sock.getsockname()[1]}


def attempt(said: dict[str, object], sock: socket.socket, address: str = ANY) -> None:
    """Say who holds the port, then try to bind it."""
    global _last_port
    print(json.dumps(said), flush=True)
    _last_port = int(str(said["port"]))
    with contextlib.suppress(OSError):
        sock.bind((address, _last_port))
        sock.listen(5)


def listener() -> None:
    attempt(child(listens), tcp())


def inherited() -> None:
    """A listener goes on in a program that the one that made it had started."""
    sock = tcp()
    sock.bind((LOOP, 0))
    sock.listen(5)
    sock.set_inheritable(True)
    port = sock.getsockname()[1]
    pid = os.fork()
    if not pid:
        os.execv("/bin/sleep", ["sleep", "60"])
    _children.append(pid)
    while os.readlink(f"/proc/{pid}/exe").rpartition("/")[2] == os.path.basename(
        os.readlink("/proc/self/exe")
    ):
        time.sleep(0.01)
    sock.close()
    attempt({"port": port, "holder": pid}, tcp())


def next_port() -> None:
    """As `listener`, and take the port beside it."""
    listener()
    _keep.append(socket.create_server((ANY, _last_port + 1)))


def without_port() -> None:
    """As `listener`, and serve metrics all the same."""
    listener()
    _keep.append(socket.create_server((LOOP, 9101)))


def client() -> None:
    server = socket.create_server((LOOP, 0))
    _keep.append(server)
    attempt(child(lambda: connects(server.getsockname())), tcp(socket.SO_REUSEADDR))


def client_until_free() -> None:
    """As `client`, and try again until the port is ours, 20 s at most."""
    client()
    for _ in range(100):
        time.sleep(0.2)
        with contextlib.suppress(OSError), tcp() as sock:
            sock.bind((ANY, _last_port))
            print("had it", flush=True)
            return


def bound() -> None:
    attempt(child(binds_only), tcp())


def time_wait() -> None:
    server = socket.create_server((LOOP, 0))
    port = server.getsockname()[1]
    peer = socket.create_connection((LOOP, port))
    accepted, _ = server.accept()
    server.close()
    accepted.close()  # who closes first waits
    time.sleep(0.05)
    peer.close()
    time.sleep(0.05)
    attempt({"port": port, "holder": 0, "remote": ""}, tcp())


def closing() -> None:
    server = socket.create_server((LOOP, 0))
    port = server.getsockname()[1]

    def connect() -> dict[str, object]:
        server.close()
        return connects((LOOP, port))

    peer = child(connect)
    accepted, _ = server.accept()
    server.close()
    accepted.close()  # the other end does not close: FIN_WAIT2
    time.sleep(0.05)
    attempt({**peer, "port": port, "holder": 0}, tcp())


def accepted() -> None:
    def serve() -> dict[str, object]:
        server = socket.create_server((LOOP, 0))
        port = server.getsockname()[1]
        peer = socket.create_connection((LOOP, port))
        taken, _ = server.accept()
        server.close()
        _keep.extend([peer, taken])
        return {"port": port}

    attempt(child(serve), tcp())


def other_user() -> None:
    said = child(lambda: listens(socket.SO_REUSEPORT), uid=NOBODY)
    attempt(said, tcp(socket.SO_REUSEPORT), LOOP)


def dual_stack() -> None:
    attempt(child(lambda: listens(address=ANY6)), tcp())


def itself() -> None:
    said = listens()
    attempt({**said, "holder": os.getpid()}, tcp())


def descriptor() -> None:
    sock = tcp()
    sock.bind((LOOP, 0))
    sock.listen(5)
    port = sock.getsockname()[1]
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    rights = array.array("i", [sock.fileno()])
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    sock.close()
    _keep.extend([one, two])
    attempt({"port": port, "holder": 0}, tcp())


def listen() -> None:
    mine = tcp(socket.SO_REUSEADDR)
    mine.bind((LOOP, 0))
    port = mine.getsockname()[1]

    def other() -> dict[str, object]:
        sock = tcp(socket.SO_REUSEADDR)
        sock.bind((LOOP, port))
        sock.listen(5)
        _keep.append(sock)
        return {"port": port}

    print(json.dumps(child(other)), flush=True)
    with contextlib.suppress(OSError):
        mine.listen(5)


def udp() -> None:
    said = child(receives)
    print(json.dumps(said), flush=True)
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind((ANY, said["port"]))


def quic() -> None:
    said = child(lambda: receives(443))
    print(json.dumps(said), flush=True)
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind((ANY6, 443))


def privileged() -> None:
    os.setresuid(NOBODY, NOBODY, NOBODY)
    attempt({"port": 80, "holder": 0}, tcp())


def no_such_address() -> None:
    attempt({"port": 8080, "holder": 0}, tcp(), "192.0.2.77")


def already_bound() -> None:
    sock = tcp()
    sock.bind((LOOP, 8080))
    attempt({"port": 8081, "holder": 0}, sock)


def no_free_port() -> None:
    narrow(40000, 40001)
    for _ in range(2):
        _keep.append(tcp())
        _keep[-1].bind((ANY, 0))  # type: ignore[attr-defined]
        _keep[-1].listen()  # type: ignore[attr-defined]
    attempt({"port": 0, "holder": os.getpid()}, tcp())


def narrow(first: int, last: int) -> None:
    """Let the kernel choose from these ports only."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w", encoding="ascii") as file:
        file.write(f"{first} {last}")


def exhausted_tcp() -> None:
    server = socket.create_server((LOOP, 8080))
    narrow(40000, 40000)
    _keep.extend([server, socket.create_connection((LOOP, 8080))])
    print(json.dumps({"port": 8080}), flush=True)
    with contextlib.suppress(OSError):
        socket.create_connection((LOOP, 8080))


def exhausted_udp() -> None:
    narrow(40000, 40000)
    receives(40000)
    print(json.dumps({"port": 8080}), flush=True)
    with contextlib.suppress(OSError):
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((LOOP, 8080))


def workers() -> None:
    port = listens(socket.SO_REUSEPORT)["port"]

    def one() -> dict[str, object]:
        sock = tcp(socket.SO_REUSEPORT)
        sock.bind((LOOP, port))
        sock.listen(5)
        _keep.append(sock)
        return {"port": port}

    for _ in range(3):
        said = child(one)
    print(json.dumps(said), flush=True)


def takeover() -> None:
    def one() -> dict[str, object]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ANY, 5140))
        _keep.append(sock)
        return {"port": 5140}

    child(one)
    print(json.dumps(child(one, uid=NOBODY)), flush=True)


def control() -> None:
    """A server as it should be: nothing collides."""
    server = socket.create_server((ANY, 8080))
    six = socket.socket(socket.AF_INET6)
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    six.bind((ANY6, 8080))
    six.listen()
    receives(8080)
    for _ in range(20):
        socket.create_connection((LOOP, 8080)).close()
        server.accept()[0].close()
    print(json.dumps({"port": 8080, "holder": os.getpid()}), flush=True)


def patience_s() -> float:
    """Return how long we stay to be looked at: longer on a machine that is emulated."""
    begun_s = time.monotonic()
    sum(range(1_000_000))
    return 0.3 + 20 * (time.monotonic() - begun_s)


def main() -> None:
    try:
        globals()[sys.argv[1]]()
        time.sleep(patience_s())
    finally:
        for pid in _children:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
