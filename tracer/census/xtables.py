"""The rules of iptables in its old form, in our own network namespace.

They are another set than those of nft: the kernel names their tables in /proc.
"""

import shlex
from collections.abc import Iterator
from itertools import pairwise

from porttrace.tracer.census.commands import CommandError, answer
from porttrace.tracer.census.host import HERE, HostFiles
from porttrace.tracer.census.rules import Rule, facts, hooks_by_chain, worst
from porttrace.tracer.facts import Fact, NotLooked

_FAMILIES = {"ip_tables_names": "iptables-legacy-save", "ip6_tables_names": "ip6tables-legacy-save"}
_DOES = {
    "NFQUEUE": "queue", "REJECT": "reject", "DROP": "drop", "connlimit": "connlimit",
    "limit": "limit", "hashlimit": "limit",
}  # fmt: skip
_OTHER = ("udp", "icmp", "icmpv6", "ipv6-icmp", "sctp", "udplite", "esp", "ah", "gre")


def look(pid: int, files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield the rules that could hold or stop a TCP connect of process `pid`.

    Must run in the network namespace of that process.
    """
    for names, command in _FAMILIES.items():
        if not files.found(f"/proc/{pid}/net/{names}").strip():
            continue  # no table of this kind: asking would load one
        try:
            yield from facts(rules(answer(command)), command)
        except CommandError as error:
            yield NotLooked(f"iptables rules ({names.removesuffix('_tables_names')})", str(error))


def rules(saved: str) -> Iterator[Rule]:
    """Yield the rules in the way, from the text of iptables-save."""
    for section in saved.split("\nCOMMIT")[:-1]:
        lines = [line for line in section.split("\n") if line and not line.startswith("#")]
        table = next((line[1:] for line in lines if line.startswith("*")), "")
        yield from _of_table(table, lines)


def _of_table(table: str, lines: list[str]) -> Iterator[Rule]:
    named = [line[1:].split(" ") for line in lines if line.startswith(":")]
    chains = {parts[0]: parts[1] for parts in named if len(parts) > 1}
    written = [parts for line in lines if line.startswith("-A ") if len(parts := _split(line)) > 1]
    jumps: dict[str, set[str]] = {}
    for parts in written:
        jumps.setdefault(parts[1], set()).update(_values(parts, "-j", "-g"))
    hooks = hooks_by_chain({name: name.lower() for name, p in chains.items() if p != "-"}, jumps)
    for name, policy in chains.items():
        if policy == "DROP" and name in hooks:
            yield Rule("drop", hooks[name], f"{table} {name}", "")
    for parts in written:
        does = _does(parts)
        if does and parts[1] in hooks and not any(each in _OTHER for each in _protocol(parts)):
            yield Rule(does, hooks[parts[1]], f"{table} {parts[1]}", " ".join(parts[2:]))


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote in a comment
        return line.split(" ")


def _values(parts: list[str], *options: str) -> list[str]:
    return [value for option, value in pairwise(parts) if option in options]


def _protocol(parts: list[str]) -> list[str]:
    negated = ("!", "-p") in pairwise(parts)
    return [] if negated else _values(parts, "-p")


def _does(parts: list[str]) -> str:
    target = _values(parts, "-j", "-g")
    if not target or target[0] in ("LOG", "NFLOG", "MARK", "CONNMARK", "TRACE"):
        return ""
    return worst({_DOES[each] for each in (*target, *_values(parts, "-m")) if each in _DOES})
