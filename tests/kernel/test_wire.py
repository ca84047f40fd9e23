"""The wire probe: when SYNs leave, what comes back, under which addresses; whatever else passes."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from porttrace.lab.hosts import CLIENT_V4
from porttrace.lab.site import DEAD, LIVE, Site, open_site
from porttrace.lab.throttle import Throttle
from tracing import Traced, trace

pytestmark = pytest.mark.kernel

# Waits at first: the wire of a namespace is watched soon after somebody is seen in it.
CLIENT = """
import socket, sys, time
time.sleep(0.5)
for there in sys.argv[1:]:
    address, _, port = there.rpartition("/")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(1.5)
        try:
            sock.connect((address, int(port)))
        except OSError:
            pass
"""
# Anything but a SYN of ours: cut off, wrong, with tags and headers that lead nowhere.
JUNK = f"""
import random, socket, time
time.sleep(0.5)
dice = random.Random(7)
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("lo", 0))
for kind in (0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806) * 40:
    packet = bytearray(dice.randbytes(dice.randrange(0, 90)))
    if packet and dice.random() < 0.7:
        packet[0] = dice.choice((0x45, 0x4f, 0x40, 0x60))
    if len(packet) > 9:
        packet[dice.choice((6, 9))] = dice.choice((6, 1, 58, 0, 43, 44, 51, 60))
    try:
        out.send(bytes(12) + kind.to_bytes(2, "big") + packet)
    except OSError:
        pass
{CLIENT}
"""
# Answers the first SYN that it sees with a RST of its own making.
FORGER = """
import socket, struct, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
out.bind(("veth0", 0))
out.settimeout(10)
print("ready", flush=True)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack("!H", ~total & 0xffff)
while True:
    frame = out.recv(2048)
    mac = frame[6:12] + frame[:6]
    if frame[12:14] == b"\\x08\\x00" and frame[23] == 6 and frame[47] & 0x12 == 2:
        source, there, tcp = frame[26:30], frame[30:34], frame[34:54]
        break
    if frame[12:14] == b"\\x86\\xdd" and frame[20] == 6 and frame[67] & 0x12 == 2:
        source, there, tcp = frame[22:38], frame[38:54], frame[54:74]
        break
ack = (struct.unpack("!I", tcp[4:8])[0] + 1) & 0xffffffff
rst = tcp[2:4] + tcp[:2] + struct.pack("!IIBBHHH", 0, ack, 0x50, 0x14, 0, 0, 0)
pseudo = there + source + struct.pack("!II", len(rst), 6) + rst
rst = rst[:16] + checksum(pseudo) + rst[18:]
if sys.argv[1] == "tags":
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + there + source
    head = head[:10] + checksum(head) + head[12:]
    frame = mac + bytes.fromhex("88a80007" "81000008" "0800") + head + rst
else:
    options = bytes((60, 0, 1, 4, 0, 0, 0, 0)) + bytes((6, 0, 1, 4, 0, 0, 0, 0))
    body = options + rst  # hop by hop, then for the destination
    head = struct.pack("!IHBB", 6 << 28, len(body), 0, 64) + there + source
    frame = mac + b"\\x86\\xdd" + head + body
out.send(frame)
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as found:
        yield found


@pytest.fixture(scope="module")
def routed() -> Iterator[Site]:
    with open_site(router=True) as found:
        yield found


def connects(where: Site, *there: str, code: str = CLIENT, options: tuple[str, ...] = ()) -> Traced:
    traced = trace(where.hosts.in_client([sys.executable, "-c", code, *there]), *options)
    assert traced.code == 0, traced.notes
    return traced


def in_namespace(name: str, *words: str) -> None:
    subprocess.run(["ip", "netns", "exec", name, *words], check=True, capture_output=True)


def nft(name: str, text: str) -> None:
    subprocess.run(
        ["ip", "netns", "exec", name, "nft", "-f", "-"], input=text, text=True, check=True
    )


def chain(hook: str, rule: str, name: str = "c") -> str:
    return f"table inet t {{\n chain {name} {{\n type {hook};\n {rule}\n }}\n}}\n"


def in_order(row: dict[str, Any], *marks: str) -> None:
    times = [row[mark] for mark in marks]
    assert all(times) and times == sorted(times), {mark: row[mark] for mark in marks}


@pytest.mark.parametrize("server", ["192.0.2.2", "2001:db8::2"])
def test_answers_lie_between_syn_and_end(site: Site, server: str) -> None:
    traced = connects(site, f"{server}/80", f"{server}/9")
    taken, refused = traced.attempts
    assert traced.report["trace"]["wire"] is True
    for row, answer in ((taken, "syn_ack"), (refused, "rst")):
        in_order(row, "call_ns", "syn_ns", "wire_ns", "answer_ns", "end_ns", "return_ns")
        assert (row["wire_count"], row["answer"]) == (1, answer)
        assert row["wire_saddr"] is None and row["wire_daddr"] is None


def test_nobody_answers_a_syn_that_left_twice(site: Site) -> None:
    (row,) = connects(site, "192.0.2.66/9100").attempts
    in_order(row, "syn_ns", "wire_ns", "wire_last_ns", "end_ns")
    assert (row["wire_count"], row["answer"], row["answer_ns"]) == (2, "none", None)
    assert row["wire_last_ns"] - row["wire_ns"] > 0.9e9


def test_an_icmp_error_is_told_by_type_and_code(routed: Site) -> None:
    rules = chain("filter hook forward priority 0", "tcp dport 7 reject")
    nft(routed.hosts.router, rules)
    for there, icmp in (("192.0.2.2/7", (3, 3)), ("2001:db8::2/7", (1, 4))):
        (row,) = connects(routed, there).attempts
        in_order(row, "syn_ns", "wire_ns", "answer_ns", "end_ns")
        assert row["answer"] == "icmp"
        assert (row["icmp_type"], row["icmp_code"]) == icmp


def test_a_syn_that_never_left_and_why(site: Site) -> None:
    nft(site.hosts.client, chain("filter hook output priority 0", "tcp dport 81 drop"))
    (row,) = connects(site, "192.0.2.2/81").attempts
    assert (row["wire_ns"], row["wire_count"], row["answer"]) == (None, 0, "none")
    # Linux before 5.17 gives no reason
    assert row["drop_reason"] in ("NETFILTER_DROP", None)
    in_namespace(site.hosts.client, "nft", "delete", "table", "inet", "t")


def test_translated_addresses_are_named(site: Site) -> None:
    in_namespace(site.hosts.client, "ip", "addr", "add", "192.0.2.5/24", "dev", "veth0")
    in_namespace(site.hosts.client, "ip", "route", "add", "198.51.100.10", "dev", "veth0")
    there = "ip daddr 198.51.100.10 dnat ip to 192.0.2.2"
    nft(site.hosts.client, chain("nat hook output priority -100", there, "o"))
    nft(site.hosts.client, chain("nat hook postrouting priority 100", "snat ip to 192.0.2.5", "p"))
    masked, both = connects(site, "192.0.2.2/80", "198.51.100.10/80").attempts
    for row in (masked, both):
        in_order(row, "syn_ns", "wire_ns", "answer_ns", "end_ns")
        assert (row["outcome"], row["answer"], row["saddr"]) == (
            "established",
            "syn_ack",
            CLIENT_V4,
        )
        assert (row["wire_saddr"], row["wire_sport"]) == ("192.0.2.5", row["sport"])
        assert (row["wire_daddr"], row["wire_dport"]) == ("192.0.2.2", 80)
    assert (both["daddr"], both["dport"]) == ("198.51.100.10", 80)
    in_namespace(site.hosts.client, "nft", "delete", "table", "inet", "t")


@pytest.mark.parametrize(
    ("there", "how", "outcome"),
    [
        # the kernel throws away what has a tag that is none of its own; the wire has seen it
        ("192.0.2.66/9100", "tags", "cancelled"),
        ("2001:db8::66/9100", "headers", "refused"),
    ],
)
def test_tags_and_headers_in_front_of_an_answer(
    site: Site, there: str, how: str, outcome: str
) -> None:
    command = site.hosts.in_server([sys.executable, "-c", FORGER, how])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forger:
        assert forger.stdout is not None and forger.stdout.readline() == "ready\n"
        (row,) = connects(site, there).attempts
        assert forger.wait(timeout=10) == 0
    in_order(row, "syn_ns", "wire_ns", "answer_ns", "end_ns")
    assert (row["answer"], row["answers"], row["outcome"]) == ("rst", 1, outcome)


def test_a_router_that_is_watched_too_counts_no_syn_again(routed: Site) -> None:
    # GIVEN somebody who is traced in the router's namespace, where SYNs are held on their way
    gateway = Throttle("gateway", 1, "process")
    words = ("--dead", DEAD, "--live", LIVE, "--dead-time", "0.9", "--truth", "/dev/null")
    there = f'ip netns exec {routed.hosts.router} sleep 6 & sleep 1; exec "$@"'
    held = routed.argv("two_threads", *words, throttle=gateway)
    # WHEN one SYN waits there for the other attempt to end
    traced = trace(["sh", "-c", there, "sh", *held])
    # THEN that it goes on is not another SYN
    (late,) = (row for row in traced.attempts if row["dport"] == 80)
    assert (late["end_ns"] - late["syn_ns"]) / 1e9 > 0.3
    assert {row["wire_count"] for row in traced.attempts} == {1}


def test_junk_breaks_nothing(site: Site) -> None:
    traced = connects(site, "192.0.2.2/80", code=JUNK)
    (row,) = traced.attempts
    in_order(row, "syn_ns", "wire_ns", "answer_ns", "end_ns")
    assert traced.report["trust"]["complete"]


def test_without_the_wire_nothing_is_claimed(site: Site) -> None:
    traced = connects(site, "192.0.2.2/80", options=("--no-wire",))
    (row,) = traced.attempts
    assert traced.report["trace"]["wire"] is False
    assert (row["wire_ns"], row["wire_count"], row["answer_ns"]) == (None, 0, None)
