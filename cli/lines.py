"""Which of very many attempts get a line of their own; the others are counted."""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from porttrace.analysis.holds import held
from porttrace.analysis.model import Attempts, Outcome

LINES_PER_S = 500.0
"""Nobody reads as many, and printing them costs more than all the rest of a trace."""
_AT_ONCE = 1000.0
_TOLD_EVERY_S = 1.0


class Lines:
    """Room for lines, which comes back with time: `LINES_PER_S`, and a burst of 1,000."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._room, self._since_s, self._told_s = _AT_ONCE, clock_s(), clock_s()
        self._left_out: Counter[int] = Counter()

    def chosen(self, rows: Attempts) -> Attempts:
        """Return those that get a line, in order: first what failed or was held, then the rest."""
        now_s = self._clock_s()
        self._room = min(_AT_ONCE, self._room + (now_s - self._since_s) * LINES_PER_S)
        self._since_s = now_s
        room = int(self._room)
        if len(rows) > room:
            plain = (rows["outcome"] == Outcome.established) & (held(rows, 0)[1] < 0)
            first = np.argsort(plain, kind="stable")
            self._left_out.update(rows["outcome"][first[room:]].tolist())
            rows = rows[np.sort(first[:room])]
        self._room -= len(rows)
        return rows

    def left_out(self, last: bool = False) -> dict[str, int]:
        """Return how many had no line since this was asked, by outcome.

        {} where there is none, and before a second has gone by since the last time, unless it is
        the `last`.
        """
        now_s = self._clock_s()
        if not self._left_out or not (last or now_s - self._told_s >= _TOLD_EVERY_S):
            return {}
        counts, self._left_out, self._told_s = self._left_out, Counter(), now_s
        return {Outcome(code).name: count for code, count in counts.most_common()}
