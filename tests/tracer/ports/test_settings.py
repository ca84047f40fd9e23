"""What a network namespace says of ports and addresses, and whether the host is a node."""

from pathlib import Path

import pytest

from porttrace.tracer.diag import BOUND, ESTABLISHED, LISTEN
from porttrace.tracer.ports import addresses
from porttrace.tracer.ports.addresses import is_local
from porttrace.tracer.ports.kubernetes import node_ports
from porttrace.tracer.ports.overlap import overlaps, packed
from porttrace.tracer.ports.settings import Settings, port_list, port_text, settings
from porttrace.tracer.ports.socks import Sock


def test_the_settings_of_this_host() -> None:
    found = settings()
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert list(found.range) == list(map(int, text.split()))
    assert (
        port_text(found.reserved)
        == Path("/proc/sys/net/ipv4/ip_local_reserved_ports").read_text().strip()
    )
    assert found.netns == Path("/proc/self/ns/net").stat().st_ino


def test_lists_of_ports() -> None:
    assert port_list("") == ()
    assert port_list("8080,9000-9010") == ((8080, 8080), (9000, 9010))
    assert port_text(port_list("8080,9000-9010")) == "8080,9000-9010"
    host = Settings(reserved=port_list("40000-40001"))
    assert [host.is_ephemeral(port) for port in (32767, 32768, 40001, 60999, 61000)] == [
        False, True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "is_ours"),
    [("0.0.0.0", True), ("::", True), ("127.0.0.1", True), ("127.200.0.1", True),
     ("192.0.2.77", False), ("2001:db8::77", False), ("224.0.0.1", True),
     ("::ffff:127.0.0.1", True), ("::ffff:192.0.2.77", False)],
)  # fmt: skip
def test_addresses(address: str, is_ours: bool) -> None:
    assert is_local(address) is is_ours


def test_an_address_of_which_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_V4", "/nonexistent")
    assert is_local("192.0.2.77") is None
    assert is_local("0.0.0.0") is True


def sock(address: str, state: int = LISTEN, v6only: bool | None = None) -> Sock:
    raw = packed(address)
    return Sock("tcp", 10 if len(raw) == 16 else 2, state, 0, 0, raw, 80, bytes(len(raw)), 0, 0, 0,
                0, 0, 0, 0, v6only, -1)  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "address", "v6only", "meets"),
    [
        (sock("127.0.0.1"), "", False, True),
        (sock("127.0.0.1"), "127.0.0.1", False, True),
        (sock("127.0.0.1"), "127.0.0.2", False, False),
        (sock("127.0.0.1"), "::ffff:127.0.0.1", False, True),
        (sock("127.0.0.1"), "::", False, True),
        (sock("127.0.0.1"), "::", True, False),
        (sock("0.0.0.0"), "::", True, False),
        (sock("::", v6only=False), "0.0.0.0", False, True),
        (sock("::", v6only=True), "0.0.0.0", False, False),
        (sock("::", v6only=True), "::1", False, True),
        (sock("::1"), "0.0.0.0", False, False),
        (sock("::1", BOUND), "0.0.0.0", False, False),
        # connected over IPv6 without having been bound to an address: in the way of 0.0.0.0
        (sock("::1", ESTABLISHED), "0.0.0.0", False, True),
        (sock("::1", ESTABLISHED), "127.0.0.1", False, False),
    ],
)
def test_who_meets(theirs: Sock, address: str, v6only: bool, meets: bool) -> None:
    assert overlaps(theirs, address, v6only) is meets


def test_no_address() -> None:
    with pytest.raises(ValueError, match="'web' is no IP address"):
        packed("web")


def host(root: Path, *commands: str) -> Path:
    for number, command in enumerate(commands, 1):
        (root / "proc" / str(number)).mkdir(parents=True)
        (root / "proc" / str(number) / "cmdline").write_bytes(command.encode())
    (root / "proc").mkdir(exist_ok=True)
    return root


def test_nodes_of_kubernetes(tmp_path: Path) -> None:
    assert node_ports(host(tmp_path / "a", "/sbin/init", "/usr/sbin/nginx\0-g")) is None
    assert node_ports(host(tmp_path / "b", "/usr/bin/kubelet\0--config=x")) == (30000, 32767)
    server = "kube-apiserver\0--service-node-port-range=20000-22767\0--v=2"
    assert node_ports(host(tmp_path / "c", "/usr/bin/kubelet", server)) == (20000, 22767)
    (tmp_path / "d/etc/kubernetes").mkdir(parents=True)
    assert node_ports(host(tmp_path / "d")) == (30000, 32767)
