"""The names of the functions on kernel stacks, from /proc/kallsyms.

Not by bcc, which asks for root before it opens the file: a trace has let go of that by then, and
CAP_SYSLOG is what the kernel asks for.
"""

from bisect import bisect_right
from functools import cached_property
from pathlib import Path

UNKNOWN = "[unknown]"
_CODE = "tTwW"  # the types of symbols that stand for functions


class KernelSymbols:
    """Functions by address. Reads the file when the first one is asked for, 0.2 s once."""

    def __init__(self, path: Path = Path("/proc/kallsyms")) -> None:
        self._path = path

    def name(self, address: int) -> str:
        """Return the function that `address` lies in, "name" or "name [module]".

        `UNKNOWN` where the kernel shows no addresses (kernel.kptr_restrict, no CAP_SYSLOG).
        """
        addresses, names = self._symbols
        at = bisect_right(addresses, address) - 1
        return names[at] if at >= 0 else UNKNOWN

    @cached_property
    def _symbols(self) -> tuple[list[int], list[str]]:
        try:
            text = self._path.read_text(errors="replace")
        except OSError:
            return [], []
        # address type name, and after a tab [module]
        fields = (line.split(" ", 2) for line in text.splitlines())
        found = [
            (int(line[0], 16), line[2].replace("\t", " "))
            for line in fields
            if len(line) == 3 and line[1] in _CODE
        ]
        found = sorted(each for each in found if each[0])
        return [address for address, _ in found], [name for _, name in found]
