"""Random sockets of one port, three to six at a time: what becomes of each bind and listen.

Prints a line of JSON for each port: a list of `[act, socket, errno]` in order. An act is bind,
listen or close; a socket is a list of its number, protocol, address, V6ONLY, SO_REUSEADDR,
SO_REUSEPORT and user. Arguments: seed, number of ports.
"""

import json
import random
import socket
import sys
from contextlib import ExitStack

from porttrace.lab.bind_trials import bind_errno, errno_of, leave_for_own_netns, make_socket
from porttrace.lab.binds import PLACES, Ask

_FIRST_PORT = 2000


def main(seed: int, ports: int) -> None:
    """Make the sockets of each port in turn."""
    leave_for_own_netns()
    draw = random.Random(seed)
    for number in range(ports):
        with ExitStack() as ends:
            print(json.dumps(acts(draw, _FIRST_PORT + number, ends)))


def acts(draw: random.Random, port: int, ends: ExitStack) -> list[object]:
    """Do some acts on one port and return them."""
    protocol = draw.choice(["tcp", "tcp", "udp"])
    standing: list[tuple[socket.socket, list[object]]] = []
    done: list[object] = []
    for number in range(draw.randint(3, 6)):
        act = draw.choice(
            ["bind", "bind", "bind", "close", "listen" if protocol == "tcp" else "bind"]
        )
        if act == "bind" or not standing:
            reuseaddr, reuseport = draw.choices((False, True), k=2)
            ask = Ask(draw.choice(PLACES), reuseaddr, reuseport, draw.choice((60001, 60002)))
            sock = ends.enter_context(make_socket(protocol, ask))
            only = ask.place.v6only or ask.place.ipv6_proper
            told: list[object] = [number, protocol, ask.place.address, only]
            told += [ask.reuseaddr, ask.reuseport, ask.uid]
            error = bind_errno(sock, ask, port)
            done.append(["bind", told, error])
            standing += [] if error else [(sock, told)]
            continue
        at = draw.randrange(len(standing))
        sock, told = standing[at]
        if act == "close":
            sock.close()
            del standing[at]
        done.append([act, told, errno_of(sock.listen) if act == "listen" else 0])
    return done


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
