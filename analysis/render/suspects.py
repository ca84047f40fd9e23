"""The census of one process as text: what could interpose, by place, and what was not looked at."""

from collections.abc import Iterator, Sequence

from porttrace.analysis.model import NotLooked, Process, Suspect
from porttrace.analysis.names import inside
from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.suspects import fit

_PLACES = {
    "user": "before the call",
    "gate": "at the entry of the system call",
    "connect": "inside the kernel's connect, before the SYN",
    "egress": "the SYN on its way out",
    "network": "between here and there",
    "ingress": "the answer on its way in",
    "return": "after the answer",
}


def census_text(
    process: Process, suspects: Sequence[Suspect], not_looked: Sequence[NotLooked]
) -> str:
    """Return the census of `process` in lines of at most 80 columns."""
    lines = [*wrapped(printable(_who(process)), "", " " * 6)]
    for place, where in _PLACES.items():
        at_place = [each for each in suspects if each.place == place]
        if at_place:
            lines.append(f"  {place} ({where}):")
            lines += _items(f"{each.what} [{each.source}]" for each in fit(at_place, place))
    if not suspects:
        lines.append("  Nothing was found that interposes on its connects.")
    if not_looked:
        lines.append("  Not looked at on this host:")
        lines += _items(f"{each.what}: {each.reason}" for each in not_looked)
    return "\n".join(lines)


def _who(process: Process) -> str:
    number = ", ".join(filter(None, (f"pid {process.pid}", inside(process))))
    where = f", cgroup {process.cgroup}" if process.cgroup else ""
    netns = f", netns {process.netns}" if process.netns else ""
    return f"{process.comm} ({number}), user {process.user}{where}{netns}"


def _items(sentences: Iterator[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from wrapped(printable(sentence), "    - ")
