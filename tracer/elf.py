"""Which functions a shared library defines: just enough ELF to answer that.

64-bit little-endian only (x86_64 and aarch64); anything else, or a damaged file,
defines nothing. Layout: elf(5), Elf64_Ehdr, Elf64_Shdr, Elf64_Sym.
"""

import stat
import struct
from pathlib import Path

_SHT_DYNSYM = 11
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SIZE_LIMIT = 64 << 20


def defines(library: Path, symbol: str) -> bool:
    """Return whether `library` exports a definition of `symbol` (not just a use of it)."""
    try:
        info = library.stat()
        # Opening a pipe that somebody put there would wait for its writer.
        if not stat.S_ISREG(info.st_mode) or info.st_size > _SIZE_LIMIT:
            return False
        data = library.read_bytes()
        return _search(data, symbol.encode())
    except (OSError, struct.error, IndexError, OverflowError, ValueError):
        return False


def _search(data: bytes, symbol: bytes) -> bool:
    if data[:6] != b"\x7fELF\x02\x01":
        return False
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [_SECTION.unpack_from(data, table + i * size) for i in range(count)]
    for section in sections:
        if section[1] == _SHT_DYNSYM:  # there is one at most
            return _in_table(data, section, sections[section[6]][4], symbol + b"\0")
    return False


def _in_table(data: bytes, section: tuple[int, ...], names: int, symbol: bytes) -> bool:
    start, length = section[4], section[5]
    for offset in range(start, start + length, _SYMBOL.size):
        name, _, _, index, _, _ = _SYMBOL.unpack_from(data, offset)
        if index and data[names + name : names + name + len(symbol)] == symbol:
            return True
    return False
