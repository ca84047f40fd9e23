"""porttrace ports: the list and what is risky, and the check of a file, over real sockets."""

import contextlib
import json
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from porttrace.cli import main

LOCAL = "127.0.0.1"
ME = pwd.getpwuid(os.geteuid()).pw_name
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server((LOCAL, 0)) as made:
        yield made


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def objects(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# -- the list ----------------------------------------------------------------------


def test_the_list(capsys: Capture, server: socket.socket) -> None:
    assert main(["ports", "--json"]) == 0
    first, *rest = objects(capsys)
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert (first["type"], first["range"]) == ("ports", [low, high])
    assert first["states"]["LISTEN"] >= 1
    mine = [each for each in rest if each["type"] == "socket" and each["pid"] == os.getpid()]
    (listed,) = [each for each in mine if each["port"] == port_of(server)]
    assert (listed["kind"], listed["user"], listed["risks"]) == (
        "listener",
        ME,
        ["a client may get it"],
    )
    risky = [each for each in rest if each["type"] == "finding"]
    (found,) = [each for each in risky if each["subject"]["pid"] == os.getpid()]
    assert (found["rule"], found["severity"]) == ("fixed-port-at-risk", "warning")
    assert 0.5 < found["confidence"] < 0.8  # it may have asked for any port, as this one did
    assert port_of(server) in found["subject"]["ports"]
    assert f"{port_of(server)}" in found["advice"][0]


def test_the_list_as_text(capsys: Capture, server: socket.socket) -> None:
    os_name = Path("/proc/self/comm").read_text().strip()
    before = os_name.encode()
    Path("/proc/self/comm").write_bytes(b"a\x1b[2Jb\nc")
    try:
        assert main(["ports"]) == 0
    finally:
        Path("/proc/self/comm").write_bytes(before)
    out = capsys.readouterr().out
    lines = out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{port_of(server)}/tcp")]
    line, below = lines[at], lines[at + 1]
    assert "a\\x1b[2Jb\\x0ac" in line and "\x1b" not in out
    assert line.split()[1] == LOCAL and line.endswith(" a client may get")
    assert below == " " * 64 + "it"
    assert "netsh int ipv4 show dynamicport" in out
    assert "[WARNING] fixed-port-at-risk: likely" in out
    # a command is not cut, and names every port that a server has just then
    folded = [line for line in lines if "ip_local_reserved_ports=" not in line]
    assert max(map(len, folded)) <= 80


def test_a_group_and_an_idle_socket(capsys: Capture) -> None:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((LOCAL, 0))
        other.bind(one.getsockname())
        one.listen()
        other.listen()
        main(["ports", "--json"])
        mine = [e for e in objects(capsys) if e["type"] == "socket" and e["port"] == port_of(one)]
    assert [each["risks"][-1] for each in mine] == ["shared by 2 sockets"] * 2


def test_a_group_on_different_addresses(capsys: Capture) -> None:
    with contextlib.ExitStack() as kept:
        made = [kept.enter_context(socket.socket()) for _ in range(4)]
        for each in made[:3]:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made[0].bind(("0.0.0.0", 0))
        made[1].bind(made[0].getsockname())
        made[2].bind((LOCAL, port_of(made[0])))
        made[3].bind((LOCAL, 0))  # the control: one alone
        for each in made:
            each.listen()
        main(["ports", "--json"])
        ports = port_of(made[0]), port_of(made[3])
        found = [e for e in objects(capsys) if e["type"] == "socket" and e["port"] in ports]
        told = {(each["port"], each["address"]): each for each in found}
        assert told[ports[0], LOCAL]["reuseport"] is True
        assert told[ports[0], LOCAL]["risks"][-1] == "SO_REUSEPORT"
        assert told[ports[0], "0.0.0.0"]["risks"][-1] == "shared by 2 sockets"
        assert told[ports[1], LOCAL]["reuseport"] is None
        assert main(["port", str(ports[0]), "--tcp"]) == 0
        assert " ".join(capsys.readouterr().out.split()).count("SO_REUSEPORT is set") == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has sockets of two users")
@pytest.mark.parametrize(
    ("mine", "theirs", "kind"),
    [
        ("0.0.0.0", LOCAL, socket.SOCK_DGRAM),
        ("0.0.0.0", "::", socket.SOCK_STREAM),
        ("0.0.0.0", "::", socket.SOCK_DGRAM),
    ],
)
def test_another_user_beside_the_wildcard(
    capsys: Capture, mine: str, theirs: str, kind: socket.SocketKind
) -> None:
    """Both are hijacks by docs/ports.md: a narrower address, and the other family."""
    family = socket.AF_INET6 if ":" in theirs else socket.AF_INET
    with socket.socket(socket.AF_INET, kind) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((mine, 0))
        if kind is socket.SOCK_STREAM:
            one.listen()
        os.seteuid(65534)
        try:
            other = socket.socket(family, kind)  # whoever makes it owns it
        finally:
            os.seteuid(0)
        with other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind((theirs, port_of(one)))
            if kind is socket.SOCK_STREAM:
                other.listen()
            main(["ports", "--json"])
        number = port_of(one)
    sockets = [each for each in objects(capsys) if each["type"] == "socket"]
    risks = {each["address"]: each["risks"] for each in sockets if each["port"] == number}
    assert f"nobody has {f'[{theirs}]' if ':' in theirs else theirs}" in risks[mine]
    assert ("root has 0.0.0.0" in risks[theirs]) is (theirs == "::")


def test_no_remark_where_one_user_has_both(capsys: Capture) -> None:
    with served_on("0.0.0.0") as four, socket.socket(socket.AF_INET6) as six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::", port_of(four)))
        six.listen()
        main(["ports", "--json"])
        number = port_of(four)
    sockets = [each for each in objects(capsys) if each["type"] == "socket"]
    risks = [each["risks"] for each in sockets if each["port"] == number]
    assert risks == [["a client may get it"]] * 2


# -- the check ---------------------------------------------------------------------


def checked(
    capsys: Capture, tmp_path: Path, text: str, code: int = 5
) -> list[list[tuple[str, str]]]:
    """Return for each wanted port its problems as (kind, what)."""
    file = tmp_path / "ports.yaml"
    file.write_text(text)
    assert main(["ports", "--check", str(file), "--json"]) == code
    found = objects(capsys)
    assert {each["type"] for each in found} == {"wanted"}
    assert all(each["ok"] is (not each["problems"]) for each in found)
    assert not any(each["not_verified"] for each in found)
    return [[(each["kind"], each["what"]) for each in one["problems"]] for one in found]


def kinds(found: list[list[tuple[str, str]]]) -> list[list[str]]:
    return [[kind for kind, _ in one] for one in found]


def test_all_is_fine(capsys: Capture, tmp_path: Path) -> None:
    text = "ports:\n- {port: 5432, address: 127.0.0.1}\n- {port: 8443, protocol: udp, name: quic}\n"
    assert checked(capsys, tmp_path, text, 0) == [[], []]
    assert main(["ports", "--check", str(tmp_path / "ports.yaml")]) == 0
    out = capsys.readouterr().out
    assert "ok    quic, 0.0.0.0:8443/udp (line 3): not served now" in out
    assert out.endswith("All 2 wanted ports are fine.\n")


def test_its_own_service_is_no_conflict(
    capsys: Capture, tmp_path: Path, server: socket.socket
) -> None:
    text = f"ports:\n- port: {port_of(server)}\n  address: {LOCAL}\n  owner: {ME}\n"
    assert kinds(checked(capsys, tmp_path, text)) == [["ephemeral"]]


def test_somebody_elses(capsys: Capture, tmp_path: Path, server: socket.socket) -> None:
    text = f"ports:\n- port: {port_of(server)}\n  owner: daemon\n"
    ((conflict, ephemeral),) = checked(capsys, tmp_path, text)
    assert conflict[0] == "conflict" and ephemeral[0] == "ephemeral"
    assert f"(pid {os.getpid()})" in conflict[1] and f"of user {ME} (listener)" in conflict[1]
    text = f"ports:\n- port: {port_of(server)}\n  process: another-one\n"
    assert kinds(checked(capsys, tmp_path, text)) == [["conflict", "ephemeral"]]


def test_what_has_to_be_served(capsys: Capture, tmp_path: Path, server: socket.socket) -> None:
    """A service that does not run is wrong where the file says so, and only there."""
    text = "ports:\n- {port: 5432, served: true, owner: daemon, process: postgres}\n"
    ((told,),) = checked(capsys, tmp_path, text)
    assert told == (
        "not-served",
        "the file says that it is served, and no postgres of user daemon serves it",
    )
    assert checked(capsys, tmp_path, text.replace("true", "false"), 0) == [[]]
    # one that runs is fine; one that somebody else has is not
    mine = f"ports:\n- {{port: {port_of(server)}, address: {LOCAL}, served: true}}\n"
    assert kinds(checked(capsys, tmp_path, mine)) == [["ephemeral"]]
    theirs = mine.replace("served", "owner: daemon, served")
    assert kinds(checked(capsys, tmp_path, theirs)) == [["conflict", "not-served", "ephemeral"]]


def test_a_client_has_it(capsys: Capture, tmp_path: Path, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname()) as client:
        text = f"ports:\n- port: {port_of(client)}\n"
        ((conflict, _),) = checked(capsys, tmp_path, text)
        assert f"(client to {LOCAL}:{port_of(server)})" in conflict[1]
        assert main(["ports", "--check", str(tmp_path / "ports.yaml")]) == 5
    out = " ".join(capsys.readouterr().out.split())
    assert "end that connection, and reserve the port" in out
    assert "1 of 1 wanted ports have problems." in out


def test_rights_users_addresses_and_duplicates(capsys: Capture, tmp_path: Path) -> None:
    text = """
ports:
- {port: 7, owner: daemon}
- {port: 8, owner: daemon, capable: true}
- {port: 5000, owner: no-such-user}
- {port: 5001, address: 192.0.2.77}
- {port: 5002, address: 127.0.0.1}
- {port: 5002, address: "::"}
- {port: 5002, protocol: udp}
- {port: 5003, reuseport: true, owner: daemon}
- {port: 5003, reuseport: true, owner: daemon}
"""
    assert kinds(checked(capsys, tmp_path, text)) == [
        ["privileged"], [], ["owner"], ["address"], [], ["duplicate"], [], [], [],
    ]  # fmt: skip


def test_node_ports(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import porttrace.cli.portcheck as module

    monkeypatch.setattr(module, "node_ports", lambda: (30000, 32767))
    text = "ports:\n- port: 30000\n- port: 29999\n"
    found = checked(capsys, tmp_path, text)
    assert kinds(found) == [["node-port"], []]
    assert "NodePort range 30000-32767" in found[0][0][1]


BAD = [
    ("ports:\n- port: 80\n  proto: tcp\n", "line 3: ports[0].proto: no such key; there"),
    ("ports:\n- port: 80\n- port: eighty\n", "line 3: ports[1].port: 'eighty' is no port"),
    ('ports:\n- port: "80"\n', "line 2: ports[0].port: '80' is a text: write 80 without quotes"),
    ("ports:\n- port: 022\n", "line 2: ports[0].port: 022 is another number in YAML, 18: write"),
    ("ports:\n- port: 0x50\n", "line 2: ports[0].port: 0x50 is another number in YAML, 80: write"),
    ("ports:\n- port: 70000\n", "line 2: ports[0].port: 70000 is no port"),
    ("ports:\n- port: true\n", "line 2: ports[0].port: True is no port"),
    ("ports:\n- name: web\n", "line 2: ports[0].port: the key is missing"),
    ("ports:\n- port: 1\n  port: 2\n", "line 3: ports[0].port: the key stands twice"),
    ("ports:\n- port: 1\n  protocol: sctp\n", "line 3: ports[0].protocol: 'sctp' is no protocol"),
    ("ports:\n- port: 1\n  address: web\n", "line 3: ports[0].address: 'web' is no IP address"),
    ("ports:\n- port: 1\n  capable: 3\n", "line 3: ports[0].capable: 3 is neither true nor false"),
    ("ports:\n- port: 1\n  owner: [a]\n", "line 3: ports[0].owner: one value is needed"),
    ("ports:\n- 80\n", "line 2: ports[0]: keys are needed"),
    ("ports: 80\n", "line 1: ports: a list of ports is needed"),
    ("ports: []\n", "line 1: ports: a list of ports is needed"),
    ("hosts: []\n", "line 1: hosts: no such key; there are ports"),
    ("- port: 80\n", "line 1: a list under the key 'ports' is needed"),
    ("", "a list under the key 'ports' is needed"),
    ("ports:\n- port: [80\n", "line 3: no YAML:"),
    ("ports:\n- port: !!python/object:os.system 80\n", "ports[0].port: could not determine"),
    ("ports:\n- port: 1\n  owner: 2020-01-01\n", "line 3: ports[0].owner:"),
    ("[" * 5000, ": "),
    ("ports:\n- port: \x00\n", "no YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=lambda value: repr(value)[:40])
def test_a_bad_file(capsys: Capture, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ports.yaml"
    file.write_text(text)
    assert main(["ports", "--check", str(file)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert str(file) in err and message in err
    assert "Traceback" not in err


def test_a_file_that_is_not_there(capsys: Capture, tmp_path: Path) -> None:
    assert main(["ports", "--check", str(tmp_path / "none.yaml")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_a_file_that_is_too_long(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "long").write_text("#" * (1 << 20) + "\n")
    assert main(["ports", "--check", str(tmp_path / "long")]) == 2
    assert "more than 1048576 bytes" in capsys.readouterr().err


# -- served, but not where it is wanted ---------------------------------------------


def served_on(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.bind((address, 0))
    made.listen()
    return made


WHERE = [  # it serves there, it is wanted there, who gets nothing
    (LOCAL, "0.0.0.0", "clients over IPv4 to its other addresses get nothing"),
    ("0.0.0.0", "::", "clients over IPv6 get nothing"),
    ("::1", "::", "over IPv6 to its other addresses and clients over IPv4 get nothing"),
    (LOCAL, LOCAL, ""),
    ("0.0.0.0", LOCAL, ""),
    ("0.0.0.0", "0.0.0.0", ""),
    ("::", "0.0.0.0", ""),
    ("::", "::", ""),
    ("::", "::1", ""),
    ("::", "::ffff:127.0.0.1", ""),
]


@pytest.mark.parametrize(("there", "wanted", "missing"), WHERE)
def test_it_is_served_on_the_address_that_is_wanted(
    capsys: Capture, tmp_path: Path, there: str, wanted: str, missing: str
) -> None:
    with served_on(there) as server:
        text = f"ports:\n- port: {port_of(server)}\n  address: '{wanted}'\n"
        (found,) = checked(capsys, tmp_path, text)
    told = [what for kind, what in found if kind == "unserved"]
    assert len(told) == bool(missing)
    assert all(missing in what for what in told)
    assert [kind for kind, _ in found if kind != "unserved"] == ["ephemeral"]


def test_two_sockets_serve_both_families(capsys: Capture, tmp_path: Path) -> None:
    with served_on("0.0.0.0") as four, socket.socket(socket.AF_INET6) as six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::", port_of(four)))
        text = f"ports:\n- port: {port_of(four)}\n  address: '::'\n"
        ((missing, _),) = checked(capsys, tmp_path, text)
        assert missing[0] == "unserved" and "clients over IPv6 get" in missing[1]
        six.listen()
        assert kinds(checked(capsys, tmp_path, text)) == [["ephemeral"]]


def test_a_udp_client_serves_nobody(capsys: Capture, tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind((LOCAL, 0))
        client.connect(server.getsockname())
        text = f"ports:\n- port: {port_of(client)}\n  protocol: udp\n"
        assert kinds(checked(capsys, tmp_path, text)) == [["conflict", "ephemeral"]]


@pytest.mark.parametrize("reuseaddr", [None, True, False])
def test_a_udp_port_that_another_has_is_a_conflict(
    capsys: Capture, tmp_path: Path, reuseaddr: bool | None
) -> None:
    option = "" if reuseaddr is None else f", reuseaddr: {str(reuseaddr).lower()}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOCAL, 0))
        line = f"- {{port: {port_of(server)}, protocol: udp, address: {LOCAL}, "
        theirs = f"ports:\n{line}owner: daemon{option}}}\n"
        ((conflict, _),) = checked(capsys, tmp_path, theirs)
        assert conflict[0] == "conflict" and f"(pid {os.getpid()})" in conflict[1]
        assert main(["ports", "--check", str(tmp_path / "ports.yaml")]) == 5
        text = " ".join(capsys.readouterr().out.split())
        assert "not served by user daemon - conflict: held by" in text
        # its own
        assert kinds(checked(capsys, tmp_path, f"ports:\n{line}owner: {ME}}}\n")) == [["ephemeral"]]


def test_two_that_want_one_udp_port(capsys: Capture, tmp_path: Path) -> None:
    text = "ports:\n- {port: 5353, protocol: udp%s}\n- {port: 5353, protocol: udp%s}\n"
    found = checked(capsys, tmp_path, text % ("", ""))
    assert kinds(found) == [[], ["duplicate"]] and "is bound to the port" in found[1][0][1]
    shared = ", reuseaddr: true"
    assert checked(capsys, tmp_path, text % (shared, shared), 0) == [[], []]


# -- the same rule as porttrace port, and what cannot be verified --------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read options of other sockets")
@pytest.mark.parametrize("had_reuseaddr", [True, False])
def test_an_idle_socket_with_options(capsys: Capture, tmp_path: Path, had_reuseaddr: bool) -> None:
    with socket.socket() as idle, socket.socket() as second:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, had_reuseaddr)
        idle.bind((LOCAL, 0))
        text = f"ports:\n- {{port: {port_of(idle)}, owner: root, process: another}}\n"
        found = kinds(checked(capsys, tmp_path, text))
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            second.bind(("0.0.0.0", port_of(idle)))
            works = True
        except OSError:
            works = False
    assert works is had_reuseaddr
    assert found == [["ephemeral"] if works else ["conflict", "ephemeral"]]


def in_time_wait(reuseaddr: bool) -> int:
    """Return a port of ours with a connection in TIME_WAIT, below the ephemeral range."""
    for port in range(28100, 28200):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuseaddr)
        try:
            server.bind((LOCAL, port))
        except OSError:
            server.close()
            continue
        with server:
            server.listen()
            with socket.create_connection((LOCAL, port)) as client:
                server.accept()[0].close()
                assert client.recv(1) == b""
        return port
    raise AssertionError("no port is free")


def test_time_wait_may_be_in_the_way(capsys: Capture, tmp_path: Path) -> None:
    port = in_time_wait(reuseaddr=False)
    file = tmp_path / "ports.yaml"
    file.write_text(f"ports:\n- port: {port}\n")
    assert main(["ports", "--check", str(file)]) == 0
    out, err = capsys.readouterr()
    flat = " ".join(out.split())
    assert flat.startswith("? ") and "(time wait to 127.0.0.1:" in flat
    assert "The closed connection decides it by options" in flat
    assert f"sudo porttrace port {port} --tcp --address 0.0.0.0 --reuseaddr --try-bind" in flat
    assert flat.endswith("1 of 1 could not be verified.")
    assert err.startswith("note: 1 of 1 wanted ports could not be verified; --strict")
    assert main(["ports", "--check", str(file), "--strict", "--json"]) == 5
    (found,) = objects(capsys)
    assert (found["ok"], found["problems"]) == (None, [])
    assert [each["kind"] for each in found["not_verified"]] == ["bind"]
    file.write_text(f"ports:\n- port: {port}\n  reuseaddr: false\n")
    assert main(["ports", "--check", str(file), "--json"]) == 5
    (found,) = objects(capsys)
    assert [each["kind"] for each in found["problems"]] == ["conflict"]


def test_strict_is_for_the_check(capsys: Capture) -> None:
    assert main(["ports", "--strict"]) == 2
    assert "--check FILE" in capsys.readouterr().err
