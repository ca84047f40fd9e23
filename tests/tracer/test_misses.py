"""The kernel's own count of programs that it stepped over."""

import pytest

from porttrace.tracer import features
from porttrace.tracer.live import LiveTrace
from porttrace.tracer.misses import missed
from porttrace.tracer.options import TraceOptions


def test_what_is_no_program_is_an_error() -> None:
    with pytest.raises(OSError), open("/dev/null") as handle:
        missed(handle.fileno())


@pytest.mark.kernel
def test_every_attached_program_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # GIVEN a trace in which the kernel says that programs were stepped over 3 times
    options = TraceOptions(comms=frozenset(("nobody",)))
    with LiveTrace(options, features.compile_flags()) as live:
        programs = live.probe._program.program_fds()
        assert len(programs) >= 10 and all(missed(fd) >= 0 for fd in programs)
        live.probe.losses()
        told = iter([3] + [0] * len(programs))
        monkeypatch.setattr("porttrace.tracer.probe.missed", lambda _: next(told))
        before = live.probe._misses_seen
        ((cpu, count, first_ns, last_ns),) = live.probe.losses()
    assert (cpu, count) == (0xFFFF, 3 - before)
    assert first_ns < last_ns
