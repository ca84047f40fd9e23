"""How well each suspect fits what was measured: where a connect stood still, and in which function.

Facts stay facts: an order among them accuses nobody.
"""

import re
from collections.abc import Sequence

from porttrace.analysis.model import Suspect

# A function on the stack of a hold -> the kinds of suspects that work through it.
_THROUGH = (
    (r"seccomp_do_user_notification|__seccomp_filter", ("seccomp-notify",)),
    (r"ptrace_", ("ptrace",)),
    (r"bpf_lsm_", ("bpf-lsm",)),
    (r"__cgroup_bpf_", ("bpf-cgroup",)),
    (r"bpf_trampoline_", ("bpf-lsm", "bpf-probe")),
    (r"(apparmor|selinux|smack|tomoyo)_", ("lsm",)),
    (r"(kprobe|ftrace|arch_ftrace)_", ("kernel-probe", "bpf-probe")),
    (r"nf_", ("netfilter-queue", "netfilter-connlimit", "netfilter-limit", "bpf-netfilter")),
)
# These can refuse or send elsewhere; that they keep a connect waiting is not how they are made.
_WEAK = frozenset(
    ("seccomp-filter", "seccomp-strict", "lsm", "proxy", "preload-other", "module-gone",
     "netfilter-reject", "bpf-xdp", "conntrack")
)  # fmt: skip

# There on many hosts, and mostly for something else.
_COMMON = frozenset(
    ("module", "livepatch", "kernel-probe", "bpf-probe", "bpf-cgroup", "bpf-lsm", "bpf-tc",
     "bpf-netfilter", "netfilter-drop", "audit-library")
)  # fmt: skip


def fit(
    suspects: Sequence[Suspect], place: str, functions: Sequence[str] = ()
) -> tuple[Suspect, ...]:
    """Return the suspects, what fits best first, each fact once.

    Best is what the `functions` of the hold's kernel stack run through, then what acts at `place`,
    and of those what can keep a connect waiting before what can only refuse it.
    """

    def badness(suspect: Suspect) -> tuple[bool, bool, bool]:
        through = any(_names(function, suspect) for function in functions)
        return not through, suspect.place != place, suspect.kind in _WEAK

    return tuple(sorted(dict.fromkeys(suspects), key=badness))


def could_hold(suspect: Suspect, place: str, functions: Sequence[str] = ()) -> bool:
    """Return whether the suspect acts at `place` and keeps connects waiting by its nature.

    Of what is in the kernel for many other reasons (modules, probes, BPF programs) only what the
    `functions` of the hold's stack run through.
    """
    if suspect.place != place or suspect.kind in _WEAK:
        return False
    return suspect.kind not in _COMMON or any(_names(each, suspect) for each in functions)


def _names(function: str, suspect: Suspect) -> bool:
    words = suspect.what.split()
    module = re.search(r"\[([^\]]+)\]$", function)
    if module and module[1] in words and suspect.kind in ("module", "lsm-foreign"):
        return True
    # bpf_prog_TAG_NAME
    program = re.match(r"bpf_prog_[0-9a-f]{16}_(\w+)", function)
    if program and program[1] in words and suspect.kind.startswith("bpf-"):
        return True
    return any(re.match(way, function) and suspect.kind in kinds for way, kinds in _THROUGH)
