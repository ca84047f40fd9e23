"""Definitions of kprobes, and those that outlived their process."""

from pathlib import Path

from porttrace.tracer.kprobes import remove_leftovers

DEFINED = """r4096:kprobes/r_tcp_v4_connect_bcc_101 tcp_v4_connect
r4096:kprobes/r_inet_csk_accept_bcc_102 inet_csk_accept
p:kprobes/p_tcp_v6_connect_bcc_101 tcp_v6_connect
p:kprobes/p_vfs_read_bcc_101 vfs_read
p:kprobes/mine tcp_v4_connect
"""


def test_only_those_of_dead_processes_at_our_functions_go(tmp_path: Path) -> None:
    # GIVEN definitions of a dead process (101), of a living one (102), and of other tools
    (tmp_path / "proc" / "102").mkdir(parents=True)
    events = tmp_path / "kprobe_events"
    events.write_text(DEFINED)
    removed = remove_leftovers(tmp_path, tmp_path / "proc")
    assert removed == [
        "kprobes/r_tcp_v4_connect_bcc_101",
        "kprobes/p_tcp_v6_connect_bcc_101",
    ]
    # the kernel reads what is written; a file only grows
    assert events.read_text() == DEFINED + "".join(f"-:{name}\n" for name in removed)


def test_a_kernel_without_kprobes_has_none(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path) == []
