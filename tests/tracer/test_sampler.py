"""Samples of our own network namespace, and of what is told of it; root is not needed."""

import contextlib
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from porttrace.tracer import netplace, processes
from porttrace.tracer.facts import Listener, Sample, Usage
from porttrace.tracer.sampled import Namespace, is_news
from porttrace.tracer.sampler import Sampler

QUIET = Sample(
    1_000, 42, 7, {"ListenOverflows": 0}, {"inuse": 100, "tw": 50}, {"somaxconn": "4096"},
    {"count": 100, "max": 1000, "drop": 0}, (), Usage(), (),
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"counters": {"ListenOverflows": 1}},
        {"sockets": {"inuse": 100, "tw": 70}},
        {"settings": {"somaxconn": "128"}},
        {"conntrack": {"count": 200, "max": 1000, "drop": 0}},
        {"conntrack": {"count": 100, "max": 1000, "drop": 1}},
        {"listeners": (Listener("0.0.0.0", 80, 3, 3),)},
        {"usage": Usage(5, 10)},
        {"serves": ("192.0.2.1:80",)},
        {"sockets": {"inuse": 101, "tw": 50}, "time_ns": 11_000_000_000},
    ],
)
def test_what_tells_something_is_told(change: dict[str, object]) -> None:
    assert is_news(QUIET, replace(QUIET, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"time_ns": 60_000_000_000, "pid": 9},
        {"sockets": {"inuse": 105, "tw": 48}},
        {"conntrack": {"count": 104, "max": 1000, "drop": 0}},
    ],
)
def test_what_tells_nothing_is_not(change: dict[str, object]) -> None:
    assert is_news(None, QUIET)
    assert not is_news(QUIET, replace(QUIET, **change))  # type: ignore[arg-type]


def test_a_namespace_tells_who_owns_a_full_queue() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        port = listener.getsockname()[1]
        place = Namespace(processes.netns(os.getpid()))
        with contextlib.ExitStack() as ends:
            for _ in range(2):
                ends.enter_context(socket.create_connection(("127.0.0.1", port)))
            sample = place.look(os.getpid(), {}, last=False)
            assert sample is not None and sample.listeners is not None
            (mine,) = [each for each in sample.listeners if each.port == port]
        assert (mine.queue, mine.limit, mine.pid) == (2, 1, os.getpid())
        assert mine.comm == Path(f"/proc/{os.getpid()}/comm").read_text().strip()


def test_a_namespace_tells_its_name_and_whether_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = processes.netns(os.getpid())
    (tmp_path / "blue").symlink_to("/proc/self/ns/net")  # where ip netns has a mount
    (tmp_path / "red").touch()  # one that was left behind
    monkeypatch.setattr(netplace, "NAMED", tmp_path)
    sample = Namespace(mine).look(os.getpid(), {}, last=True)
    assert sample is not None and (sample.name, sample.own) == ("blue", True)
    sample = Namespace(mine + 1).look(os.getpid(), {}, last=True)
    assert sample is not None and (sample.name, sample.own) == ("", False)


def test_a_lost_destination_that_is_here_is_told() -> None:
    netns = processes.netns(os.getpid())
    place = Namespace(netns)
    mine, elsewhere = (
        bytes(10) + b"\xff\xff" + bytes(a) for a in ([127, 0, 0, 1], [203, 0, 113, 7])
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sample = place.look(1, {(mine, port): netns, (elsewhere, port): netns}, last=True)
        assert sample is not None and sample.serves == (f"127.0.0.1:{port}",)
        assert port in [each.port for each in sample.listeners or ()]
    # the loopback of another namespace is not ours
    other = Namespace(netns)
    sample = other.look(1, {(mine, port): netns + 1}, last=True)
    assert sample is not None and sample.serves == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
def test_it_begins_goes_on_and_ends() -> None:
    sampler = Sampler(every_s=0.05)
    netns = processes.netns(os.getpid())
    sampler.see(os.getpid(), netns)
    sampler.see(os.getpid(), 0)  # not known: nothing to enter
    sampler.start()
    time.sleep(0.3)
    sampler.stop()
    found = sampler.taken()
    assert found and {each.netns for each in found} == {netns}
    assert [each.time_ns for each in found] == sorted(each.time_ns for each in found)
    assert found[0].settings and sampler.taken() == ()
    assert "sampler" not in [thread.name for thread in threading.enumerate()]
    # 1 % of a core, and a round more
    assert sampler.worked_s < 0.1


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
def test_who_is_gone_is_forgotten() -> None:
    sampler = Sampler(every_s=0.05)
    netns = processes.netns(os.getpid())
    sampler.see(2**22 + 1, netns)  # no process has this number
    sampler.start()
    sampler.stop()
    assert sampler.taken() == ()


def test_it_stops_without_ever_having_begun() -> None:
    Sampler().stop()


def test_namespaces_beyond_the_most_are_counted() -> None:
    sampler = Sampler()
    for netns in range(1, 21):
        sampler.see(1, netns)
    assert len(sampler.left_out) == 4
