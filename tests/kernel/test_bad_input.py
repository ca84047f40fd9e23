"""What goes wrong for users: a clear message, the right exit code, never a traceback."""

import subprocess
import threading
import time
from pathlib import Path

import pytest

from tracing import PORTTRACE, run

pytestmark = pytest.mark.kernel


def failed(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1 and done.stderr.count("hint:") == 1
    for word in words:
        assert word in done.stderr


def test_a_pid_that_is_not_there() -> None:
    failed(run("--pid", "4194303"), 1, "no process 4194303", "ps -e")


def test_a_thread_is_told_from_a_process() -> None:
    ids: list[int] = []
    over = threading.Event()

    def body() -> None:
        ids.append(threading.get_native_id())
        over.wait(30)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        while not ids:
            time.sleep(0.01)
        failed(run("--pid", str(ids[0])), 1, "is a thread of process", "use --pid")
    finally:
        over.set()
        thread.join()


def test_a_command_that_does_not_exist() -> None:
    done = run("--", "no-such-command-at-all")
    failed(done, 127, "no-such-command-at-all", "No such file")
    assert done.stdout == ""


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    script = tmp_path / "data"
    script.write_text("no program")
    failed(run("--", str(script)), 126, "Permission denied")


def test_without_rights_the_sudo_line_and_the_capability_are_named() -> None:
    # Another user, who may read what only root may: the checkout may lie in such a place.
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reads]
    command = [*other, *PORTTRACE, "--pid", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    failed(done, 3, "CAP_BPF", "sudo ", "--pid 1")


def test_without_tracefs_it_is_mounted() -> None:
    # In a mount namespace of its own: nothing changes outside.
    script = (
        "umount /sys/kernel/tracing 2>/dev/null; umount /sys/kernel/debug/tracing 2>/dev/null; "
        f"{' '.join(PORTTRACE)} -d 1 --comm none; echo code $?; "
        "grep -c 'tracefs' /proc/mounts"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert "code 0" in done.stdout, done.stderr
    assert int(done.stdout.split()[-1]) >= 1


def test_a_foreign_bcc_is_named(tmp_path: Path) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("")
    done = subprocess.run(
        [*PORTTRACE, "-d", "1"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    failed(done, 4, str(tmp_path / "bcc"), "pip uninstall bcc", "python3-bpfcc")


def limited(limit: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["prlimit", limit, *PORTTRACE, *arguments], capture_output=True, text=True, check=False
    )


def test_few_descriptors() -> None:
    # A soft limit is raised, for us and not for the command; a hard one is named.
    done = limited("--nofile=64:4096", "-d", "1", "--", "sh", "-c", "ulimit -Sn >&2")
    assert done.returncode == 0 and "64\n" in done.stderr and "Traceback" not in done.stderr
    failed(limited("--nofile=64", "-P", "9", "-d", "1"), 1, "64 files", "ulimit -n")


def test_without_locked_memory_it_works_all_the_same() -> None:
    done = limited("--memlock=0", "-P", "9", "-d", "1")
    assert done.returncode == 0 and "Trust:" in done.stdout


def test_usage_errors_are_2() -> None:
    for words in (("--pid", "x"), ("--bogus",), ("nonsense",), ("-4", "-6"), ("-d", "0")):
        done = run(*words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("offset_s", [86400, -1000])
def test_a_clock_that_is_not_the_kernels_is_refused(tmp_path: Path, offset_s: int) -> None:
    apart = ["unshare", "--time", "--fork", "--monotonic", str(offset_s), "--", *PORTTRACE]
    path = tmp_path / "a.ptrace"
    words = [*apart, "record", "-o", str(path), "-d", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    failed(done, 4, f"{abs(offset_s)} s {'ahead of' if offset_s > 0 else 'behind'} the kernel's")
    assert not path.exists()
    doctor = subprocess.run([*apart, "doctor"], capture_output=True, text=True, check=False)
    assert doctor.returncode == 4 and f"{abs(offset_s)} s" in doctor.stdout
