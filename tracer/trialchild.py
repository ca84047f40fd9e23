"""The process that `trial` runs: puts itself in somebody's place, connects, and tells how it went.

Run by its path, with the standard library only. One JSON line on standard input says what to do,
one on standard output how it went; the attempts stay open until standard input ends.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_SYN_SENT, _CLOSE = 2, 7  # include/net/tcp_states.h
_PAUSE_S = 0.03  # nf_conncount looks what is still there once in a tick of the kernel
_SETTLE_S = 0.3  # until an attempt that nothing holds has sent its SYN


class Attempt:
    """One blocking connect in a thread of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._took_s = 0.0
        self._errno = -1  # not over
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            self._errno = self._socket.connect_ex(self._target)
        except OSError as error:
            self._errno = error.errno or errno.EIO
        self._took_s = time.monotonic() - begun

    def wait(self, limit_s: float) -> None:
        """Wait for the outcome, at most so long."""
        self._thread.join(limit_s)

    def settle(self) -> None:
        """Wait until the SYN is sent or the attempt is over, at most 0.3 s."""
        until = time.monotonic() + _SETTLE_S
        while self.told()["state"] == _CLOSE and self._thread.is_alive():
            if time.monotonic() > until:
                return
            time.sleep(0.005)

    @property
    def is_open(self) -> bool:
        """Whether nobody has answered yet."""
        return bool(self.told()["errno"] < 0)

    def close(self) -> None:
        """Reset the connection of an attempt that is over: what counts connections forgets it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def told(self) -> dict[str, Any]:
        """Return the socket's state (tcp_states.h), the errno (-1: not over), the time it took."""
        state = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state not in (_SYN_SENT, _CLOSE):
            self._thread.join(_SETTLE_S)  # answered: its thread is about to wake up
        over = not self._thread.is_alive()
        return {"state": state, "errno": self._errno if over else -1, "took_s": self._took_s}


def put_in_place(plan: dict[str, Any]) -> None:
    """Enter the control group, the network namespace and the user that the plan names."""
    if plan["cgroup"]:
        with open(os.path.join(plan["cgroup"], "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{plan['pid']}/ns/net", "rb") as handle:
        if libc.setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "setns")
    if plan["uid"] is not None:
        os.setgroups(plan["groups"])
        os.setresgid(plan["gid"], plan["gid"], plan["gid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    # After the change of user, which forgets it.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def steps(plan: dict[str, Any], dead: list[Attempt]) -> Iterator[dict[str, Any]]:
    """Open one attempt after the other, a live connect after each, until one of them waits.

    The attempts are added to `dead` and stay open: to open them anew would mislead whatever
    counts longer than they last, as connection tracking does.
    """
    while True:
        live = Attempt(*plan["live"])
        live.start()
        live.wait(plan["limit_s"])
        told = live.told()
        last = dead[-1].told() if dead else None
        answered = sum(not each.is_open for each in dead[:-1])
        yield {"open": len(dead), "dead": last, "live": told, "answered": answered}
        stuck = told["errno"] != 0 or (last and last["state"] != _SYN_SENT)
        if stuck or len(dead) == plan["number"]:
            return
        live.close()
        time.sleep(_PAUSE_S)
        dead.append(Attempt(*plan["dead"]))
        dead[-1].start()
        dead[-1].settle()
        if len(dead) == 1:
            dead[-1].wait(_SETTLE_S)  # does it really never answer?


def main() -> None:
    """Do what the line on standard input says."""
    plan = json.loads(sys.stdin.readline())
    try:
        put_in_place(plan)
    except OSError as error:
        print(json.dumps({"failed": f"{error.filename or 'user'}: {error.strerror}"}), flush=True)
        return
    dead: list[Attempt] = []
    print(json.dumps({"steps": list(steps(plan, dead))}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
    os._exit(0)
