"""porttrace port and ports as a user runs them: namespaces, containers, no root, the 43611 case."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

import tracing
from containers import LISTENING, box
from porttrace.lab.hosts import Hosts

pytestmark = pytest.mark.kernel

# The range is made so small that the kernel has one port to give: 43611.
CLIENT = """
import socket, sys
def write(name, value):
    with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
        file.write(value)
server = socket.create_server(("127.0.0.1", 443))
write("ip_local_port_range", "43611 43611")
client = socket.create_connection(("127.0.0.1", 443))
print(client.getsockname()[1], flush=True)
for line in sys.stdin:
    write("ip_local_reserved_ports", line.strip())
    print("0", flush=True)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts() as made:
        yield made


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as child:
        assert child.stdin and child.stdout
        try:
            yield child
        finally:
            child.stdin.close()
            child.terminate()


def told(*words: str, code: int = 0) -> list[dict[str, Any]]:
    done = tracing.run(*words, "--json")
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_client_has_the_fixed_port_of_a_server(hosts: Hosts, tmp_path: Path) -> None:
    """The case: nobody listens on 43611, and yet the server cannot have it."""
    file = tmp_path / "ports.yaml"
    file.write_text("ports:\n- {name: app, port: 43611, owner: daemon}\n")
    with running(hosts.in_client([sys.executable, "-c", CLIENT])) as client:
        assert client.stdin and client.stdout
        assert client.stdout.readline() == "43611\n"
        place = ("--netns", hosts.client)
        (found, _) = told("port", "43611", "--user", "daemon", "--try-bind", *place)
        (holder,) = found["holders"]
        assert (holder["kind"], holder["pid"], holder["remote"]) == (
            "client", client.pid, "127.0.0.1:443",
        )  # fmt: skip
        assert holder["age_s"] >= 0
        assert (found["ephemeral"], found["reserved"]) == (True, False)
        assert found["bind"]["outcomes"] == ["EADDRINUSE"]
        assert found["tried"] == {"failed": "bind", "outcome": "EADDRINUSE"}
        text = " ".join(tracing.run("port", "43611", *place).stdout.split())
        assert f"{holder['comm']} (pid {client.pid}), user root: client, ESTABLISHED" in text
        assert "sysctl -w net.ipv4.ip_local_reserved_ports=43611" in text
        (wanted,) = told("ports", "--check", str(file), *place, code=5)
        assert [each["kind"] for each in wanted["problems"]] == ["conflict", "ephemeral"]
        # the advice is followed: the next client will not get it, this one still has it
        client.stdin.write("43611\n")
        client.stdin.flush()
        assert client.stdout.readline() == "0\n"
        (found, _) = told("port", "43611", *place)
        assert (found["reserved"], found["bind"]["works"]) == (True, False)
        (wanted,) = told("ports", "--check", str(file), *place, code=5)
        assert [each["kind"] for each in wanted["problems"]] == ["conflict"]
        assert (told("ports", *place)[0]["reserved"]) == [[43611, 43611]]
    (wanted,) = told("ports", "--check", str(file), *place)
    assert wanted["ok"] is True


def test_a_namespace_with_nobody_in_it(hosts: Hosts) -> None:
    (found, _) = told("port", "80", "--netns", hosts.server, "--try-bind")
    assert (found["holders"], found["tried"]["outcome"]) == ([], "success")
    assert found["netns"] == os.stat(f"/run/netns/{hosts.server}").st_ino


def test_commands_are_for_the_namespace_that_was_asked_about(hosts: Hosts, tmp_path: Path) -> None:
    """Typed as they are printed they would overwrite the list of the host otherwise."""
    file = tmp_path / "ports.yaml"
    entries = ("port: 43611", "port: 43612", "port: 80, address: '2001:db8::77'")
    file.write_text("ports:\n" + "".join(f"- {{{each}}}\n" for each in entries))
    serve = "import socket, sys; s = socket.create_server(('127.0.0.1', 43611)); print(flush=True)"
    command = hosts.in_server([sys.executable, "-c", f"{serve}; sys.stdin.read()"])
    with running(command) as server:
        assert server.stdout and server.stdout.readline() == "\n"
        places = {
            hosts.server: f"ip netns exec {hosts.server} ",
            str(server.pid): f"nsenter -t {server.pid} -n ",
        }
        for place, enter in places.items():
            for words in (("port", "43611"), ("ports",), ("ports", "--check", str(file))):
                text = " ".join(tracing.run(*words, "--netns", place).stdout.split())
                assert text.count("sysctl -w") == text.count(f"{enter}sysctl -w") > 0
                assert text.count("ip address add") == text.count(f"{enter}ip address add")
                assert "/etc/sysctl.d" not in text
        assert "-w net.ipv6.ip_nonlocal_bind" in text


# Two connections from a range of so many ports, to one server: the ends print what they have.
FILLING = """
import socket, sys
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("43660 43663")
server = socket.create_server(("127.0.0.1", 443), backlog=9)
kept = [socket.create_connection(("127.0.0.1", 443)) for _ in range(int(sys.argv[1]))]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [4, 2])
def test_a_range_that_is_used_up(number: int) -> None:
    """Towards which destination, and by whom; half of it is no shortage."""
    with Hosts() as made:
        command = made.in_client([sys.executable, "-c", FILLING, str(number)])
        with running(command) as client:
            assert client.stdout and client.stdout.readline() == "ready\n"
            first, *rest = told("ports", "--netns", made.client)
            text = " ".join(tracing.run("ports", "--netns", made.client).stdout.split())
    assert first["taken"] == number
    assert f"of these {number} of 4 have a TCP socket" in text
    found = [each for each in rest if each["type"] == "finding"]
    if number < 4:
        assert found == []
        return
    towards, at_all = found
    assert (towards["rule"], towards["severity"]) == ("ephemeral-exhaustion", "critical")
    assert towards["subject"]["destination"] == "127.0.0.1:443"
    assert towards["subject"]["pids"] == [client.pid]
    assert f"(pid {client.pid}) has 4 of them" in text
    assert "a bind to port 0 gets none" in at_all["summary"]


def test_a_container_is_named() -> None:
    with box("c" * 64) as web:
        (found, _) = told("port", str(LISTENING))
        named = [each for each in found["elsewhere"] if each["container"]]
        assert [(each["kind"], each["container"], each["pid"]) for each in named] == [
            ("namespace", "c" * 12, web.pid)
        ]
        assert f"the network of container {'c' * 12}" in named[0]["why"]
        assert found["holders"] == []
        (inside, _) = told("port", str(LISTENING), "--netns", str(web.pid))
        assert [(each["kind"], each["pid"]) for each in inside["holders"][:1]] == [
            ("listener", web.pid)
        ]


def test_in_a_pid_namespace_of_its_own() -> None:
    """Processes outside do not show there: that is no proof that the kernel has the socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            *tracing.PORTTRACE,
            "port",
            "--json",
        ]
        done = subprocess.run(
            [*command, str(server.getsockname()[1])], capture_output=True, text=True, check=True
        )
    (holder,) = json.loads(done.stdout.splitlines()[0])["holders"]
    assert (holder["kind"], holder["pid"]) == ("listener", 0)
    assert "a pid namespace of its own (--pid=host shows all)" in holder["why"]


def test_without_root() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = as_nobody("port", port, "--try-bind")
        assert done.returncode == 0, done.stderr
        text = " ".join(done.stdout.split())
        assert (
            f"LISTEN 127.0.0.1:{port}" in text
            and "a process that cannot be seen, user root" in text
        )
        assert "this bind sets no option for sharing" in text and "neither socket" not in text
        assert "really: bind failed with EADDRINUSE" in text
        assert "not seen the sockets of" in text
        assert "other network namespaces: they were not looked at (root may)" in text
        listed = as_nobody("ports")
        assert f"{port}/tcp" in listed.stdout and "Not seen: the sockets of" in listed.stdout
    refused = as_nobody("port", port, "--user", "root", "--try-bind")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "hint: run it with sudo" in refused.stderr
    closed = as_nobody("port", port, "--netns", "1")
    assert closed.returncode == 3 and "CAP_SYS_ADMIN" in closed.stderr


def test_a_process_that_cannot_be_verified() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, NamedTemporaryFile("w") as file:
        os.chmod(file.name, 0o644)  # nobody is to read it
        entry = f"port: {server.getsockname()[1]}, address: 127.0.0.1, owner: root"
        file.write(f"ports:\n- {{{entry}, process: no-such-one}}\n")
        file.flush()
        done = as_nobody("ports", "--check", file.name, "--json")
        text = as_nobody("ports", "--check", file.name)
        seen = tracing.run("ports", "--check", file.name, "--json")
    found = json.loads(done.stdout)
    assert [each["kind"] for each in found["problems"]] == ["ephemeral"]
    assert [each["kind"] for each in found["not_verified"]] == ["process"]
    assert "not verified: whether it is no-such-one" in " ".join(text.stdout.split())
    kinds = [each["kind"] for each in json.loads(seen.stdout)["problems"]]
    assert kinds == ["conflict", "ephemeral"]


def as_nobody(*words: str) -> "subprocess.CompletedProcess[str]":
    tracing.need_an_open_checkout()
    return subprocess.run(
        [*tracing.PORTTRACE, *words], user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
