"""Processes in namespaces of their own: seen with both their numbers, filtered, and told apart."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from containers import FULL, LISTENING, REFUSED, Box, box, tree, with_mounts
from porttrace.lab.hosts import Hosts
from porttrace.tracer import cgroups, processes
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.seeds import in_syn_sent
from tracing import PORTTRACE, Traced, run, running

pytestmark = pytest.mark.kernel

DATA = Path(__file__).parent.parent / "data"
REPLY = (DATA / "docker-containers.http").read_bytes()
IDS = {each["Names"][0][1:]: each["Id"] for each in json.loads(REPLY.partition(b"\r\n\r\n")[2])}
CLIENT = "import socket, sys; socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1])))"
WHO = ("pid", "container", "container_name", "ns_pid")
UNNAMED = hashlib.sha256(b"porttrace").hexdigest()


@pytest.fixture(scope="module")
def web() -> Iterator[Box]:
    with box(IDS["web"]) as made:
        yield made


@pytest.fixture(scope="module")
def db() -> Iterator[Box]:
    with box(IDS["db"], "kubepods/pod4c1f/{}") as made:
        yield made


@contextmanager
def runtime(folder: Path, answers: bool = True) -> Iterator[str]:
    """Answer as a real Docker engine did; return what puts its socket in its place."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "docker.sock"))
        server.listen()
        thread = threading.Thread(target=_serve, args=(server, answers))
        thread.start()
        try:
            yield f"mount --bind {folder} /run"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(server: socket.socket, answers: bool) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.recv(4096)
            if answers:
                client.sendall(REPLY)
            else:
                client.recv(1)  # until whoever asks gives up


def whose(traced: Traced) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in WHO) for row in traced.attempts]


# -- told apart


def test_two_containers_with_the_same_pid_inside(web: Box, db: Box, tmp_path: Path) -> None:
    # GIVEN two containers that a runtime knows by name, and a recording beside the live trace
    path = tmp_path / "a.ptrace"
    with (
        runtime(tmp_path) as setup,
        running("-o", str(path), "-d", "60", before=with_mounts(setup, [])) as tracer,
    ):
        for each in (web, db):
            assert each.ask(f"connect {LISTENING}") == 0
        traced = tracer.finish()
    # THEN both have the pid 7, and nothing else is alike
    rows = [
        (web.pid, IDS["web"][:12], "web", 7),
        (db.pid, IDS["db"][:12], "db", 7),
    ]
    assert [row for row in whose(traced) if row[0] in (web.pid, db.pid)] == rows
    assert web.pid != db.pid
    shown = [json.loads(line) for line in
             run("show", str(path), "attempts", "--json").stdout.splitlines()]  # fmt: skip
    told = [tuple(each[key] for key in WHO) for each in shown]
    assert [row for row in told if row[0] in (web.pid, db.pid)] == rows
    assert {each["netns"] for each in shown if each["pid"] in (web.pid, db.pid)} == {
        os.stat(f"/proc/{each.pid}/ns/net").st_ino for each in (web, db)
    }
    for printed in (
        run("show", str(path), "attempts").stdout,
        run("report", str(path)).stdout,
    ):
        assert re.search(rf"^ .*{web.pid} web\[7\] python", printed, re.M), printed
        assert re.search(rf"^ .*{db.pid} db\[7\] python", printed, re.M), printed
    page = tmp_path / "a.html"
    assert run("report", str(path), "--html", str(page)).returncode == 0
    assert '"inside":"web[7]"' in page.read_text() and '"inside":"db[7]"' in page.read_text()


def test_live_lines_name_the_container(web: Box, tmp_path: Path) -> None:
    with runtime(tmp_path) as setup:
        command = with_mounts(setup, [*PORTTRACE, "--container", "web", "-d", "20"])
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr and process.stderr.readline().startswith("Tracing container web.")
            assert web.ask(f"connect {REFUSED}") != 0
            assert process.stdout and process.stdout.readline().split()[:2] == ["TIME", "PID"]
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    assert line.split()[1:3] == [str(web.pid), "web[7]"]
    assert f" 127.0.0.1:{REFUSED} " in line and len(line.rstrip()) <= 80


def test_a_process_that_is_gone_at_once_still_has_its_container(web: Box) -> None:
    # A child without exec, which lives for less than a round: only its events tell of it.
    with running("-d", "60") as tracer:
        for _ in range(5):
            web.ask(f"fork {LISTENING}")
        traced = tracer.finish()
    mine = [row for row in whose(traced) if row[1] == IDS["web"][:12]]
    assert len(mine) == 5
    assert len({row[0] for row in mine}) == 5


def test_a_hung_runtime_delays_nothing(web: Box, tmp_path: Path) -> None:
    with (
        runtime(tmp_path, answers=False) as setup,
        running("-d", "60", before=with_mounts(setup, [])) as tracer,
    ):
        began_s = time.monotonic()
        web.ask(f"connect {LISTENING}")
        traced = tracer.finish()
        assert time.monotonic() - began_s < 5
    assert (web.pid, IDS["web"][:12], "", 7) in whose(traced)


# -- chosen


@pytest.mark.parametrize("word", [IDS["web"], IDS["web"][:12], IDS["web"][:4]])
def test_a_container_by_its_id(web: Box, db: Box, word: str) -> None:
    with running("--container", word, "-d", "60") as tracer:
        for each in (db, web):
            each.ask(f"connect {LISTENING}")
            each.ask(f"fork {REFUSED}")
        joined = web.enter([sys.executable, "-c", CLIENT, str(LISTENING)])
        assert joined.returncode == 0, joined.stderr
        traced = tracer.finish()
    assert traced.report["trace"]["filter"] == f"container {word}"
    # process 7, its child, and one that joined it from outside while it was traced
    assert [row["dport"] for row in traced.attempts] == [LISTENING, REFUSED, LISTENING]
    assert {row[1] for row in whose(traced)} == {IDS["web"][:12]}


def test_a_container_by_its_name(web: Box, db: Box, tmp_path: Path) -> None:
    with (
        runtime(tmp_path) as setup,
        running("--container", "db", "-d", "60", before=with_mounts(setup, [])) as tracer,
    ):
        for each in (web, db):
            each.ask(f"connect {LISTENING}")
        traced = tracer.finish()
    assert whose(traced) == [(db.pid, IDS["db"][:12], "db", 7)]


def test_where_there_is_no_control_group_v2_its_processes_are_traced(web: Box, db: Box) -> None:
    # GIVEN a host whose tree of control groups v2 is not mounted
    before = with_mounts(f"umount {tree()}", [])
    with running("--container", IDS["web"], "-d", "60", before=before) as tracer:
        for each in (db, web):
            each.ask(f"connect {LISTENING}")
            each.ask(f"fork {REFUSED}")
        traced = tracer.finish()
    assert re.fullmatch(
        rf"container {IDS['web']} \(3 processes and children\)", traced.report["trace"]["filter"]
    )
    assert [row["dport"] for row in traced.attempts] == [LISTENING, REFUSED]


def test_a_trace_of_a_container_ends_with_it() -> None:
    with box(UNNAMED) as short, running("--container", UNNAMED[:12], "-d", "60") as tracer:
        short.ask(f"connect {LISTENING}")
        for pid in cgroups.pids_below(str(short.cgroup)):
            os.kill(pid, signal.SIGKILL)
        while short.cgroup.exists():
            time.sleep(0.01)
            if not cgroups.pids_below(str(short.cgroup)):
                short.cgroup.rmdir()
        traced = tracer.finish(0)
    assert traced.code == 0
    assert [row["outcome"] for row in traced.attempts] == ["established"]


def test_attempts_older_than_the_trace_are_those_of_the_container(web: Box, db: Box) -> None:
    with box(UNNAMED, "libpod-{}.scope/container") as stuck:
        stuck.ask("stick")
        old = in_syn_sent(TraceOptions(cgroups=(str(stuck.cgroup),)))
        assert {each.dport for each in old.values()} == {FULL}
        assert in_syn_sent(TraceOptions(cgroups=(str(web.cgroup),))) == {}
        traced = read_for_a_second("--container", UNNAMED)
        other = read_for_a_second("--cgroup", str(web.cgroup))
    assert traced.attempts and {row["origin"] for row in traced.attempts} == {"seeded"}
    assert {row[1:] for row in whose(traced)} == {(UNNAMED[:12], "", 7)}
    assert other.attempts == []


def read_for_a_second(*options: str) -> Traced:
    with running(*options, "-d", "1") as tracer:
        return tracer.finish(0)


@pytest.mark.parametrize("how", ["pid", "path"])
def test_a_network_namespace(web: Box, db: Box, how: str) -> None:
    word = {"pid": str(web.pid), "path": f"/proc/{web.pid}/ns/net"}[how]
    with running("--netns", word, "-d", "60") as tracer:
        for each in (db, web):
            each.ask(f"connect {LISTENING}")
            each.ask(f"fork {REFUSED}")
        traced = tracer.finish()
    assert [row["dport"] for row in traced.attempts] == [LISTENING, REFUSED]
    assert {row[1] for row in whose(traced)} == {IDS["web"][:12]}
    assert f"netns {word} (" in traced.report["trace"]["filter"]


def test_a_network_namespace_by_its_name() -> None:
    with Hosts() as hosts:
        nobody = run("--netns", hosts.client, "-d", "1")
        assert nobody.returncode == 1
        assert f"no process is in the network namespace {hosts.client}" in nobody.stderr
        code = "import socket; input(); socket.socket().connect_ex(('192.0.2.2', 9)); input()"
        client = subprocess.Popen(
            hosts.in_client([sys.executable, "-c", code]), stdin=subprocess.PIPE, text=True
        )
        try:
            own = os.stat("/proc/self/ns/net").st_ino
            while processes.netns(client.pid) == own:
                time.sleep(0.01)
            with running("--netns", hosts.client, "-d", "60") as tracer:
                assert client.stdin
                client.stdin.write("\n")
                client.stdin.flush()
                time.sleep(0.3)
                client.communicate("\n")
                traced = tracer.finish(0)  # it was the last one there
        finally:
            client.kill()
            client.wait()
    assert [(row["pid"], row["daddr"]) for row in traced.attempts] == [(client.pid, "192.0.2.2")]


@pytest.mark.parametrize("by_port", [False, True])
def test_who_comes_into_a_namespace_later_is_seen_by_its_port(by_port: bool) -> None:
    """As the note of --netns says; by the namespace only those are seen that are in it."""
    later = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 8341)); s.listen()"
    with Hosts() as hosts, subprocess.Popen(hosts.in_client(["sleep", "60"])) as first:
        own = os.stat("/proc/self/ns/net").st_ino
        try:
            while processes.netns(first.pid) == own:
                time.sleep(0.01)
            words = ("-L", "8341") if by_port else ("--netns", hosts.client)
            with running(*words, "-d", "60") as tracer:
                subprocess.run(hosts.in_client(["/usr/bin/python3", "-c", later]), check=True)
                time.sleep(0.3)
                done = tracer.finish()
        finally:
            first.kill()
    assert len([row for row in done.of("bind") if row["call"] == "listen"]) == int(by_port)


def test_a_pid_and_a_namespace_must_agree(web: Box, db: Box) -> None:
    done = run("--pid", str(db.pid), "--netns", str(web.pid), "-d", "1")
    assert done.returncode == 1
    assert f"no process is in all of pid {db.pid} and netns {web.pid} (" in done.stderr


# -- what goes wrong is said


def test_a_container_that_is_not_there(web: Box) -> None:
    for command in ((), ("record", "-o", "/dev/null/never")):
        done = run(*command, "--container", "no-such", "-d", "1")
        assert done.returncode == 1
    assert run("--container", "no-such").stderr.startswith(
        "error: no container no-such has a process here\nhint: there are "
    )


def test_a_pid_as_it_is_inside_is_not_guessed() -> None:
    # GIVEN a number that is a pid inside of one container, and none of the host's
    taken = {*processes.all_pids(), *range(300)}
    number = next(number for number in range(32_000, 0, -1) if number not in taken)
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c",
         f"echo {number - 1} > /proc/sys/kernel/ns_last_pid; sleep 60 & wait"],
    ) as shell:  # fmt: skip
        try:
            while not (found := processes.called_inside(number)):
                time.sleep(0.01)
            done = run("--pid", str(number), "-d", "1")
        finally:
            shell.kill()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: there is no process {number}\n")
    assert (
        f"hint: {number} is what sleep in a pid namespace of its own is called there; here it is "
        f"--pid {found[0]}\n"
    ) in done.stderr


@pytest.mark.parametrize("command", [(), ("record", "-o", "a.ptrace")])
def test_in_a_pid_namespace_of_its_own_it_refuses(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *PORTTRACE, *command, "-d", "1"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith("error: porttrace runs in a pid namespace of its own")
    assert "--pid=host" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_a_control_group_by_its_number(web: Box) -> None:
    number = web.cgroup.stat().st_ino
    assert cgroups.path_of(number) == f"/{web.cgroup.relative_to(tree())}"
    assert cgroups.path_of(1 << 60) == ""
