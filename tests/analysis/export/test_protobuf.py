"""The wire format, byte for byte, and against a library that reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from porttrace.analysis.export.protobuf import integer, message, string, varint


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**64 - 1, b"\xff" * 9 + b"\x01"),
        (-1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_varints(value: int, written: bytes) -> None:
    assert varint(value) == written


def test_fields() -> None:
    assert integer(1, 150) == b"\x08\x96\x01"
    assert string(2, "testing") == b"\x12\x07testing"
    assert message(3, integer(1, 150)) == b"\x1a\x03\x08\x96\x01"


def test_text_that_is_none() -> None:
    assert string(1, "\udcff") == b"\x0a\x06\\udcff"


@given(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_library_reads_the_same(number: int, text: str) -> None:
    read = proto.DebugAnnotation.FromString(string(10, text) + integer(4, number))
    assert (read.name, read.int_value) == (text, number)
