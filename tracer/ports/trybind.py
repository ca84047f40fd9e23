"""A bind of our own, for real: in a child with the user, address, options and network that are
asked for. The socket is closed at once, nothing is sent, and nothing received by it is read."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from porttrace.tracer.errors import NotPermittedError, PorttraceError

_CHILD = Path(__file__).with_name("bindchild.py")
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Ask:
    """The bind that is tried."""

    protocol: str  # tcp or udp
    address: str
    port: int
    uid: int
    reuseaddr: bool = False
    reuseport: bool = False
    v6only: bool = False
    listen: bool = False  # listen(2), too: who connects in that moment is reset
    netns: str = ""  # path of a network namespace, "" our own


@dataclass(frozen=True)
class Tried:
    """What came of it: the call that failed (bind, listen; "" none), and its errno."""

    call: str
    errno: int


def try_bind(ask: Ask) -> Tried:
    """Bind for real, and let go at once.

    Raises NotPermittedError when the place of that user cannot be taken, PorttraceError when the
    child could not even make a socket, or did not answer within 5 s.
    """
    if ask.uid != os.geteuid() != 0:
        raise NotPermittedError(
            "only root may try a bind as another user", "run it with sudo, or without --user"
        )
    command = [sys.executable, "-I", "-S", str(_CHILD), json.dumps(asdict(ask))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise PorttraceError(f"the trial could not be made: {error}") from None
    tried = Tried(str(told["call"]), int(told["errno"]))
    if tried.call not in ("", "bind", "listen"):
        raise PorttraceError(
            f"the trial could not be made: {tried.call}: {os.strerror(tried.errno)}",
            "is the network namespace still there, and are you root?",
        )
    return tried
