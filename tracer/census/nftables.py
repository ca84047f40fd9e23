"""The rules of nftables (and of iptables-nft) in our own network namespace, as nft lists them.

JSON: libnftables-json(5). What is not known there is shown by its name.
"""

import json
import platform
from collections.abc import Iterator
from typing import Any

from porttrace.tracer.census.commands import CommandError, answer
from porttrace.tracer.census.host import HERE, HostFiles, UnreadError
from porttrace.tracer.census.rules import HOOK_PLACES, Rule, facts, hooks_by_chain, worst
from porttrace.tracer.facts import Fact, NotLooked

_SOURCE = "nft list ruleset"
_DECIDING = frozenset(("accept", "drop", "return", "queue", "reject", "jump", "goto", "vmap"))
_NOT_TCP = frozenset(("udp", "udplite", "icmp", "icmpv6", "ipv6-icmp", "sctp", "dccp", "arp", "esp",
                      "ah", "igmp", "gre"))  # fmt: skip
# Extensions of iptables, in rules that iptables-nft made
_EXTENSIONS = {
    "NFQUEUE": "queue", "REJECT": "reject", "DROP": "drop", "connlimit": "connlimit",
    "limit": "limit", "hashlimit": "limit",
}  # fmt: skip


def look(files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield the rules that could hold or stop a TCP connect."""
    if not _is_loaded(files):
        return
    try:
        listed = json.loads(answer("nft", "-j", "list", "ruleset"))["nftables"]
    except CommandError as error:
        yield NotLooked("nftables rules", str(error))
    except (ValueError, KeyError, TypeError):
        yield NotLooked("nftables rules", "nft printed something that is not its JSON")
    else:
        yield from facts(rules(listed), _SOURCE)


def _is_loaded(files: HostFiles) -> bool:
    # nft makes the kernel load nf_tables; where that is not there yet, there are no rules either.
    try:
        loaded = files.text("/proc/modules")
        builtin = files.text(f"/lib/modules/{platform.release()}/modules.builtin")
    except UnreadError:
        return True
    return "\nnf_tables " in f"\n{loaded}" or "/nf_tables.ko" in builtin


def rules(listed: list[dict[str, Any]]) -> Iterator[Rule]:
    """Yield the rules in the way, from the objects of nft's JSON."""
    chains = {_name(each["chain"]): each["chain"] for each in listed if "chain" in each}
    all_rules = [each["rule"] for each in listed if "rule" in each]
    maps = {_name(each["map"], "name"): each["map"] for each in listed if "map" in each}
    hooked = {name: str(chain["hook"]) for name, chain in chains.items() if "hook" in chain}
    hooks = hooks_by_chain(hooked, _jumps(all_rules, maps))
    for name, chain in chains.items():
        if chain.get("policy") == "drop" and hooked.get(name) in HOOK_PLACES:
            yield Rule("drop", (hooked[name],), name, "")
    for rule in all_rules:
        expressions = [each for each in rule.get("expr", ()) if isinstance(each, dict)]
        does, name = _does(expressions, rule, maps), _name(rule, "chain")
        if does and name in hooks and not any(map(_excludes_tcp, expressions)):
            yield Rule(does, hooks[name], name, " ".join(filter(None, map(words, expressions))))


def _name(values: dict[str, Any], key: str = "name") -> str:
    if key == "chain":
        return f"{values['family']} {values['table']} {values['chain']}"
    return f"{values['family']} {values['table']} {values[key]}"


def _jumps(listed: list[dict[str, Any]], maps: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in listed:
        prefix = f"{rule['family']} {rule['table']} "
        for target in _targets(rule.get("expr", ()), prefix, maps):
            found.setdefault(_name(rule, "chain"), set()).add(prefix + target)
    return found


def _targets(value: Any, prefix: str, maps: dict[str, Any]) -> Iterator[str]:
    # jump, goto, and those in the elements of verdict maps, named or not
    for key, inner in _pairs(value):
        if key in ("jump", "goto") and isinstance(inner, dict):
            yield str(inner.get("target", ""))
        elif key == "vmap" and isinstance(inner, dict):
            yield from _targets(_elements(inner, prefix, maps), prefix, {})
        else:
            yield from _targets(inner, prefix, maps)


def _elements(vmap: dict[str, Any], prefix: str, maps: dict[str, Any]) -> Any:
    data = vmap.get("data")
    if isinstance(data, str):  # "@name"
        return maps.get(prefix + data[1:], {}).get("elem", ())
    return data


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        for each in value:
            yield from [("", each)] if isinstance(each, list) else _pairs(each)


def _does(expressions: list[dict[str, Any]], rule: dict[str, Any], maps: dict[str, Any]) -> str:
    found = set()
    prefix = f"{rule['family']} {rule['table']} "
    for each in expressions:
        ((key, value),) = each.items() if len(each) == 1 else (("", None),)
        if key in ("queue", "reject", "drop"):
            found.add(key)
        elif key == "vmap" and isinstance(value, dict):
            inside = _elements(value, prefix, maps)
            found |= {"drop"} if _has(inside, "drop") else set()
        elif key == "xt" and isinstance(value, dict):
            found.add(_EXTENSIONS.get(str(value.get("name")), ""))
        elif key == "ct count":
            found.add("connlimit")
        elif key == "limit":
            found.add("limit")
    # A rate that only limits what is logged or counted stops nothing.
    decides = found & {"queue", "reject", "drop"} or any(_DECIDING & set(e) for e in expressions)
    return worst(found) if decides else ""


def _has(value: Any, wanted: str) -> bool:
    return any(key == wanted or _has(inner, wanted) for key, inner in _pairs(value))


def _excludes_tcp(expression: dict[str, Any]) -> bool:
    match = expression.get("match")
    if not isinstance(match, dict) or match.get("op") not in ("==", "in"):
        return False
    left = match.get("left")
    if not isinstance(left, dict):
        return False
    payload, meta = left.get("payload"), left.get("meta")
    if isinstance(payload, dict) and payload.get("protocol") in _NOT_TCP:
        return True
    names_protocol = isinstance(meta, dict) and meta.get("key") == "l4proto"
    names_protocol |= isinstance(payload, dict) and payload.get("field") in ("protocol", "nexthdr")
    right = match.get("right")
    values = right.get("set", ()) if isinstance(right, dict) else [right]
    return names_protocol and bool(values) and all(value in _NOT_TCP for value in values)


# -- a rule in words ------------------------------------------------------------------


def words(expression: dict[str, Any]) -> str:
    """Return one expression of a rule as nft would write it, about; "" for a counter."""
    key, value = next(iter(expression.items()), ("", None))
    if key == "match" and isinstance(value, dict):
        operator = {"==": "", "in": ""}.get(value.get("op", ""), value.get("op", ""))
        return " ".join(
            filter(None, (_side(value.get("left")), operator, _side(value.get("right"))))
        )
    if key == "ct count" and isinstance(value, dict):
        return f"ct count {'over ' if value.get('inv') else ''}{value.get('val')}"
    if key == "limit" and isinstance(value, dict):
        over = "over " if value.get("inv") else ""
        return f"limit rate {over}{value.get('rate')}/{value.get('per')}"
    if key == "queue":
        number = value.get("num") if isinstance(value, dict) else None
        return "queue" if number is None else f"queue to {_side(number)}"
    if key in ("jump", "goto") and isinstance(value, dict):
        return f"{key} {value.get('target')}"
    if key == "xt" and isinstance(value, dict):
        return f"{value.get('type', 'xt')} {value.get('name')}"
    if key == "vmap" and isinstance(value, dict):
        return f"{_side(value.get('key'))} vmap {_side(value.get('data'))}"
    return "" if key == "counter" else key


def _side(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_side, value))
    if not isinstance(value, dict):
        return str(value)
    key, inner = next(iter(value.items()), ("", None))
    if key == "payload" and isinstance(inner, dict):
        return f"{inner.get('protocol', '')} {inner.get('field', '')}".strip()
    if key in ("meta", "ct") and isinstance(inner, dict):
        return f"{key} {inner.get('key')}"
    if key == "set" and isinstance(inner, list):
        more = ", ..." if inner[8:] else ""
        return "{ " + ", ".join(map(_element, inner[:8])) + more + " }"
    if key in ("jump", "goto") and isinstance(inner, dict):
        return f"{key} {inner.get('target')}"
    if key == "prefix" and isinstance(inner, dict):
        return f"{inner.get('addr')}/{inner.get('len')}"
    if key == "range" and isinstance(inner, list):
        return "-".join(map(_side, inner))
    return key


def _element(value: Any) -> str:
    # Of a verdict map an element is a pair.
    return " : ".join(map(_side, value)) if isinstance(value, list) else _side(value)
