"""A file is there whole, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.cli.writing import print_pieces, write_file


def test_pieces_become_a_file(tmp_path: Path) -> None:
    write_file(str(tmp_path / "a"), [b"one ", b"two"])
    assert (tmp_path / "a").read_bytes() == b"one two"


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one "
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_file(str(tmp_path / "a"), pieces())
    assert not list(tmp_path.iterdir())


def test_pieces_are_printed_as_they_are(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_pieces([b"a\r\n", "é".encode()])
    assert capsysbinary.readouterr().out == b"a\r\n\xc3\xa9"
