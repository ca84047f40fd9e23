"""What the kernel program is attached to, by hook mode, with what each hook is for.

The layer of tracepoints is always there. The modes `fentry` and `kprobe` add the
kernel's own connect and accept. Names are those of bpf/porttrace.bpf.c.
"""

from dataclasses import dataclass

MODES = ("fentry", "kprobe", "tracepoint")
"""Every hook mode, best first."""

BLIND_SPOT = (
    "connects that fail before the SYN and were not made by connect(2) are not seen, nor "
    "when connections are accepted"
)
"""What the mode `tracepoint` does not see; bpf/kernel.h does."""

# Threads that wait in accept(2) each keep one place until they return; the kernel gives
# 10, or twice the number of CPUs, when it is not asked for more, and 4,096 at most
# (KRETPROBE_MAXACTIVE_MAX in kernel/trace/trace_probe.h).
MAX_RETURNS = 4096


@dataclass(frozen=True)
class Hook:
    """One program and where it goes.

    `kind` is tracepoint, fentry, fexit, kprobe or kretprobe. `cost` is what is lost
    without the hook; "" where there is no tracing (or no such mode) without it.
    `flag` is the -D flag that it is compiled with where the kernel has what it needs, "" for
    always; `chosen` the one without which nobody wants it.
    """

    kind: str
    event: str
    program: str
    cost: str = ""
    flag: str = ""
    chosen: str = ""

    @property
    def raw(self) -> str:
        """The program for the raw tracepoint of the same name, "" where there is none."""
        return f"{self.program}_raw" if self.program in _RAW else ""


# They run at interrupts, too, where the program of a classic tracepoint is stepped over when
# another one is at work (trace_call_bpf in kernel/trace/bpf_trace.c); a raw one is not.
_RAW = ("on_set_state", "on_receive_reset", "on_retransmit", "on_error_report", "on_free_packet")
RAW_FLAG = "-DHAVE_SOCK"
"""The -D flag that the programs for raw tracepoints are compiled with."""

_EARLY = "connects that fail before the SYN are not seen"
_NAMELESS = "some errors have no number"
_BINDS = "bind(2) and listen(2) are not seen"
_OPTIONS = "with which options sockets were bound is asked afterwards"
_MOVES = "who held a port may be looked for in a network namespace that a thread went to later"
_ACCEPTS = "when connections are accepted is not seen"

TRACEPOINTS = tuple(
    Hook("tracepoint", *row)
    for row in (
        ("task:task_newtask", "on_new_task", "children of the target are not followed"),
        (
            "sched:sched_process_exec",
            "on_exec",
            "a process that changes program keeps its old name",
        ),
        ("sched:sched_process_exit", "on_exit", "the end of processes is not seen"),
        ("syscalls:sys_enter_socket", "on_socket_enter", _EARLY),
        ("syscalls:sys_exit_socket", "on_socket_exit", _EARLY),
        ("syscalls:sys_enter_connect", "on_connect_enter"),
        ("syscalls:sys_exit_connect", "on_connect_exit"),
        ("sock:inet_sock_set_state", "on_set_state"),
        ("syscalls:sys_enter_getsockopt", "on_getsockopt_enter", _NAMELESS),
        ("syscalls:sys_exit_getsockopt", "on_getsockopt_exit", _NAMELESS),
        *(
            (f"syscalls:sys_{when}_{call}", f"on_{call}_{when}", cost, "", "-DBINDS")
            for call, cost in (("setsockopt", _OPTIONS), ("bind", _BINDS), ("listen", _BINDS))
            for when in ("enter", "exit")
        ),
        *(
            (f"syscalls:sys_enter_{call}", f"on_{call}_enter", _MOVES, "", "-DMOVES")
            for call in ("setns", "unshare")
        ),
        ("tcp:tcp_receive_reset", "on_receive_reset", "some refusals have no error number"),
        ("tcp:tcp_retransmit_skb", "on_retransmit", "retransmitted SYNs are not counted"),
        (
            "sock:inet_sk_error_report",
            "on_error_report",
            "errors of non-blocking connects have no errno",
            "-DHAVE_ERROR_REPORT",
        ),
        (
            "skb:kfree_skb",
            "on_free_packet",
            "why the kernel dropped a SYN is not told",
            "-DHAVE_DROP_REASON",
            "-DWIRE",
        ),
        (
            "sched:sched_switch",
            "on_switch",
            "holds before the kernel's connect are not seen",
            "",
            "-DGATE",
        ),
    )
)

# tcp_v6_connect may be a module that is not loaded: then nobody connects by IPv6.
_NO_IPV6 = "connects by IPv6 that do not pass connect(2) are not seen when they fail at once"

# (function, program at its entry, program at its return, what is lost without)
_FUNCTIONS = (
    ("tcp_v4_connect", "on_kernel_connect", "on_kernel_connect_return", ""),
    ("tcp_v6_connect", "on_kernel_connect", "on_kernel_connect_return", _NO_IPV6),
    ("inet_csk_accept", "on_accept", "on_accept_return", _ACCEPTS),
)


def function_hooks(mode: str) -> tuple[Hook, ...]:
    """Return the hooks that a mode adds to the tracepoints: () for `tracepoint`.

    The programs of `fentry` have no name here: each belongs to one function, and bcc
    names it after that.
    """
    # Returns first: of the probes at one function the kernel runs the newest first
    # (add_new_kprobe in kernel/kprobes.c), and an entry is to see the stack before a
    # kretprobe has put its own address there.
    kinds = {"fentry": ("fexit", "fentry"), "kprobe": ("kretprobe", "kprobe")}.get(mode)
    if kinds is None:
        return ()
    named = mode == "kprobe"
    return tuple(
        Hook(kind, function, program if named else "", cost)
        for function, entry, exit_, cost in _FUNCTIONS
        for kind, program in zip(kinds, (exit_, entry), strict=True)
    )


def hooks_of(mode: str) -> tuple[Hook, ...]:
    """Return every hook of a mode in the order of attaching."""
    return (*TRACEPOINTS, *function_hooks(mode))
