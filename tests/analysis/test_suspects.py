"""The order among facts: the held stack, then the place, then what can hold at all."""

import pytest

from porttrace.analysis.model import Suspect
from porttrace.analysis.stacks import telling
from porttrace.analysis.suspects import could_hold, fit


def fact(kind: str, place: str, what: str = "it is there") -> Suspect:
    return Suspect(kind, place, what, "/x")


PRELOAD, NOTIFY = fact("preload", "user"), fact("seccomp-notify", "gate")
PTRACE, PROFILE = fact("ptrace", "gate"), fact("lsm", "connect")
MODULE = fact("module", "connect", "the kernel module vguard is loaded: unsigned")
OTHER_MODULE = fact("module", "connect", "the kernel module zfs is loaded: proprietary")
PROGRAM = fact("bpf-probe", "connect", "the BPF program watch (id 3; held by a (pid 5)) is on x")
QUEUE = fact("nfqueue", "egress")
ALL = (PROFILE, OTHER_MODULE, PRELOAD, PTRACE, NOTIFY, MODULE, PROGRAM, QUEUE)


def test_what_acts_at_the_place_comes_first_and_the_weak_last_of_it() -> None:
    assert fit(ALL, "connect")[:4] == (OTHER_MODULE, MODULE, PROGRAM, PROFILE)
    assert fit(ALL, "gate")[:2] == (PTRACE, NOTIFY)
    assert fit(ALL, "egress")[0] == QUEUE
    assert set(fit(ALL, "")) == set(ALL)


@pytest.mark.parametrize(
    ("frame", "best"),
    [
        ("seccomp_do_user_notification", NOTIFY),
        ("ptrace_stop", PTRACE),
        ("hold_connect [vguard]", MODULE),
        ("hold_connect.isra.0 [vguard]", MODULE),
        ("bpf_prog_0123456789abcdef_watch [bpf]", PROGRAM),
        ("apparmor_socket_connect", PROFILE),
    ],
)
def test_what_the_held_stack_names_comes_first(frame: str, best: Suspect) -> None:
    functions = telling(("__schedule", "schedule", frame, "security_socket_connect"))
    assert fit(ALL, "connect", functions)[0] == best


def test_a_stack_that_names_nobody_changes_nothing() -> None:
    assert fit(ALL, "connect", ("msleep", "hold [absent]")) == fit(ALL, "connect")


def test_each_fact_once() -> None:
    assert fit((PTRACE, NOTIFY, PTRACE), "gate") == (PTRACE, NOTIFY)


def test_who_could_hold() -> None:
    assert could_hold(NOTIFY, "gate")
    assert not could_hold(NOTIFY, "connect")
    assert not could_hold(PROFILE, "connect")


def test_a_module_that_is_merely_there_is_not_said_to_have_done_it() -> None:
    assert not could_hold(MODULE, "connect", ("msleep", "security_socket_connect"))
    assert could_hold(MODULE, "connect", ("hold [vguard]",))
    assert not could_hold(OTHER_MODULE, "connect", ("hold [vguard]",))
