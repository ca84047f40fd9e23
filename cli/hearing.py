"""Whether anybody hears us: a pipe that was closed or a terminal that was lost is no error.

Whoever read our output has gone. What is written from then on goes nowhere, and a trace ends as
it does by Ctrl-C: its recording is whole.
"""

import contextlib
import errno
import os
import select
import sys
from collections.abc import Iterator

_GONE = select.POLLERR | select.POLLHUP
_silenced: set[int] = set()  # descriptors, which are the whole process's


def nobody_hears() -> bool:
    """Return whether what is written to standard output reaches nobody."""
    return 1 in _silenced or 1 in _gone()


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """Leave off, without an error, where our output reaches nobody any more."""
    try:
        yield
    except OSError as error:
        if not is_gone(error):
            raise
        silence()


def is_gone(error: OSError) -> bool:
    """Return whether an error only says that nobody hears us."""
    # A terminal that hung up fails as a broken disk does.
    return isinstance(error, BrokenPipeError) or (error.errno == errno.EIO and bool(_gone()))


def silence() -> None:
    """Let what is written where nobody hears it go nowhere from now on.

    What waits to be written, such as until the interpreter's end, would fail otherwise.
    """
    for number in _gone():
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, number)
        os.close(nowhere)
        _silenced.add(number)


def note(text: str) -> None:
    """Print to standard error, if anybody is there."""
    if sys.stderr is None:  # closed when we began: print() would take standard output for it
        return
    with unless_gone():
        print(text, file=sys.stderr, flush=True)


def _gone() -> list[int]:
    # Of standard output and error, 1 and 2, those without a reader or with a lost terminal. A
    # number that was closed when we began may be any other file by now.
    poll = select.poll()
    for number, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        if stream is not None:
            poll.register(number, 0)
    return [number for number, events in poll.poll(0) if events & _GONE]
