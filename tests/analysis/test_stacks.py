"""What a stack tells, and what it only says about sleeping."""

import numpy as np

from porttrace.analysis.model import ATTEMPT
from porttrace.analysis.stacks import held_in, telling

SECCOMP = ("__schedule", "schedule", "schedule_timeout", "__wait_for_common",
           "wait_for_completion_interruptible", "seccomp_do_user_notification.isra.0",
           "__seccomp_filter", "syscall_trace_enter", "do_syscall_64")  # fmt: skip


def test_the_scheduler_is_left_out() -> None:
    expected = ("seccomp_do_user_notification", "__seccomp_filter", "syscall_trace_enter")
    assert telling(SECCOMP) == expected
    assert telling(()) == ()


def test_most_rows_decide() -> None:
    rows = np.zeros(4, ATTEMPT)
    rows["gate_stack"] = [5, 5, 6, -1]
    stacks = {5: SECCOMP, 6: ("schedule", "ptrace_stop")}
    assert held_in(rows, "gate", stacks) == telling(SECCOMP)
    assert held_in(rows, "user", stacks) == ()
    assert held_in(rows[3:], "gate", stacks) == ()


def test_the_module_of_a_function_and_a_bpf_program_are_kept() -> None:
    own = ("bpf_prog_aa_on_switch", "__traceiter_sched_switch", "__schedule", "schedule")
    theirs = (
        "msleep",
        "hold.isra.0 [vguard]",
        "bpf_prog_bb_watch [bpf]",
        "security_socket_connect",
    )
    assert telling(own + theirs) == ("msleep", "hold [vguard]", "bpf_prog_bb_watch [bpf]")
