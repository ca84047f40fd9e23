"""Tables in, tables out: what the events mean. No clock, no I/O, no bcc, no root.

`from porttrace.analysis import load` is where a notebook begins.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from porttrace.analysis.recording import load

__all__ = ("load",)


def __getattr__(name: str) -> Any:
    # Only when asked for: pyarrow and the rules would slow down whoever needs one table.
    if name == "load":
        from porttrace.analysis.recording import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
