"""A command that is started stopped, so that it is traced from its first connect.

The child waits at a pipe until the probe is attached, then runs the command. When
it cannot, errno comes back through a second pipe that a successful exec closes.
Where standard output carries our own data, the command's output goes to standard error.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence

from porttrace.tracer.errors import TargetError

# How long an ended trace waits for its command after SIGTERM.
_PATIENCE_S = 5.0


class Child:
    """A command that waits for `release`. Exit statuses are the shell's: 128 + signal.

    A context manager: the command was started for the trace and ends with it.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        output_to_stderr: bool = False,
    ) -> None:
        self._command = list(command)
        self._output_to_stderr = output_to_stderr
        self._env = dict(os.environ if env is None else env)
        wait, self._go = os.pipe()
        self._failed, report = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._become_command(wait, report)
        os.close(wait)
        os.close(report)
        self.status: int | None = None

    def _become_command(self, wait: int, report: int) -> None:
        try:
            os.close(self._go)
            os.close(self._failed)
            if not os.read(wait, 1):
                os._exit(0)  # the tracer gave up before the start
            if self._output_to_stderr:
                os.dup2(2, 1)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvpe(self._command[0], self._command, self._env)
        except OSError as error:
            os.write(report, str(error.errno).encode())
        finally:
            os._exit(127)

    def release(self) -> None:
        """Let the command start.

        Raises TargetError when it cannot be run (exit code 127 or 126).
        """
        with contextlib.suppress(BrokenPipeError):  # killed meanwhile: `ended` tells
            os.write(self._go, b"x")
        os.close(self._go)
        self._go = -1
        answer = os.read(self._failed, 16)
        os.close(self._failed)
        if answer:
            os.waitpid(self.pid, 0)
            self.status = 127 if int(answer) == 2 else 126
            error = TargetError(
                f"cannot run {self._command[0]!r}: {os.strerror(int(answer))}",
                "the command stands behind two dashes: porttrace [options] -- COMMAND ...",
            )
            error.exit_code = self.status
            raise error

    def ended(self) -> bool:
        """Return whether the command is over; its status is kept then."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code
        return self.status is not None

    def send(self, number: int) -> None:
        """Pass a signal on to the command."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def give_up(self) -> None:
        """Let a command that never started vanish, without running it."""
        if self._go >= 0:
            os.close(self._go)
            os.close(self._failed)
            self._go = -1
            os.waitpid(self.pid, 0)
            self.status = 0

    def close(self) -> None:
        """End the command: one that never started vanishes, another gets SIGTERM, then SIGKILL."""
        self.give_up()
        until = time.monotonic() + _PATIENCE_S
        number = signal.SIGTERM
        while not self.ended():
            self.send(number)
            while not self.ended() and time.monotonic() < until:
                time.sleep(0.01)
            number = signal.SIGKILL

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
