"""The kernel's record, read from its one declaration in bpf/event.h.

`EVENT` is the numpy dtype of `struct event`; `EventType`, `Flag` and `Origin` are its enums.
Nothing here repeats a field, an offset or a number.
"""

import functools
import re
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.layout import EVENT_H

Events = npt.NDArray[np.void]
"""An array of `EVENT` records."""

_SCALARS = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "s32": "<i4"}
_FIELD = re.compile(r"^\t(\w+) (\w+)(?:\[(\w+)\])?;\t*/\* (.+) \*/$")
_CONSTANT = re.compile(r"^\t(\w+) = ([0-9]{1,9}),\t*/\*.*\*/$")
_DEFINE = re.compile(r"^#define (\w+) ([0-9]{1,9})$", re.M)


def _block(text: str, opening: str) -> list[str]:
    # The lines between `opening {` and the closing brace.
    match = re.search(re.escape(opening) + r" \{\n(.*?)^\};", text, re.S | re.M)
    if match is None:
        raise PorttraceError(f"{EVENT_H}: no '{opening}' in it", "reinstall porttrace")
    return match[1].splitlines()


def parse_struct(text: str) -> np.dtype[np.void]:
    """Turn the text of event.h into the dtype of `struct event`.

    Raises PorttraceError naming the line that is not "type name; /* comment */".
    """
    sizes = {name: int(value) for name, value in _DEFINE.findall(text)}
    fields: list[tuple[str, Any]] = []
    for line in _block(text, "struct event"):
        match = _FIELD.match(line)
        if match is None:
            raise PorttraceError(f"{EVENT_H}: not a field with a comment: {line.strip()!r}")
        ctype, name, length = match[1], match[2], match[3]
        count = sizes.get(length, length) if length else None
        fields.append((name, _field_format(ctype, count, line)))
    try:
        return np.dtype(fields, align=True)
    except ValueError as error:
        raise PorttraceError(f"{EVENT_H}: struct event: {error}") from None


def _field_format(ctype: str, length: int | str | None, line: str) -> str:
    if length is None and ctype in _SCALARS:
        return _SCALARS[ctype]
    # Names are bytes up to the first NUL; addresses are raw bytes, NULs included.
    if ctype in ("char", "u8") and re.fullmatch(r"[1-9][0-9]{0,3}", str(length), re.A):
        return f"S{length}" if ctype == "char" else f"V{length}"
    raise PorttraceError(f"{EVENT_H}: no type that a record can have: {line.strip()!r}")


def parse_enum(text: str, name: str) -> dict[str, int]:
    """Turn `enum name` of event.h into a mapping, without the common prefix.

    Raises PorttraceError naming the line that is not "NAME = number, /* comment */".
    """
    members = {}
    for line in _block(text, f"enum {name}"):
        match = _CONSTANT.match(line)
        if match is None:
            raise PorttraceError(f"{EVENT_H}: not a constant with a comment: {line.strip()!r}")
        members[match[1].partition("_")[2]] = int(match[2])
    return members


_TEXT = EVENT_H.read_text()
EVENT = parse_struct(_TEXT)


def _enum(kind: Any, name: str, declared: str) -> Any:
    # Any: a type checker cannot know the members of an enum that is read from C.
    return kind(name, parse_enum(_TEXT, declared))


EventType = _enum(IntEnum, "EventType", "event_type")
Flag = _enum(IntFlag, "Flag", "event_flag")
Origin = _enum(IntEnum, "Origin", "event_origin")


_ROW = np.dtype(f"V{EVENT.itemsize}")


def no_events() -> Events:
    """Return an array of no events."""
    return np.empty(0, EVENT)


# numpy moves records field by field, which takes five to ten times as long as their bytes.


def together(parts: Sequence[Events]) -> Events:
    """Return several arrays of events as one, in their order: not a copy where one has all."""
    filled = [part for part in parts if len(part)]
    if len(filled) < 2:
        return filled[0] if filled else no_events()
    return np.concatenate([part.view(_ROW) for part in filled]).view(EVENT)


def of_kinds(events: Events, *kinds: int) -> npt.NDArray[np.bool_]:
    """Return which of the events are of one of these types: by a table, ten times np.isin."""
    wanted: npt.NDArray[np.bool_] = _table(kinds)[events["type"]]
    return wanted


@functools.cache
def _table(kinds: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[list(kinds)] = True
    return table


def copied(events: Events) -> Events:
    """Return a copy of the events, to be changed, with nothing in between them."""
    return events.view(_ROW).copy().view(EVENT)


def where(events: Events, wanted: npt.NDArray[np.bool_]) -> Events:
    """Return the events that are wanted: not a copy where all are."""
    return events if wanted.all() else events.view(_ROW)[wanted].view(EVENT)
