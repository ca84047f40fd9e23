"""A host in a folder: the files that features reads, complete until a test takes one away."""

import shutil
from pathlib import Path

ALL_CAPABILITIES = 0x1FFFFFFFFFF
TRACEPOINTS = (
    "syscalls/sys_enter_connect",
    "syscalls/sys_exit_connect",
    "syscalls/sys_enter_socket",
    "syscalls/sys_enter_bind",
    "syscalls/sys_exit_bind",
    "syscalls/sys_enter_listen",
    "syscalls/sys_exit_listen",
    "syscalls/sys_enter_setsockopt",
    "syscalls/sys_exit_setsockopt",
    "syscalls/sys_exit_socket",
    "sock/inet_sock_set_state",
    "sock/inet_sk_error_report",
    "tcp/tcp_retransmit_skb",
    "sched/sched_switch",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "task/task_newtask",
)
# Linux 6.18, cut
EXIT_FORMAT = """name: sched_process_exit
ID: 305
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] where;\toffset:28;\tsize:4;\tsigned:0;
\tfield:bool group_dead;\toffset:32;\tsize:1;\tsigned:0;

print fmt: "comm=%s pid=%d prio=%d", REC->comm, REC->pid, REC->prio
"""


class FakeHost:
    """Write and hide files under `root`; everything is there at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.capabilities(ALL_CAPABILITIES)
        self.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
        self.write("sys/kernel/btf/vmlinux", "")
        self.write("proc/kallsyms", "0000000000000000 A first\nffffffff81000000 T _text\n")
        self.write("proc/sys/kernel/kptr_restrict", "1\n")
        self.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n")
        self.write("sys/kernel/tracing/kprobe_events", "")
        (root / "proc/self/ns").mkdir(parents=True)
        (root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
        for name in TRACEPOINTS:
            self.write(f"sys/kernel/tracing/events/{name}/format", EXIT_FORMAT)

    def write(self, path: str, text: str) -> None:
        """Put a file there, its folders too."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def hide(self, path: str) -> None:
        """Take a file or folder away."""
        gone = self.root / path
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()

    def capabilities(self, bits: int) -> None:
        """Set the effective capabilities."""
        self.write("proc/self/status", f"Name:\tporttrace\nCapEff:\t{bits:016x}\n")
