"""Threads and processes by name in a column of a table: `curl`, in a container `web[7] curl`."""

from porttrace.analysis.render.escape import clipped, columns, ending, padded, printable

_LEAST = 6  # columns that a thread keeps beside a long container


def width(inside: str, name: str) -> int:
    """Return the columns that `called(inside, name)` takes in full."""
    shown = columns(printable(name))
    return shown + columns(printable(inside)) + 1 if inside else shown


def called(inside: str, name: str, most: int) -> str:
    """Return who it is in `most` columns, filled up with spaces; all of it made printable.

    `inside` is what `names.inside` says, "" on the host itself. The thread gives way first, then
    the beginning of the container's name: what tells containers apart stands at the end.
    """
    if not inside:
        return padded(name, most)
    short = clipped(name, max(min(_LEAST, most - 2), most - width(inside, "")))
    return padded(f"{ending(inside, most - columns(short) - 1)} {short}", most)
