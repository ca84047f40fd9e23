"""Settings of the kernel, as /proc/sys has them."""

import contextlib
from pathlib import Path


def sysctl(name: str, root: Path = Path("/")) -> str | None:
    """Return a setting such as "net.ipv4.ip_local_port_range", with single blanks.

    None where there is no such one. Those of net are of the calling thread's network namespace.
    """
    with contextlib.suppress(OSError):
        text = (root / "proc/sys" / name.replace(".", "/")).read_text(errors="surrogateescape")
        return " ".join(text.split())
    return None
