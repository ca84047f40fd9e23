"""What stands beside the events survives as it was, and tolerates other versions' keys."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.tracer.beside import (
    Beside,
    filled,
    from_json,
    header_of,
    header_values,
    to_json,
    trimmed,
)
from porttrace.tracer.facts import (
    Held,
    Holder,
    Listener,
    Looked,
    PortUse,
    Process,
    Sample,
    Suspect,
    Usage,
)
from recordings import END, HEADER, HELD, PROCESS, SUSPECT

LOOKED = Looked(
    ((5, 6), (7, 8)),
    (Holder("client", port=43611, v6only=False, comm="\udc80"), Holder("")),
    {"range_first": 1, "reserved": "80"},
    0.5,
)
USE = PortUse("192.0.2.1", "192.0.2.2:80", 20, 10, 5, 0.5)
SAMPLE = Sample(
    5, 42, 7, {"ListenDrops": 1}, {"tw": 2}, {"somaxconn": "128"}, {"count": 1, "max": 2},
    (Listener("0.0.0.0", 80, 3, 3, 9, "we\udcff", 0),), Usage(5, 30, 1, 2, (USE,)), ("[::1]:80",),
)  # fmt: skip
FULL = Beside(
    5, -6, {7: PROCESS}, {3: ("tcp_v4_connect", "x")}, {9: (SUSPECT,), 8: ()}, (HELD,), 2, END,
    (LOOKED, Looked(())), (SAMPLE, Sample(6, 42)),
)  # fmt: skip


@pytest.mark.parametrize("beside", [FULL, Beside(), Beside(held=()), Beside(1 << 62)])
def test_it_comes_back_as_it_was(beside: Beside) -> None:
    text = to_json(beside, 12)
    assert text.isascii()
    assert from_json(text) == (beside, 12)


@given(st.builds(Process), st.builds(Held), st.builds(Suspect), st.builds(Holder))
def test_any_facts(process: Process, held: Held, suspect: Suspect, holder: Holder) -> None:
    beside = Beside(
        processes={process.pid: process},
        held=(held,),
        suspects={process.pid: (suspect,)},
        looked=(Looked(((1, 2),), (holder,)),),
    )
    assert from_json(to_json(beside, 0)) == (beside, 0)


def test_the_header_comes_back_as_it_was() -> None:
    values = json.loads(json.dumps(header_values(HEADER)))
    assert header_of(values) == HEADER


def test_keys_of_another_version() -> None:
    values = json.loads(to_json(FULL, 1))
    values["weather"] = "fair"
    values["processes"][0]["mood"] = "good"
    values["end"]["mood"] = "good"
    for place in (values["samples"][0], values["samples"][0]["usage"]):
        place["mood"] = "good"
    values["samples"][0]["listeners"][0]["mood"] = "good"
    values["samples"][0]["usage"]["groups"][0]["mood"] = "good"
    values["held"][0]["mood"] = "good"
    values["looked"][0]["mood"] = values["looked"][0]["holders"][0]["mood"] = "good"
    assert from_json(json.dumps(values).encode())[0] == FULL
    assert header_of({**header_values(HEADER), "weather": "fair"}) == HEADER
    assert header_of({"start_ns": 5}).host.kernel == ""


def test_what_is_empty_takes_no_room() -> None:
    assert to_json(Beside(), 0) == b'{"batch":0}'


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"batch":0,"held":[{}]}', b'{"batch":0,"end":{}}']
)
def test_what_is_none(text: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        from_json(text)


def test_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.carried = 3  # type: ignore[misc]


def test_a_sample_says_only_what_is_new() -> None:
    later = dataclasses.replace(SAMPLE, time_ns=9, counters={"ListenDrops": 2})
    short = trimmed(later, SAMPLE)
    assert short == Sample(9, 42, 7, counters={"ListenDrops": 2})
    assert len(to_json(Beside(samples=(short,)), 0)) < 110
    assert filled(short, SAMPLE) == later
    assert trimmed(SAMPLE, None) == filled(SAMPLE, None) == SAMPLE
