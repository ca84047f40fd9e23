"""What can keep a virtual machine from running, for whoever started it."""


class VmError(Exception):
    """Says what is in the way (`message`) and what to do next (`hint`)."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
