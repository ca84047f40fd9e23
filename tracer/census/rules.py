"""What netfilter rules have in common, whoever wrote them: hooks, verdicts, words."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from porttrace.tracer.facts import Fact, NotLooked, Suspect
from porttrace.tracer.words import count

HOOK_PLACES = {
    "output": "egress", "postrouting": "egress", "egress": "egress",
    "prerouting": "ingress", "input": "ingress", "ingress": "ingress",
}  # fmt: skip
"""Hook -> place; own connects do not come through `forward`."""

WORST_FIRST = ("queue", "connlimit", "limit", "reject", "drop")
_SAYS = {
    "queue": "hands packets to a program in user space (a queue)",
    "connlimit": "counts connections",
    "limit": "limits a rate",
    "reject": "rejects",
    "drop": "drops",
}
_SHOWN, _MOST = 160, 20


@dataclass(frozen=True)
class Rule:
    """A rule in the way: what it does (of `WORST_FIRST`), on which hooks, and its text."""

    does: str
    hooks: tuple[str, ...]
    chain: str  # table and chain
    text: str  # "" for the policy of a chain


def facts(rules: Iterable[Rule], source: str) -> Iterator[Fact]:
    """Yield the rules as facts, worst first, at most 20 of them."""
    ordered = sorted(dict.fromkeys(rules), key=lambda rule: WORST_FIRST.index(rule.does))
    for rule in ordered[:_MOST]:
        yield Suspect(
            f"netfilter-{rule.does}",
            HOOK_PLACES[rule.hooks[0]],
            _sentence(rule),
            source,
        )
    if len(ordered) > _MOST:
        more = len(ordered) - _MOST
        others = count(more, "more netfilter rule")
        yield NotLooked(f"{others} of those that drop or reject", f"too many; {source} shows them")


def _sentence(rule: Rule) -> str:
    where = f"{rule.chain} ({', '.join(rule.hooks)})"
    if not rule.text:
        return f"the policy of {where} drops what none of its rules accepts"
    return f"a rule of {where} {_SAYS[rule.does]}: {rule.text[:_SHOWN]}"


def hooks_by_chain(
    hooked: dict[str, str], jumps: dict[str, set[str]]
) -> dict[str, tuple[str, ...]]:
    """Return chain -> the hooks that a packet comes to it from, those on the way out first.

    `hooked` has the hook of each base chain, `jumps` where rules of a chain lead to. Hooks that
    our own connects do not pass are left out, and chains that no other hook leads to.
    """
    found: dict[str, set[str]] = {}
    for base, hook in hooked.items():
        if hook in HOOK_PLACES:
            for chain in _reached(base, jumps):
                found.setdefault(chain, set()).add(hook)
    order = tuple(HOOK_PLACES)
    return {chain: tuple(sorted(hooks, key=order.index)) for chain, hooks in found.items()}


def _reached(base: str, jumps: dict[str, set[str]]) -> set[str]:
    found, left = set[str](), [base]
    while left:
        chain = left.pop()
        if chain not in found:
            found.add(chain)
            left.extend(jumps.get(chain, ()))
    return found


def worst(does: Collection[str]) -> str:
    """Return the worst of what a rule does, "" for nothing of interest."""
    return next((each for each in WORST_FIRST if each in does), "")
