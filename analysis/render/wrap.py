"""Text folded to the width of a terminal."""

import textwrap

WIDTH = 80


def wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    """Return `text` in lines of at most 80 columns; words longer than that stay whole.

    `first` begins the first line, `rest` (by default as many blanks) the others.
    """
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
