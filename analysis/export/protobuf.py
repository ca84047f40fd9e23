"""The few lines of protobuf's wire format that a Perfetto trace needs, written by hand.

A message is a run of fields. A field is a varint `number << 3 | wire type`, then its value: a
varint (type 0), eight bytes (type 1), or a length and that many bytes (type 2). Integers below
zero are written as their 64-bit two's complement (protobuf.dev, "Encoding").

The generated classes of the `perfetto` package can do the same, but they would be a dependency of
every installation and take several times as long; tests read what is written here with them.
"""

_VARINT, _BYTES = 0, 2
_SMALL = tuple(bytes((n,)) for n in range(0x80))


def varint(value: int) -> bytes:
    """Return an integer of up to 64 bits in groups of seven bits, the lowest first."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= 0xFFFF_FFFF_FFFF_FFFF
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def integer(field: int, value: int) -> bytes:
    """Return a field that holds an integer, an enum or a truth value."""
    return varint(field << 3 | _VARINT) + varint(value)


def message(field: int, content: bytes) -> bytes:
    """Return a field that holds a message, or bytes."""
    return varint(field << 3 | _BYTES) + varint(len(content)) + content


def string(field: int, text: str) -> bytes:
    """Return a field that holds text; what is no UTF-8 is written as \\xNN."""
    return message(field, text.encode(errors="backslashreplace"))
