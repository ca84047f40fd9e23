"""What stands beside the events survives as it was, and tolerates other versions' keys."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.tracer.beside import Beside, from_json, header_of, header_values, to_json
from porttrace.tracer.facts import Held, Holder, Looked, Process, Suspect
from recordings import END, HEADER, HELD, PROCESS, SUSPECT

LOOKED = Looked(
    ((5, 6), (7, 8)),
    (Holder("client", port=43611, v6only=False, comm="\udc80"), Holder("")),
    {"range_first": 1, "reserved": "80"},
    0.5,
)
FULL = Beside(
    5, -6, {7: PROCESS}, {3: ("tcp_v4_connect", "x")}, {9: (SUSPECT,), 8: ()}, (HELD,), 2, END,
    (LOOKED, Looked(())),
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
