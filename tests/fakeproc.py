"""Processes in a folder: what a census reads of them, and of the host around them."""

from pathlib import Path

from porttrace.tracer.census.host import HostFiles
from porttrace.tracer.facts import NotLooked, Suspect


class FakeProc:
    """Writes files below a root and reads them as a host's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir()
        self.files = HostFiles(root)

    def write(self, name: str, text: str) -> None:
        """Put a file there, its folders too."""
        file = self.root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def hide(self, name: str) -> None:
        """Take a file away."""
        (self.root / name.lstrip("/")).unlink()

    def add(self, pid: int, comm: str, ppid: int = 1, *, fd: str = "", **status: int) -> None:
        """Put a process there, with one descriptor where `fd` says what it is."""
        folder = self.root / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        self.write(f"/proc/{pid}/comm", f"{comm}\n")
        lines = [f"Name:\t{comm}", f"PPid:\t{ppid}", *(f"{k}:\t{v}" for k, v in status.items())]
        self.write(f"/proc/{pid}/status", "\n".join(lines) + "\n")
        if fd:
            (folder / "fd" / "9").symlink_to(fd)


def kinds(facts: "list[Suspect | NotLooked]") -> list[str]:
    """Return the kinds of facts, `not looked` for what was not looked at."""
    return [fact.kind if isinstance(fact, Suspect) else "not looked" for fact in facts]
