"""Who has the ports of a range, from sockets of our own; nothing here needs root."""

import contextlib
import os
import socket
from pathlib import Path

from porttrace.tracer.ports.taken import taken


def test_who_has_the_ports_of_a_range() -> None:
    comm = Path("/proc/self/comm").read_text().strip()
    with contextlib.ExitStack() as kept:
        listener = kept.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        assert taken("tcp", "127.0.0.1", port, port) == (1, f"1 by {comm} (pid {os.getpid()})")
        assert taken("tcp", "0.0.0.0", port, port)[0] == 1
        # another address, another protocol
        assert taken("tcp", "127.0.0.2", port, port) == (0, "")
        assert taken("udp", "127.0.0.1", port, port) == (0, "")


def test_what_no_process_has_any_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            own = client.getsockname()[1]
            accepted, _ = listener.accept()
            client.close()
            accepted.close()
    assert taken("tcp", "127.0.0.1", own, own) == (1, "1 in TIME_WAIT")
