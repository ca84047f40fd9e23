"""Names that processes gave themselves, made safe to print.

A process may call itself anything: escape sequences that rewrite the terminal,
newlines that forge a row, bidirectional marks that turn a line around.
"""

import unicodedata

# Control (Cc), format (Cf: bidi marks, zero width), surrogates (Cs: bytes that are no
# UTF-8), private use, unassigned, and the separators that some terminals break lines at.
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def printable(text: str) -> str:
    """Return `text` with every character that could act on a terminal written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in _UNSAFE else _written(c) for c in text)


def _written(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a raw byte, carried by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clipped(text: str, width: int) -> str:
    """Return `printable(text)` cut to `width` columns, with a ~ where something was cut."""
    shown = printable(text)
    return shown if len(shown) <= width else shown[: width - 1] + "~"
