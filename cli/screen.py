"""The whole terminal for a while: lines on its other screen, and keys one at a time.

Whatever ends it, the terminal is what it was: the screen, the echo, the cursor. A terminal that is
lost (its window closed, its line cut) shows nothing and is said to be `lost`; that is no error.
"""

import contextlib
import dataclasses
import io
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from porttrace.analysis.render.top import Line, screen
from porttrace.analysis.top import SORTS, Now, sorted_by
from porttrace.cli.hearing import nobody_hears, silence

# What arrows, function keys and letters with Alt send.
_SEVERAL = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)
_STYLES = {"key": "underline", "red": "bold red", "yellow": "yellow"}


class Screen:
    """Shows lines on the terminal. Use as a context manager."""

    def __init__(self) -> None:
        self.lost = False
        self._console = Console(force_terminal=True, highlight=False, markup=False, emoji=False)
        self._keys = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
        self._before: list[Any] = []
        self._live: Live | None = None
        # What rich imports when it first needs it is not to be had once rights are dropped.
        Console(file=io.StringIO(), force_terminal=True).print(_text((("\u00e9\u6f22", "red"),)))

    def __enter__(self) -> "Screen":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        if self.lost:
            silence()

    def _open(self) -> None:
        with self._unless_lost():
            if self._keys >= 0:
                self._before = termios.tcgetattr(self._keys)
                tty.setcbreak(self._keys)
            self._live = Live(
                console=self._console, screen=True, auto_refresh=False,
                redirect_stdout=False, redirect_stderr=False, vertical_overflow="crop",
            )  # fmt: skip
            self._live.start()

    def _close(self) -> None:
        live, self._live = self._live, None
        with self._unless_lost():
            if live:
                live.stop()
        with self._unless_lost():
            if self._before:
                termios.tcsetattr(self._keys, termios.TCSANOW, self._before)
                self._before = []

    @contextlib.contextmanager
    def _unless_lost(self) -> Iterator[None]:
        try:
            yield
        except (OSError, termios.error):
            self.lost = True

    def size(self) -> tuple[int, int]:
        """Return columns and lines as they are now."""
        return self._console.size

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines, from the top, instead of what was shown before."""
        with self._unless_lost():
            if self._live:
                self._live.update(Group(*map(_text, lines)), refresh=True)

    def pressed(self) -> str:
        """Return what was pressed since the last call, "" nothing: a letter each.

        Keys that send several characters, such as arrows, are left out.
        """
        if self._keys < 0 or self.lost or not select.select([self._keys], [], [], 0)[0]:
            return ""
        pressed = b""
        with self._unless_lost():
            pressed = os.read(self._keys, 256)
        self.lost |= not pressed  # hung up
        return _SEVERAL.sub(b"", pressed).decode(errors="ignore")

    def suspend(self) -> None:
        """Give the terminal back and stand still until this process is told to go on."""
        self._close()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._open()


class OnScreen:
    """Shows looks on the terminal, and does what is pressed there."""

    def __init__(self, sort: str) -> None:
        self.over = False
        self._screen = Screen()
        self._sort, self._reverse = sort, False
        self._shown: tuple[Now, Sequence[str]] | None = None
        self._signals: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGWINCH, signal.SIGTSTP):
            self._before[number] = signal.signal(number, lambda n, _: self._signals.append(n))
        self._screen.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.__exit__()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def show(self, now: Now, about: Sequence[str]) -> None:
        """Show it, in the order that is chosen now."""
        self._shown = now, about
        ordered = sorted_by(now.processes, self._sort, self._reverse)
        now = dataclasses.replace(now, processes=ordered)
        self._screen.show(screen(now, about, self._sort, *self._screen.size()))

    def turn(self) -> None:
        """Do what was pressed; follow the terminal's size; stand still when asked to."""
        signals = [self._signals.pop() for _ in list(self._signals)]
        if signal.SIGTSTP in signals:
            self._screen.suspend()
        changed = [self._press(key) for key in self._screen.pressed()]
        if self._shown and (signals or any(changed)):
            self.show(*self._shown)
        self.over |= self._screen.lost or nobody_hears()

    def _press(self, key: str) -> bool:
        if key == "q":
            self.over = True
        if key == "r":
            self._reverse = not self._reverse
        for name in SORTS:
            if key == name[0]:
                self._sort, self._reverse = name, False
        return True


def _text(line: Line) -> Text:
    text = Text(no_wrap=True, overflow="crop")
    for piece, style in line:
        text.append(piece, " ".join(_STYLES.get(word, word) for word in style.split()))
    return text
