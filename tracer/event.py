"""The kernel's record, read from its one declaration in bpf/event.h.

`EVENT` is the numpy dtype of `struct event`; `EventType` and `Flag` are its enums.
Nothing here repeats a field, an offset or a number.
"""

import re
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
_CONSTANT = re.compile(r"^\t(\w+) = (\d+),\t*/\*.*\*/$")
_DEFINE = re.compile(r"^#define (\w+) (\d+)$", re.M)


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
        fields.append((name, _field_format(ctype, sizes.get(length, length) if length else None)))
    return np.dtype(fields, align=True)


def _field_format(ctype: str, length: int | str | None) -> Any:
    if length is None:
        return _SCALARS[ctype]
    # Names are bytes up to the first NUL; addresses are raw bytes, NULs included.
    return f"S{length}" if ctype == "char" else f"V{length}"


def parse_enum(text: str, name: str) -> dict[str, int]:
    """Turn `enum name` of event.h into a mapping, without the common prefix."""
    lines = (_CONSTANT.match(line) for line in _block(text, f"enum {name}"))
    return {m[1].partition("_")[2]: int(m[2]) for m in lines if m}


_TEXT = EVENT_H.read_text()
EVENT = parse_struct(_TEXT)
# Any: a type checker cannot know the members of an enum that is read from C.
EventType: Any = IntEnum("EventType", parse_enum(_TEXT, "event_type"))
Flag: Any = IntFlag("Flag", parse_enum(_TEXT, "event_flag"))


def no_events() -> Events:
    """Return an array of no events."""
    return np.empty(0, EVENT)
