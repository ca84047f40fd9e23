"""Numbers of things, and ends of connections, read as a person would write them."""

import pytest

from porttrace.tracer.words import count, endpoint, plain_address


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (0, "attempt", "0 attempts"),
        (1, "attempt", "1 attempt"),
        (2, "attempt", "2 attempts"),
        (1, "more process", "1 more process"),
        (2, "more process", "2 more processes"),
        (3, "SYN", "3 SYNs"),
    ],
)
def test_one_and_more(number: int, noun: str, shown: str) -> None:
    assert count(number, noun) == shown


def test_long_numbers_are_written_as_asked() -> None:
    assert count(2048, "event", f"{2048:,}") == "2,048 events"


def test_ends_of_connections() -> None:
    mapped = bytes(10) + b"\xff\xff\xc0\0\2\1"
    assert endpoint(plain_address(mapped), 80) == "192.0.2.1:80"
    assert endpoint(plain_address(bytes(16)), 53) == "[::]:53"
