"""Cgroups of the lab come and go with the process that made them, whatever is inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from porttrace.lab.cgroups import cgroups, enter, own
from porttrace.lab.site import DEAD, LIVE, Site, run
from porttrace.lab.throttle import Throttle
from tracing import wait_until

pytestmark = pytest.mark.kernel

OWNER = """
import time
from porttrace.lab.cgroups import cgroups
with cgroups("left") as (folder,):
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_process_is_in_the_cgroup_that_it_enters_and_is_moved_up_after() -> None:
    with cgroups("one", "two") as (one, two):
        process = subprocess.Popen(["sleep", "30"], preexec_fn=lambda: enter(two))
        assert f"0::{own().rstrip('/')}/{two.name}\n" in cgroup_of(process.pid)
        assert (one / "cgroup.procs").read_text() == ""
    assert f"0::{own()}\n" in cgroup_of(process.pid)
    assert not one.exists() and not two.exists()
    process.kill()
    process.wait()


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def test_what_a_killed_lab_left_is_removed_by_the_next() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        left = Path(made.stdout.readline().strip())
        with cgroups("other"):
            assert left.exists()  # its owner lives
        made.kill()
        made.wait()
    assert left.exists()
    with cgroups("next"):
        assert not left.exists()


def program_runs(supervisor: int) -> bool:
    """Tell whether the throttled program has been started: mount was a child before it."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    own, *lines = [command_line(pid) for pid in (str(supervisor), *children)]
    # a child that has not called exec yet has its parent's line
    return any(b"two_threads" in line and line != own for line in lines)


def command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has just ended


def test_a_killed_denier_denies_nobody_any_more(site: Site) -> None:
    options = ["--dead", DEAD, "--live", LIVE, "--dead-time", "30", "--delay", "0.1"]
    throttle = Throttle("deny-cgroup", 1, "cgroup")
    supervisor = subprocess.Popen(site.argv("two_threads", *options, throttle=throttle))
    wait_until(lambda: program_runs(supervisor.pid))
    os.kill(supervisor.pid, 9)
    supervisor.wait(timeout=5)
    program = (
        "from porttrace.lab.cgroups import _own_folder, _NAME, enter\n"
        "import socket\n"
        "with _own_folder() as parent:\n"
        "    enter(next(each for each in parent.iterdir() if _NAME.fullmatch(each.name)))\n"
        "    dead = socket.socket()\n"
        "    dead.setblocking(False)\n"
        "    dead.connect_ex(('192.0.2.66', 9100))\n"
        "    socket.create_connection(('192.0.2.2', 80), timeout=2)\n"
        "print('connected')\n"
    )
    assert run(site.hosts.in_client([sys.executable, "-c", program])) == "connected\n"
    with cgroups("next") as (folder,):
        left = [each for each in folder.parent.iterdir() if f"-{supervisor.pid}-" in each.name]
        assert left == []
