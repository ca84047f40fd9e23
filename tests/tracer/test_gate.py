"""Only a stack through the entry of the system call is a hold at the gate."""

import pytest

from porttrace.tracer.gate import is_gate


@pytest.mark.parametrize(
    "frames",
    [
        # seccomp user notification and ptrace, x86_64, Linux 6.18
        ("schedule", "seccomp_do_user_notification.isra.0", "__seccomp_filter", "do_syscall_64"),
        ("schedule", "ptrace_stop", "ptrace_report_syscall_entry", "do_syscall_64"),
        ("schedule", "syscall_trace_enter", "el0_svc_common.constprop.0"),
        ("schedule", "__secure_computing", "syscall_enter_from_user_mode"),
    ],
)
def test_stacks_at_the_gate(frames: tuple[str, ...]) -> None:
    assert is_gate(frames)


@pytest.mark.parametrize(
    "frames",
    [
        (),
        ("schedule", "futex_wait_queue", "do_futex", "__x64_sys_futex", "do_syscall_64"),
        ("schedule", "inet_wait_for_connect", "__inet_stream_connect", "__x64_sys_connect"),
        ("schedule", "ptrace_stop", "syscall_exit_to_user_mode_prepare", "do_syscall_64"),
        ("my_seccomp_filter_driver",),
    ],
)
def test_other_stacks(frames: tuple[str, ...]) -> None:
    assert not is_gate(frames)
