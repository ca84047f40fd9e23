"""Names that processes gave themselves, made safe to print.

A process may call itself anything: escape sequences that rewrite the terminal,
newlines that forge a row, bidirectional marks that turn a line around.
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Control (Cc), format (Cf: bidi marks, zero width), surrogates (Cs: bytes that are no
# UTF-8), private use, unassigned, and the separators that some terminals break lines at.
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` with every character that could act on a terminal written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in _UNSAFE else written(c) for c in text)


def written(char: str) -> str:
    """Return one character as an escape; a raw byte (surrogateescape) as that byte."""
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def valid(text: str) -> str:
    """Return `text` as valid Unicode: a byte that is no UTF-8 as \\xNN, the rest as it is."""
    return _SURROGATE.sub(lambda match: written(match[0]), text)


def json_line(value: Mapping[str, Any]) -> str:
    """Return an object as a line of JSON, all its text valid Unicode. It has plain values only."""
    return json.dumps(_valid(value))


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, Mapping):
        return {key: _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, (list, tuple)) else value


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes: wide characters two, accents none."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def clipped(text: str, width: int) -> str:
    """Return `printable(text)` cut to `width` columns, with a ~ where something was cut."""
    shown = printable(text)
    if columns(shown) <= width:
        return shown
    used = itertools.accumulate(map(_columns, shown))
    return shown[: sum(1 for _ in itertools.takewhile(lambda n: n < width, used))] + "~"


def ending(text: str, width: int) -> str:
    """Return the end of `printable(text)` in `width` columns, with a ~ where something was cut."""
    shown = printable(text)
    if columns(shown) <= width:
        return shown
    used = itertools.accumulate(map(_columns, reversed(shown)))
    kept = sum(1 for _ in itertools.takewhile(lambda n: n < width, used))
    return "~" + shown[len(shown) - kept :]


def padded(text: str, width: int) -> str:
    """Return `clipped(text, width)` filled up with spaces to `width` columns."""
    shown = clipped(text, width)
    return shown + " " * (width - columns(shown))
