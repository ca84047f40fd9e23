"""Commands of others that a census asks, each with a time limit and nothing to write to."""

import os
import shutil
import subprocess

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_LIMIT_S = 1.0


class CommandError(Exception):
    """A command could not answer; the message is the reason, for a `NotLooked`."""


def answer(*words: str, limit_s: float = _LIMIT_S) -> str:
    """Return what a command prints. Raises CommandError: not there, too slow, or it failed."""
    program = shutil.which(words[0], path=_PATH)
    if program is None:
        raise CommandError(f"{words[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{words[0]} took longer than {limit_s:g} s") from None
    except OSError as error:
        raise CommandError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        said = os.fsdecode(done.stderr).strip().split("\n")[0]
        raise CommandError(f"{words[0]} failed: {said[:100] or done.returncode}")
    return os.fsdecode(done.stdout)
