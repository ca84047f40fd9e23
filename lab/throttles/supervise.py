"""Runs a command behind the packet queue: what all throttles of packets have in common.

The order matters: the reader first, then the rules that need it, then the command; at the end the
rules go before the reader, so that no packet ever waits for nobody.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from porttrace.lab.throttle import Throttle
from porttrace.lab.throttles import child, rules, scopes
from porttrace.lab.throttles.lines import Slots
from porttrace.lab.throttles.nfqueue import PacketQueue
from porttrace.lab.throttles.reader import Beyond, Plan, Reader
from porttrace.lab.throttles.sockdiag import SockDiag
from porttrace.tracer.namespaces import NAMED, in_netns

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def plan_of(throttle: Throttle, beyond: Beyond, mark: int = 0) -> Plan:
    """Return the plan of a throttle that counts slots; with 0 slots it watches only."""
    return Plan(Slots(throttle.slots), beyond, mark, watch_only=throttle.slots == 0)


def run_queued(
    throttle: Throttle,
    command: list[str],
    plan: Plan,
    *,
    syns_in: str = "OUTPUT",
    answers_in: str = "",
    where: str = "",
) -> int:
    """Run `command` while `plan` decides about its SYNs; return its exit status.

    The queue stands in the network namespace `where` ("": the command's own), fed by the chains
    `syns_in` and `answers_in`. The sockets are those of this process's namespace.
    """
    with ExitStack() as ends:
        diag = ends.enter_context(closing(SockDiag()))
        path = str(NAMED / where) if where else ""
        queue = ends.enter_context(closing(in_netns(path, lambda: PacketQueue(rules.QUEUE_NUMBER))))
        ends.enter_context(rules.queued(where, syns_in, answers_in))
        ends.enter_context(_adopting())
        process = child.start(command)
        key = scopes.key_of(throttle.scope, os.getpid())
        return Reader(queue, diag, plan).serve(process, key)


# A child whose parent died becomes this process's, so that its sockets are still found.
@contextmanager
def _adopting() -> Iterator[None]:
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
