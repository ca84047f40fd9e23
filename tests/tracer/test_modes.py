"""Which hook modes seem possible, by what a host shows."""

from pathlib import Path

import pytest

from fakehost import FakeHost
from porttrace.tracer.errors import UnsupportedError
from porttrace.tracer.modes import modes_to_try, possible_modes, why_not

PMU = "sys/bus/event_source/devices/kprobe/type"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.write("sys/kernel/tracing/kprobe_events", "")
    host.write(PMU, "8\n")
    return host


def test_a_host_that_has_everything_has_every_mode(host: FakeHost) -> None:
    assert possible_modes(host.root) == ("fentry", "kprobe", "tracepoint")


def test_fentry_needs_btf(host: FakeHost) -> None:
    host.hide("sys/kernel/btf/vmlinux")
    assert possible_modes(host.root) == ("kprobe", "tracepoint")
    assert "no BTF" in why_not("fentry", host.root)


def test_kprobes_may_be_there_in_one_form_only(host: FakeHost) -> None:
    host.hide("sys/kernel/tracing/kprobe_events")
    assert why_not("kprobe", host.root) == ""
    host.hide(PMU)
    assert why_not("kprobe", host.root) == "the kernel was built without kprobes"


def test_tracepoints_are_always_worth_a_try(host: FakeHost) -> None:
    host.hide("sys")
    assert possible_modes(host.root) == ("tracepoint",)


def test_a_forced_mode_that_cannot_work_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porttrace.tracer.modes.why_not", lambda mode: f"no {mode} today")
    with pytest.raises(UnsupportedError, match="kprobe does not work here: no kprobe today"):
        modes_to_try("kprobe")
    monkeypatch.setattr("porttrace.tracer.modes.why_not", lambda mode: "")
    assert modes_to_try("kprobe") == ("kprobe",)
