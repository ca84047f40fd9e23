"""Predictions on the terminal: 80 columns, few words, nothing that a process wrote unescaped."""

import random
from dataclasses import replace

from porttrace.analysis import whatif
from porttrace.analysis.render.whatif import whatif_json, whatif_text

from .. import simulate  # noqa: TID252
from ..simulate import Throttle  # noqa: TID252
from ..workloads import crowd  # noqa: TID252


def throttle() -> whatif.Throttle:
    clients = [
        replace(client, destination=f"192.0.2.{2 + i}:65535")
        for i, client in enumerate(crowd(random.Random(2), 1, 20, 10, service_ms=60))
    ]
    return whatif.throttle_of(simulate.throttled(clients, Throttle(2), 2))


def test_it_fits_80_columns_and_adds_up_what_is_left() -> None:
    found = throttle()
    told = [whatif.as_traced(found.demand), whatif.restart(found.demand, 100)]
    text = whatif_text(replace(found, who="a\x1b[31mb", unserved=3, others=1),
                       whatif.fit(found.demand), told)  # fmt: skip
    assert max(map(len, text.splitlines())) <= 80
    assert "... and 8 more, " in text
    assert "\x1b" not in text
    assert "Left out: 3 attempts still held at the end of the trace." in text
    assert "Left out: 1 other throttle." in text


def test_few_waits_are_called_a_hint() -> None:
    found = throttle()
    fit = whatif.fit(found.demand)
    assert "hint" not in whatif_text(found, fit, [])
    assert "hint" in whatif_text(found, replace(fit, waits=2), [])


def test_names_that_are_no_text_are_written_out() -> None:
    found = replace(throttle(), who="\udcff (pid 1)")
    values = whatif_json(found, whatif.fit(found.demand), [])
    assert values["throttle"]["who"] == "\\udcff (pid 1)"
