"""What can go wrong, said so that the reader knows what to do next.

PorttraceError            exit 1: a message and, when there is one, a hint
├── NotPermittedError     exit 3: a capability is missing
├── UnsupportedError      exit 4: this host cannot do it
└── TargetError           exit 1: the process or command to trace is not there

The library raises; only the command line prints and exits.
"""


class PorttraceError(Exception):
    """Say what failed, where and why; `hint` says what to do next.

    `detail` is what another program said of it at length, shown with --debug only.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class NotPermittedError(PorttraceError):
    """A capability is missing; the hint names it and the command that gives it."""

    exit_code = 3


class UnsupportedError(PorttraceError):
    """This host lacks something that porttrace cannot do without."""

    exit_code = 4


class TargetError(PorttraceError):
    """The process or command that should be traced is not there."""
