"""Capabilities by name, and a thread that does without some of its own."""

import os
import threading
from pathlib import Path

import pytest

from porttrace.tracer import capabilities
from porttrace.tracer.capabilities import NUMBERS, bits, held, may, names, without


def test_names_and_bits_are_each_others_inverse() -> None:
    assert names(bits(NUMBERS)) == frozenset(NUMBERS)
    assert bits(("CAP_BPF", "CAP_KILL")) == 1 << 39 | 1 << 5
    assert names(1 << 0 | 1 << 63) == frozenset()


def test_the_kernel_says_the_same() -> None:
    lines = (line.split() for line in Path("/proc/thread-self/status").read_text().splitlines())
    said = {words[0]: int(words[1], 16) for words in lines if words[0].startswith("Cap")}
    sets = held()
    assert (sets.effective, sets.permitted) == (said["CapEff:"], said["CapPrm:"])
    assert sets.inheritable == said["CapInh:"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to do without")
def test_a_thread_does_without_and_others_do_not() -> None:
    before, seen = held(), []
    began, go_on = threading.Event(), threading.Event()

    def other() -> None:
        began.set()
        go_on.wait()
        seen.append(held())

    thread = threading.Thread(target=other)
    thread.start()
    began.wait()
    with without(("CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE")):
        assert not may("CAP_SYS_PTRACE") and not may("CAP_DAC_READ_SEARCH")
        assert held().permitted == before.permitted
        go_on.set()
        thread.join()
    assert held() == before and seen == [before]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to let go of")
def test_what_was_let_go_of_does_not_come_back() -> None:
    failed = []

    def body() -> None:
        before = held()
        less = before.permitted & ~bits(("CAP_KILL",))
        capabilities.hold(capabilities.Sets(less, less, 0))
        try:
            capabilities.hold(before)
        except PermissionError:
            failed.append(held().permitted == less)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert failed == [True] and may("CAP_KILL")
