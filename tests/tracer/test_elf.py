"""A library defines connect, or it only uses it; anything that is no library defines nothing."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.tracer.elf import defines

DEFINES = "int connect(int a, const void *b, unsigned c) { return -1; }"
USES = "int connect(int, const void *, unsigned); int call(void) { return connect(0, 0, 0); }"


def build(folder: Path, source: str, *flags: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no library can be built")
    library = folder / "lib.so"
    command = ["gcc", "-shared", "-fPIC", *flags, "-xc", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)
    return library


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(tmp_path_factory.mktemp("shim"), DEFINES, "-s").read_bytes()


def libc() -> Path:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/libc.so" in line or "/libc-" in line:
            return Path(line.split(maxsplit=5)[5])
    pytest.skip("this Python does not use a shared libc")


def test_libc_defines_connect() -> None:
    assert defines(libc(), "connect")
    assert not defines(libc(), "connect_")
    assert not defines(libc(), "no_such_function")


@pytest.mark.parametrize("flags", [(), ("-s",), ("-Wl,--hash-style=sysv",)])
def test_a_shim_defines_it_also_when_stripped(tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert defines(build(tmp_path, DEFINES, *flags), "connect")


def test_a_user_of_connect_does_not_define_it(tmp_path: Path) -> None:
    assert not defines(build(tmp_path, USES), "connect")
    assert not defines(Path(sys.executable), "no_such_function")


def test_what_is_no_library_defines_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("connect\0")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"\x7fELF\x02\x01")
    os.truncate(tmp_path / "large", (64 << 20) + 1)
    for name in ("text", "pipe", "large", "gone", "."):
        assert not defines(tmp_path / name, "connect")


def test_a_truncated_library_defines_nothing(tmp_path: Path, shim: bytes) -> None:
    path = tmp_path / "lib.so"
    for length in range(0, len(shim) - 1, max(1, len(shim) // 97)):
        path.write_bytes(shim[:length])
        assert not defines(path, "connect")


@given(st.data())
def test_damage_never_raises(
    tmp_path_factory: pytest.TempPathFactory, shim: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(shim)
    # where the header and the section table stand, most fields are offsets and sizes
    (table,) = struct.unpack_from("<Q", shim, 40)
    places = st.integers(0, 63) | st.integers(table, len(shim) - 1)
    for at in data.draw(st.lists(places, min_size=1, max_size=8)):
        new = data.draw(st.binary(min_size=1, max_size=8))
        damaged[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "damaged.so"
    path.write_bytes(damaged)
    defines(path, "connect")


@given(st.binary(max_size=400))
def test_random_bytes_never_raise(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.so"
    path.write_bytes(b"\x7fELF\x02\x01" + body)
    assert not defines(path, "connect")


def test_offsets_beyond_all_bounds(tmp_path: Path, shim: bytes) -> None:
    path = tmp_path / "lib.so"
    for offset in (2**63, 2**64 - 1):
        path.write_bytes(shim[:40] + struct.pack("<Q", offset) + shim[48:])
        assert not defines(path, "connect")
