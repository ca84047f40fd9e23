"""However a trace ends: drained, summed up, the right exit code, nothing left attached."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tracing import PORTTRACE, run, running, trace, wait_until

pytestmark = pytest.mark.kernel

ONE_CONNECT = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_a_report_and_0(number: int) -> None:
    with running("-P", "9") as tracer:
        subprocess.run([sys.executable, "-c", ONE_CONNECT], check=True)
        traced = tracer.finish(number)
    assert traced.code == 0
    assert len(traced.attempts) == 1
    assert traced.report["attempts"]["by_outcome"] == {"refused": 1}


def test_a_duration_ends_it_the_same_way() -> None:
    with running("-P", "9", "-d", "1.5") as tracer:
        subprocess.run([sys.executable, "-c", ONE_CONNECT], check=True)
        traced = tracer.finish(0)
    assert traced.code == 0
    assert len(traced.attempts) == 1
    assert 1.4 <= traced.report["trace"]["duration_s"] < 4


@pytest.mark.parametrize("status", [0, 7])
def test_the_commands_own_status_is_passed_on(status: int) -> None:
    assert trace(["sh", "-c", f"exit {status}"]).code == status


def test_a_killed_command_is_128_and_the_signal() -> None:
    assert trace(["sh", "-c", "kill -KILL $$"]).code == 137


def test_a_command_that_outlives_the_trace_is_ended() -> None:
    done = run("-d", "1", "--", "sh", "-c", "echo $$ >&2; exec sleep 60")
    assert done.returncode == 0
    pid = int(next(line for line in done.stderr.splitlines() if line.isdigit()))
    assert not Path(f"/proc/{pid}").exists()


def test_a_pid_that_exits_ends_the_trace() -> None:
    program = f"import sys; sys.stdin.read(); {ONE_CONNECT}"
    target = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    with running("--pid", str(target.pid)) as tracer:
        assert target.stdin
        target.stdin.close()
        traced = tracer.finish(0)
    assert target.wait() == 0
    assert traced.code == 0
    assert len(traced.attempts) == 1


def attached() -> int:
    # Programs of this kind in the kernel, by their names.
    shown = subprocess.run(
        [sys.executable, "-c", COUNT_PROGRAMS], capture_output=True, text=True, check=True
    )
    return int(shown.stdout)


# bpf(2) with BPF_PROG_GET_NEXT_ID (11), then BPF_PROG_GET_FD_BY_ID (13): how many there are.
COUNT_PROGRAMS = """
import ctypes, platform
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
attr, last, count = (ctypes.c_uint32 * 32)(), 0, 0
while True:
    attr[0], attr[1] = last, 0
    if libc.syscall(number, 11, ctypes.byref(attr), 128):
        break
    last, count = attr[1], count + 1
print(count)
"""


def test_kill_9_leaves_nothing_attached() -> None:
    before = attached()
    with running("-P", "9") as tracer:
        assert attached() > before
        tracer.kill()
        wait_until(lambda: attached() == before, 5)


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "err"
    command = " ".join(PORTTRACE) + f" -P 9 -d 3 2>{log} | head -1; exit ${{PIPESTATUS[0]}}"
    loop = f"import time\nfor _ in range(30):\n    {ONE_CONNECT}\n    time.sleep(0.1)"
    client = subprocess.Popen([sys.executable, "-c", loop])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    client.wait()
    assert done.returncode == 0
    assert "Traceback" not in log.read_text() and "rror" not in log.read_text()


def test_names_from_processes_are_escaped_on_the_terminal() -> None:
    code = (
        "import ctypes, socket\n"
        "ctypes.CDLL(None).prctl(15, b'\\x1b[31mred\\n\\xff\\x9b', 0, 0, 0)\n" + ONE_CONNECT
    )
    done = subprocess.run(
        [*PORTTRACE, "--", sys.executable, "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"\\x1b[31mred" in done.stdout
    text = done.stdout.decode()  # strict: the terminal gets valid UTF-8
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_an_idle_filter_gives_a_clear_empty_result() -> None:
    done = run("--comm", "nobody-is-here", "-d", "1")
    assert done.returncode == 0
    assert "No connection attempt" in done.stdout
    assert "nobody-is-here" in done.stdout


def test_a_whole_host_trace_says_what_it_cannot_see() -> None:
    done = run("-d", "1")
    assert done.returncode == 0
    assert "--pid" in done.stdout
