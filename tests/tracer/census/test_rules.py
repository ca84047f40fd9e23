"""Netfilter rules: which are in the way of a TCP connect, and how they are told."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from fakeproc import FakeProc
from porttrace.tracer.census import commands, nftables, xtables
from porttrace.tracer.census.rules import Rule, facts
from porttrace.tracer.facts import NotLooked, Suspect

DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
DROP: dict[str, Any] = {"drop": None}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def chain(name: str, hook: str = "", policy: str = "accept") -> dict[str, Any]:
    base = {"type": "filter", "hook": hook, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": "inet", "table": "t", "name": name, **base}}


def rule(name: str, *expressions: dict[str, Any], **more: Any) -> dict[str, Any]:
    where = {"family": "inet", "table": "t", "chain": name}
    return {"rule": {**where, "expr": list(expressions), **more}}


def does(*listed: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.does, each.text) for each in nftables.rules(list(listed))]


OUT = chain("out", "output")


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ([match(DPORT, 9100), {"ct count": {"val": 1, "inv": True}}, {"reject": None}],
         ("connlimit", "tcp dport 9100 ct count over 1 reject")),
        ([match(DPORT, {"set": [{"range": [1, 5]}, 7]}), {"counter": {"packets": 1}}, DROP],
         ("drop", "tcp dport { 1-5, 7 } drop")),
        ([{"queue": {"num": 3}}], ("queue", "queue to 3")),
        ([{"queue": None}], ("queue", "queue")),
        ([{"xt": {"type": "target", "name": "NFQUEUE"}}], ("queue", "target NFQUEUE")),
        ([{"limit": {"rate": 5, "per": "second", "inv": True}}, DROP],
         ("limit", "limit rate over 5/second drop")),
        ([{"limit": {"rate": 5, "per": "second"}}, {"accept": None}],
         ("limit", "limit rate 5/second accept")),
        ([{"vmap": {"key": DPORT, "data": {"set": [[22, DROP], [23, {"accept": None}]]}}}],
         ("drop", "tcp dport vmap { 22 : drop, 23 : accept }")),
        ([match({"ct": {"key": "state"}}, "new", "in"), match({"meta": {"key": "skuid"}}, 5, "!="),
          {"reject": {"type": "tcp reset"}}], ("reject", "ct state new meta skuid != 5 reject")),
        ([match({"payload": {"protocol": "ip", "field": "daddr"}},
                {"prefix": {"addr": "192.0.2.0", "len": 24}}), DROP],
         ("drop", "ip daddr 192.0.2.0/24 drop")),
    ],
)  # fmt: skip
def test_rules_in_the_way(expressions: list[dict[str, Any]], expected: tuple[str, str]) -> None:
    assert does(OUT, rule("out", *expressions)) == [expected]


@pytest.mark.parametrize(
    "expressions",
    [
        [match(DPORT, 80), {"accept": None}],
        [match({"payload": {"protocol": "udp", "field": "dport"}}, 53), DROP],
        [match({"meta": {"key": "l4proto"}}, {"set": ["icmp", "udp"]}), DROP],
        [match({"payload": {"protocol": "ip", "field": "protocol"}}, "icmp"), DROP],
        [{"limit": {"rate": 1, "per": "minute"}}, {"log": {"prefix": "drop reject queue"}}],
        [{"counter": {"packets": 0, "bytes": 0}}],
        [],
    ],
)
def test_rules_that_stop_no_tcp_connect(expressions: list[dict[str, Any]]) -> None:
    assert does(OUT, rule("out", *expressions, comment="drop")) == []


def test_a_protocol_that_may_be_tcp_counts() -> None:
    left = {"meta": {"key": "l4proto"}}
    assert does(OUT, rule("out", match(left, {"set": ["tcp", "udp"]}), DROP))
    assert does(OUT, rule("out", match(left, "udp", "!="), DROP))


def test_a_rule_counts_by_the_hooks_that_lead_to_it() -> None:
    named = {"map": {"family": "inet", "table": "t", "name": "vm",
                     "elem": [[443, {"jump": {"target": "two"}}]]}}  # fmt: skip
    by_map = rule("out", {"vmap": {"key": DPORT, "data": "@vm"}})
    listed = [
        named, OUT, chain("in", "input"), chain("way", "forward"), chain("two"), chain("three"),
        chain("lost"), by_map, rule("in", {"goto": {"target": "two"}}),
        rule("two", {"jump": {"target": "three"}}),
        rule("three", {"jump": {"target": "two"}}, DROP),
        rule("lost", DROP), rule("way", DROP),
    ]  # fmt: skip
    (found,) = nftables.rules(listed)
    assert found == Rule("drop", ("output", "input"), "inet t three", "jump two drop")


def test_the_policy_of_a_chain() -> None:
    (found,) = nftables.rules([chain("in", "input", "drop"), chain("way", "forward", "drop")])
    (fact,) = facts([found], "nft list ruleset")
    assert isinstance(fact, Suspect)
    assert (fact.kind, fact.place) == ("netfilter-drop", "ingress")
    assert fact.what == "the policy of inet t in (input) drops what none of its rules accepts"


def test_the_worst_comes_first_and_the_rest_is_counted() -> None:
    many = [Rule("drop", ("output",), "c", f"drop {n}") for n in range(25)]
    found = list(facts([*many, Rule("queue", ("output",), "c", "queue")], "nft"))
    assert len(found) == 21
    first, last = found[0], found[-1]
    assert isinstance(first, Suspect) and first.kind == "netfilter-queue"
    assert isinstance(last, NotLooked) and last.what.startswith("6 more netfilter rules")


def test_nft_that_says_nothing_sensible(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in ("{}", "no json", json.dumps([1])):
        monkeypatch.setattr(nftables, "answer", lambda *_, answer=answer: answer)
        (fact,) = nftables.look()
        assert isinstance(fact, NotLooked)


def test_nft_is_not_asked_where_that_would_load_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(*words: str) -> str:
        asked.append(" ".join(words))
        return '{"nftables": []}'

    monkeypatch.setattr(nftables, "answer", answer)
    host = FakeProc(tmp_path)
    builtin = f"/lib/modules/{platform.release()}/modules.builtin"
    host.write("/proc/modules", "nf_tables_other 1 0 - Live 0x0\n")
    host.write(builtin, "kernel/net/ipv4/tcp_cubic.ko\n")
    assert [*nftables.look(host.files)] == []
    assert asked == []
    for name, text in (
        ("/proc/modules", "xt_x 1 0 - Live 0x0\nnf_tables 1 0 - Live 0x0\n"),
        (builtin, "kernel/net/netfilter/nf_tables.ko\n"),
    ):
        host.write(name, text)
        assert [*nftables.look(host.files)] == []
        assert asked.pop() == "nft -j list ruleset"
        host.write("/proc/modules", "")
    host.hide(builtin)
    assert [*nftables.look(host.files)] == []
    assert asked == ["nft -j list ruleset"]


def test_a_command_that_is_not_there_and_one_that_fails() -> None:
    for words, reason in (
        (("no-such-command-here",), "is not installed"),
        (("sleep", "9"), "took longer than 0.1 s"),
        (("ls", "/nonexistent"), "ls failed: "),
    ):
        with pytest.raises(commands.CommandError, match=reason):
            commands.answer(*words, limit_s=0.1)
    assert commands.answer("echo", "yes") == "yes\n"


SAVED = """# Generated by iptables-save
*nat
:OUTPUT ACCEPT [0:0]
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:guard - [0:0]
:lost - [0:0]
-A OUTPUT -p tcp -m comment --comment "drop -j DROP" -j guard
-A OUTPUT -p udp -j DROP
-A OUTPUT ! -p udp -j DROP
-A OUTPUT -m limit --limit 1/min -j LOG
-A guard -p tcp -m tcp --dport 5 -j NFQUEUE --queue-num 3
-A guard -p tcp -m connlimit --connlimit-above 2 -j REJECT
-A lost -j DROP
COMMIT
# Completed
"""


def test_the_old_iptables() -> None:
    assert [(each.does, each.hooks, each.chain) for each in xtables.rules(SAVED)] == [
        ("drop", ("input",), "filter INPUT"),
        ("drop", ("output",), "filter OUTPUT"),
        ("queue", ("output",), "filter guard"),
        ("connlimit", ("output",), "filter guard"),
    ]
