"""How a run begins and ends, whatever it does meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from porttrace.cli.child import Child
from porttrace.cli.running import (
    Pace,
    check_targets,
    over,
    say_what_is_left_out,
    started,
    stop_flag,
    what_is_traced,
)
from porttrace.tracer.errors import TargetError
from porttrace.tracer.options import TraceOptions


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the time be what the list says, for clocks and for the CPU of this thread."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    return now


def test_looking_takes_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first run is long once; from then on each takes a second.
    now = clock(monkeypatch)
    pace, runs = Pace(0.25), []

    def slow() -> None:
        runs.append(now[0])
        now[0] += 1

    for hundredth in range(4200):
        now[0] = max(now[0], hundredth / 100)
        pace.run(slow)
    assert runs == [0.0, 1.25, 22.25]


def test_what_took_long_once_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock(monkeypatch)
    pace, runs = Pace(0.25), []

    def look() -> None:
        runs.append(now[0])
        now[0] += 1 if len(runs) == 3 else 0

    for hundredth in range(250):
        now[0] = max(now[0], hundredth / 100)
        pace.run(look)
    assert runs == [0.0, 0.25, 0.5, 1.75, 2.0, 2.25]


def test_what_is_quick_runs_as_often_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock(monkeypatch)
    pace, runs = Pace(0.25), []
    for tenth in range(11):
        now[0] = tenth / 10
        pace.run(lambda: runs.append(now[0]))
    assert runs == [0.0, 0.3, 0.6, 0.9]


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_only_raises_the_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_flag() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
    assert signal.getsignal(number) == before


def test_what_nohup_ignores_stays_ignored(hangups: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_flag() as stopped:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped()


def test_nothing_to_start() -> None:
    with started((), output_to_stderr=False) as child:
        assert child is None


def test_a_trace_of_a_command_is_over_with_it() -> None:
    with started(("true",), output_to_stderr=False) as child:
        assert isinstance(child, Child)
        assert not over(TraceOptions(pids=frozenset((child.pid,))), child)
        assert (
            what_is_traced(TraceOptions(), child)
            == f"the command (pid {child.pid}) and its children"
        )
        child.release()
        while not over(TraceOptions(), child):
            time.sleep(0.01)


def test_a_trace_of_processes_is_over_with_the_last() -> None:
    target = subprocess.Popen(["sleep", "60"])
    both = TraceOptions(pids=frozenset((target.pid, os.getpid())))
    alone = TraceOptions(pids=frozenset((target.pid,)))
    assert not over(both, None) and not over(alone, None)
    target.kill()
    target.wait()
    assert not over(both, None)
    assert over(alone, None)
    assert not over(TraceOptions(), None)


def test_what_is_traced_in_words() -> None:
    assert what_is_traced(TraceOptions(), None) == "all processes"
    assert what_is_traced(TraceOptions(pids=frozenset((7,))), None) == "pid 7"


def test_targets_are_processes() -> None:
    check_targets((os.getpid(),))
    with pytest.raises(TargetError, match="no process 4194305"):
        check_targets((os.getpid(), 2**22 + 1))
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(TargetError) as caught:
            check_targets((thread.native_id or 0,))
    finally:
        stop.set()
        thread.join()
    assert f"use --pid {os.getpid()}" in caught.value.hint


def test_a_name_that_only_some_threads_have_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import threading, time\n"
        "def name(word): open('/proc/thread-self/comm', 'w').write(word)\n"
        "for number in range(5):\n"
        "    threading.Thread(target=lambda n=number: (name(f'pool-{n}'), time.sleep(60)),"
        " daemon=True).start()\n"
        "name('names-trial')\n"
        "print(flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            names = frozenset({"names-trial", "pool-3", "nobody-has-it"})
            say_what_is_left_out(TraceOptions(comms=names))
        finally:
            process.kill()
    assert capsys.readouterr().err == (
        f"note: --comm names threads, and of names-trial (pid {process.pid}) others are called"
        f" pool-0, pool-1, pool-2, ...: --pid {process.pid} has all of them.\n"
    )
