"""Who held the port of each call in words, and what to do; calls alike cost one thought."""

import errno
from collections.abc import Iterator

import numpy as np
from numpy.lib.recfunctions import repack_fields

from porttrace.analysis import bind_failed, bind_names
from porttrace.analysis.bind_reasons import explain
from porttrace.analysis.model import BindCall, Binds, Looked, Trace

_ALIKE = ("pid", "fd", "call", "protocol", "addr", "port_asked", "errno", "options", "netns")
Words = tuple[tuple[str, ...], str]
"""Who held the port, a holder each, and what to do."""


class Told:
    """The words for the calls of one trace. Names in them are raw."""

    def __init__(self, trace: Trace) -> None:
        self._trace, self._history = trace, bind_failed.History(trace)
        self._known: dict[tuple[bytes, int], Words] = {}

    def of(self, rows: Binds) -> Iterator[Words]:
        """Yield for each row who held the port, or why nobody is shown, and the first advice.

        () and "" where nothing is to be said: it worked, and nobody shares the port.
        """
        alike = repack_fields(rows[[*_ALIKE]])  # without the bytes of other columns between
        for at in range(len(rows)):
            found = bind_names.looked(self._trace, rows[at])
            key = alike[at].tobytes(), id(found)
            if key not in self._known:
                self._known[key] = self._thought(rows[at], found)
            yield self._known[key]

    def _thought(self, row: np.void, found: Looked | None) -> Words:
        if row["call"] == BindCall.autobind:
            return (), ""
        held = bind_failed.holders_of(self._history, row, found)
        words = tuple(map(bind_names.holder, held))
        if not words and row["errno"] == errno.EADDRINUSE:
            words = tuple(filter(None, (bind_names.not_shown(row, found),)))
        if not row["errno"]:
            return words, ""
        advice = explain(bind_failed.failed(self._history, row)).advice
        return words, advice[0] if advice else ""
