"""Which kernel stacks stand at the gate: the way into a system call, before the call.

Linux runs ptrace, then seccomp, then the sys_enter tracepoint in
syscall_trace_enter (kernel/entry/common.c; arch/arm64/kernel/ptrace.c).
"""

_ENTRY_FRAMES = (
    "syscall_trace_enter",
    "syscall_enter_from_user_mode",
    "__syscall_enter_from_user_work",
    "__secure_computing",
    "__seccomp_filter",
    "seccomp_",
    "ptrace_report_syscall_entry",
)


def is_gate(frames: tuple[str, ...]) -> bool:
    """Return whether a stack (innermost first) runs through the entry of a system call."""
    return any(frame.startswith(_ENTRY_FRAMES) for frame in frames)
