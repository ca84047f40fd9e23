"""What the lab raises when it cannot go on: each error says what to do next.

    LabError               what happened, and a hint what to do next: exit 1
    ├── WrongUsageError    what was asked for makes no sense, whatever the host: exit 2
    └── CommandNotRunError the command behind `--` could not be started: exit 126 or 127

All are for a command line to show as two lines, `error: ...` and `hint: ...`.
"""

from __future__ import annotations


class LabError(Exception):
    """Say what went wrong (`message`) and what to do about it (`hint`)."""

    exit_status = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WrongUsageError(LabError):
    """What was asked for makes no sense, whatever the host."""

    exit_status = 2


class CommandNotRunError(LabError):
    """The command to throttle could not be started; `exit_status` is what a shell would return."""

    def __init__(self, command: str, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        self.exit_status = 127 if missing else 126
        super().__init__(
            f"cannot run {command!r}: {error.strerror}",
            "check the spelling and PATH, or give the full path"
            if missing
            else "check that the file is a program and may be executed",
        )
