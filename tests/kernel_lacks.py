"""Runs porttrace where parts of the kernel are hidden.

Each run has a mount namespace of its own, in which something is laid over a file or folder.
"""

import subprocess

from tracing import PORTTRACE

NOTHING = "mount -t tmpfs none "


def run_with(hidden: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run porttrace after the shell command `hidden`, in mounts of its own."""
    script = f'{hidden} && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *PORTTRACE, *arguments],
        capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
