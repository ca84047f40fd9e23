"""Whom a throttle counts, in words: a scope is a fact only where the trace rules out the others."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.concurrency import SCOPES, Ints, scope_keys
from porttrace.analysis.model import Attempts, Finding, Trace

SETTLED = "Nothing: slots, place and scope are settled by this trace."
"""What one more run would settle, where this one settles it all."""
_FIT = ("same", "explains")
# Whoever is not counted together with those of such a scope.
_BEYOND = {
    "thread": "from another process",
    "process": "from another process",
    "user": "as another user",
    "cgroup": "from another control group",
}


def rivals(scope: str, results: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """Return the other scopes that fit the same holds; `results` are a finding's `scopes`."""
    fitting = (str(each["scope"]) for each in results if each["verdict"] in _FIT)
    return tuple(each for each in fitting if each != scope)


def rivals_of(finding: Finding) -> tuple[str, ...]:
    """Return the other scopes that the finding cannot tell from its own."""
    results = finding.evidence.get("scopes")
    return rivals(finding.scope, results) if isinstance(results, list) else ()


def listed(scopes: Sequence[str]) -> str:
    """Return `user`, `user or host`, `user, cgroup or host`."""
    return " or ".join(filter(None, (", ".join(scopes[:-1]), *scopes[-1:])))


def per(scope: str, others: Sequence[str]) -> str:
    """Return whom the limit is for: `per process`, and what else it could be as well."""
    if not others:
        return f"per {scope}"
    return f"per {scope}, or per {listed(others)}: this trace cannot tell"


def settle(scope: str, others: Sequence[str], place: str = "") -> str:
    """Return how to tell the scope from the others that fit as well, "" where none does.

    Holds at the places user and gate are seen of targets alone, never of the whole host.
    """
    if not others:
        return ""
    how = (
        "trace a second process of the same user, too (--pid twice, or --uid), while both connect."
        if place in ("user", "gate")
        else "trace the whole host (no --pid) while a second process of the same user connects too."
    )
    return f"Whether it counts per {scope} or per {listed(others)}: {how}"


def around(scope: str, others: Sequence[str], place: str) -> str:
    """Return from where a connect goes past the throttle, for certain or as far as is known."""
    there = _BEYOND.get(scope, "from another host")
    if place == "network" or there == "from another host":
        return "from another host"
    return f"{there} (from another host if that waits, too)" if others else there


def who(trace: Trace, scope: str, key: int, attempts: Attempts) -> str:
    """Return the subject of a sentence: the process, user, ... `key` whose `attempts` these are."""
    first, pids = attempts[0], len(np.unique(attempts["pid"]))
    process = names.process(trace, int(first["pid"]))
    known = trace.processes.get(int(first["pid"]))
    with_them = f", with {names.count(pids, 'process')} here,"
    return {
        "thread": f"Thread {names.comm(first)} (tid {key}) of {process}",
        "process": f"Process {process}",
        "user": f"User {(known and known.user) or ''} (uid {key})".replace("  ", " ") + with_them,
        "cgroup": f"Control group {(known and known.cgroup) or key}{with_them}",
        "netns": f"Network namespace {key}{with_them}",
        "host": f"This host{with_them}",
        "destination": f"Towards {names.destination(first)} this host{with_them}",
    }[scope]


def alike(trace: Trace, scope: str, rows: Ints) -> list[dict[str, object]]:
    """Tell of each other scope whether it has the very attempts that `scope` has around `rows`.

    Where it has, one trace cannot tell the two apart. Rows for a finding's `scopes`.
    """
    keys = {each: scope_keys(trace.columns, each, trace.processes) for each in SCOPES}
    own = np.isin(keys[scope], keys[scope][rows])
    found: list[dict[str, object]] = []
    for each in SCOPES:
        same = np.array_equal(np.isin(keys[each], keys[each][rows]), own)
        verdict = "explains" if each == scope else "same" if same else "differs"
        found.append({"scope": each, "verdict": verdict})
    return found
