"""The packet filter's rules of a throttle: put in place for a while, and taken away again.

They are made in a network namespace of the lab only, so that they go with it even when the lab is
killed. Rules that queue say `--queue-bypass`: without a reader, packets pass as if there were none.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from porttrace.lab.errors import LabError

QUEUE_NUMBER = 7077
DENY_MARK, DROP_MARK = 0x70740001, 0x70740002
_CHAIN = "PORTTRACE-LAB"
_TABLE = "porttrace_lab"
SYN_ONLY = "tcp flags & (fin|syn|rst|ack) == syn"
# By iptables, since kernels without CONFIG_NFT_QUEUE still have its NFQUEUE target.
_SYN = "-p tcp --tcp-flags FIN,SYN,RST,ACK SYN"
_SYN_ACK = "-p tcp --tcp-flags FIN,SYN,RST,ACK SYN,ACK"


@contextmanager
def queued(netns: str, syns_in: str, answers_in: str = "") -> Iterator[None]:
    """Queue the SYNs of one chain of the mangle table, and the SYN-ACKs of another, if any.

    `netns` is the name of a network namespace, or "" for that of the caller; the chains are
    OUTPUT, FORWARD and INPUT.
    """
    jumps = {syns_in: _SYN, **({answers_in: _SYN_ACK} if answers_in else {})}
    _unqueue(netns, list(jumps))
    try:
        for command in ("iptables-restore", "ip6tables-restore"):
            _run(netns, [command, "--noflush"], _queueing(jumps))
        yield
    finally:
        _unqueue(netns, list(jumps))


@contextmanager
def filtered(netns: str, hook: str, *lines: str, sets: tuple[str, ...] = ()) -> Iterator[None]:
    """Have an nftables chain of these rule lines at a hook: output, forward or input."""
    chain = f"chain at {{ type filter hook {hook} priority 0; policy accept;\n"
    table = "\n".join((f"table inet {_TABLE} {{", *sets, chain, *lines, "}", "}", ""))
    _unfilter(netns)
    try:
        _run(netns, ["nft", "-f", "-"], table)
        yield
    finally:
        _unfilter(netns)


def _queueing(jumps: dict[str, str]) -> str:
    target = f"-j NFQUEUE --queue-num {QUEUE_NUMBER} --queue-bypass"
    lines = [line for each, match in jumps.items() for line in _queue_lines(each, match, target)]
    return "\n".join(("*mangle", *lines, "COMMIT", ""))


def _queue_lines(chain: str, match: str, target: str) -> tuple[str, ...]:
    own = f"{_CHAIN}-{chain}"
    return f":{own} - [0:0]", f"-A {own} {match} {target}", f"-A {chain} -j {own}"


# What is not there cannot be removed, and that is well.
def _unqueue(netns: str, chains: list[str]) -> None:
    for command in ("iptables", "ip6tables"):
        for chain in chains:
            own = f"{_CHAIN}-{chain}"
            for words in (["-D", chain, "-j", own], ["-F", own], ["-X", own]):
                _run(netns, [command, "-w", "-t", "mangle", *words], must=False)


def _unfilter(netns: str) -> None:
    _run(netns, ["nft", "delete", "table", "inet", _TABLE], must=False)


def _run(netns: str, words: list[str], text: str = "", must: bool = True) -> None:
    command = [*(["ip", "netns", "exec", netns] if netns else []), *words]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(
            f"the throttle needs the command {command[0]}, which is not installed",
            "apt-get install nftables iptables iproute2",
        ) from error
    if must and done.returncode != 0:
        raise LabError(
            f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}",
            "the throttle needs CAP_NET_ADMIN, and a kernel with nftables and NFQUEUE",
        )
