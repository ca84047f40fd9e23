"""Tables of figures, printed and kept in docs/overhead.md between marks of their own."""

import os
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "overhead.md"


def machine() -> str:
    """Return what the figures were measured on: processor, CPUs, kernel, load, date."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    load = os.getloadavg()[0]
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({model[1] if model else 'unknown'}), "
        f"Linux {platform.release().partition('-')[0]}, load {load:.1f} at the end."
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown; the first column is left, the others are right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def keep(name: str, text: str, page: Path = PAGE) -> None:
    """Print `text`, and write it into the page in place of what `name` had there.

    Raises ValueError where the page has no such place.
    """
    print(text)
    begin, end = f"<!-- bench {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place between {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
