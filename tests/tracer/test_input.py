"""The bytes of a file, with what tells a cut file from a damaged one."""

from pathlib import Path

import pytest

from porttrace.tracer.input import Source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a"
    file.write_bytes(bytes(range(200)))
    return file


def test_peeking_takes_nothing(path: Path) -> None:
    with Source(str(path)) as source:
        assert source.peek(8) == bytes(range(8))
        assert source.peek(4) == bytes(range(4))
        assert source.read(10) == bytes(range(10))
        assert source.read(5) == bytes(range(10, 15))
        assert not source.short


def test_running_short(path: Path) -> None:
    with Source(str(path)) as source:
        assert len(source.read(1 << 60)) == 200  # and takes no such memory
        assert source.short
        assert source.tail(8) == bytes(range(192, 200))


def test_the_tail_is_that_of_the_file(path: Path) -> None:
    with Source(str(path)) as source:
        source.read(3)
        assert source.tail(8) == bytes(range(192, 200))


@pytest.mark.parametrize(("rest", "nothing"), [(b"", True), (bytes(5000), True), (b"\0x\0", False)])
def test_zeros_are_nothing(tmp_path: Path, rest: bytes, nothing: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"head" + rest)
    with Source(str(path)) as source:
        source.read(4)
        assert source.rest_is_nothing() is nothing


def test_an_error_of_the_system_is_kept(path: Path) -> None:
    with Source(str(path)) as source:
        source._file.close()
        source._file = open("/proc/self/mem", "rb")  # noqa: SIM115
        assert source.read(10) == b""
        assert source.error == "Input/output error"


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Source(str(tmp_path / "nothing"))


def test_what_cannot_be_opened_is_collected_in_silence(tmp_path: Path) -> None:
    # Python 3.13 tells what a finalizer raises, and it closes what was never opened, too.
    source = Source.__new__(Source)
    with pytest.raises(FileNotFoundError):
        source.__init__(str(tmp_path / "nothing"))  # type: ignore[misc]
    source.close()
