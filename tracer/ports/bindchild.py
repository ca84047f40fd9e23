"""The process that `trybind` runs: takes somebody's place, binds, and says what came of it.

Run by its path, with the standard library only. Its one argument is JSON; it prints one line.
"""

import ctypes
import json
import os
import pwd
import signal
import socket
import sys
from typing import Any

_CLONE_NEWNET = 0x40000000
_PATIENCE_S = 3


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Return which call failed with which errno; "" and 0 when all went well."""
    call = "enter"
    try:
        _enter(asked["netns"])
        call = "user"
        _become(asked["uid"])
        call = "socket"
        kind = socket.SOCK_DGRAM if asked["protocol"] == "udp" else socket.SOCK_STREAM
        with socket.socket(
            socket.AF_INET6 if ":" in asked["address"] else socket.AF_INET, kind
        ) as s:
            _set(s, asked)
            call = "bind"
            s.bind(_target(asked["address"], asked["port"]))
            if asked["listen"]:
                call = "listen"
                s.listen(1)
        return {"call": "", "errno": 0}
    except OSError as error:
        return {"call": call, "errno": error.errno or -1}


def _enter(path: str) -> None:
    if path:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(path, "rb") as handle:
            if libc.setns(handle.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


def _become(uid: int) -> None:
    if uid == os.geteuid():
        return
    try:
        known = pwd.getpwuid(uid)
        name, gid = known.pw_name, known.pw_gid
        groups = os.getgrouplist(name, gid)
    except KeyError:
        gid, groups = uid, []
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _set(s: socket.socket, asked: dict[str, Any]) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, asked["reuseaddr"])
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, asked["reuseport"])
    if s.family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, asked["v6only"])


def _target(address: str, port: int) -> Any:
    if ":" not in address:
        return address, port
    host, _, zone = address.partition("%")
    return host, port, 0, socket.if_nametoindex(zone) if zone else 0


if __name__ == "__main__":
    signal.alarm(_PATIENCE_S)
    print(json.dumps(main(json.loads(sys.argv[1]))))
