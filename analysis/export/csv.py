"""Tables as CSV (RFC 4180), safe to open in a spreadsheet.

A program may call itself `=cmd|...`, and a spreadsheet would compute that: text that begins with
= + - @ tab or CR gets an apostrophe in front, which spreadsheets take as "this is text". Numbers
stay numbers, negative ones too. Whoever needs such a name as it is takes another format.
"""

import csv as standard
import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from porttrace.analysis.render.escape import printable

_FORMULA = re.compile(r"[=+\-@\t\r]")
_CHUNK = 16_384  # rows that are written at once


def csv(frame: pd.DataFrame, on_terminal: bool = False) -> Iterator[bytes]:
    """Yield `frame` as CSV with a line of column names; what is not there is an empty cell.

    `on_terminal`: characters that could act on a terminal are written out.
    """
    safe = _shown if on_terminal else guarded
    yield _lines([frame.columns])
    for at in range(0, len(frame), _CHUNK):
        part = frame.iloc[at : at + _CHUNK]
        yield _lines(zip(*(_cells(part[name], safe) for name in part), strict=True))


def guarded(text: str) -> str:
    """Return `text` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def _shown(text: str) -> str:
    return printable(guarded(text))


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    page = io.StringIO(newline="")
    standard.writer(page, lineterminator="\r\n").writerows(rows)
    return page.getvalue().encode()


def _cells(column: "pd.Series[Any]", safe: Callable[[str], str]) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        # Text repeats: each distinct word is looked at once.
        words = [safe(str(word)) for word in column.cat.categories]
        return [words[code] for code in column.cat.codes]
    if pd.api.types.is_string_dtype(column):
        return [safe(str(cell)) for cell in column]
    return column.astype(object).where(column.notna(), None).tolist()
