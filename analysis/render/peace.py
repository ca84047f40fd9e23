"""What a report says where no rule found anything: exactly that, and which attempts failed."""

from collections.abc import Iterator

import numpy as np

from porttrace.analysis import names
from porttrace.analysis.model import Outcome, Trace, start_ns
from porttrace.analysis.rows import take

_LONG_NS = 1_000_000_000
_MOST = 3  # destinations by name, for each way to fail
# How an attempt that found no peer ended: of one, of several.
_ENDED = {
    Outcome.refused: ("was refused", "were refused"),
    Outcome.timed_out: ("timed out", "timed out"),
    Outcome.unreachable: ("found its destination unreachable", "found theirs unreachable"),
    Outcome.denied: ("was denied on this host", "were denied on this host"),
    Outcome.no_port: ("got no local port", "got no local port"),
    Outcome.reset: ("was reset", "were reset"),
    Outcome.cancelled: ("was given up by its program", "were given up by their program"),
    Outcome.failed: ("failed otherwise", "failed otherwise"),
    Outcome.unknown: ("has an unknown end", "have an unknown end"),
}


def nothing_found(trace: Trace) -> str:
    """Return the sentence for a trace without findings and remarks; names in it are raw."""
    if not len(trace.attempts):
        filtered = f" that matches the filter ({trace.filter})" if trace.filter else ""
        return f"No connection attempt{filtered} was seen. {_binds_seen(trace)}"
    whole, failed = names.count(len(trace.attempts), "attempt"), "; ".join(_failures(trace))
    if not failed:
        return f"Nothing wrong found in {whole}: {_waits(trace)}"
    return f"No throttle found in {whole}; {failed}. {_capital(_waits(trace))}"


def _binds_seen(trace: Trace) -> str:
    number = len(trace.binds)
    if not number or (trace.binds["errno"] > 0).any():
        return "Nothing can be said."
    return f"{names.count(number, 'call')} of bind and listen worked."


def _failures(trace: Trace) -> Iterator[str]:
    outcomes, counts = np.unique(trace.columns["outcome"], return_counts=True)
    for at in np.argsort(-counts, kind="stable").tolist():
        outcome, number = Outcome(int(outcomes[at])), int(counts[at])
        if outcome in _ENDED:
            ended = _ENDED[outcome][number > 1]
            yield f"{names.count(number, 'attempt')} {ended}: {_where(trace, outcome)}"


def _where(trace: Trace, outcome: Outcome) -> str:
    rows = np.flatnonzero(trace.columns["outcome"] == outcome)
    ends = np.stack([_halves(trace)[:, 0], _halves(trace)[:, 1], trace.columns["dport"]])[:, rows]
    _, first, counts = np.unique(ends, axis=1, return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = take(trace.attempts, rows[first[order[:_MOST]]])
    rest = len(first) - len(named)
    more = [f"{rest} more"] if rest else []
    return ", ".join([*map(names.destination, named), *more])


def _halves(trace: Trace) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    return np.ascontiguousarray(trace.columns["daddr"]).view("<i8").reshape(-1, 2)


def _waits(trace: Trace) -> str:
    rows = trace.columns
    over = np.where(rows["end_ns"] > 0, rows["end_ns"], trace.end_ns)
    longest_ns = int((over - start_ns(rows)).max())
    if longest_ns < _LONG_NS:
        return "no connect was held up by another, and none waited for long."
    longest = names.duration(longest_ns)
    return f"no connect was held up by another; the longest took {longest}."


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
