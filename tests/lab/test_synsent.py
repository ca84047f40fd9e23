"""SYN_SENT is seen by the table and by sock_diag alike, and its end is seen too."""

from __future__ import annotations

import json
import sys

import pytest

from porttrace.lab.site import Site, run

PROGRAM = """
import json, os, socket, sys
from porttrace.lab.throttles.synsent import SynSent
dead = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
inode = os.fstat(dead.fileno()).st_ino
syn_sent, answers = SynSent(), []
def ask():
    syn_sent.start_round()
    answers.append(syn_sent.has(os.getpid(), dead.family, inode))
ask()
dead.setblocking(False)
dead.connect_ex((sys.argv[1], 9100))
ask(); ask(); ask()
answers.append(len(syn_sent._ids))
dead.close()
ask(); ask()
syn_sent.close()
print(json.dumps(answers))
"""


@pytest.mark.kernel
@pytest.mark.parametrize("address", ["192.0.2.66", "2001:db8::66"])
def test_a_dead_attempt_is_followed_to_its_end(site: Site, address: str) -> None:
    output = run(site.hosts.in_client([sys.executable, "-c", PROGRAM, address]))
    assert json.loads(output) == [False, True, True, True, 1, False, False]
