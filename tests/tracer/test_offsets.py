"""Where the kernel's fields stand, as its BTF says: on this very kernel, and on none."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from porttrace.tracer.offsets import VMLINUX, netns_flags, offset_of, sock_flags

FIELDS = [("task_struct", "nsproxy"), ("nsproxy", "net_ns"), ("net", "ns"), ("ns_common", "inum")]


def test_a_host_without_btf_has_no_flags(tmp_path: Path) -> None:
    assert netns_flags(tmp_path / "none") == sock_flags(tmp_path / "none") == ()
    (tmp_path / "short").write_bytes(b"\x9f\xeb\x01")
    (tmp_path / "other").write_bytes(bytes(64))
    for name in ("short", "other"):
        assert netns_flags(tmp_path / name) == sock_flags(tmp_path / name) == ()


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_this_kernel_has_all_of_them() -> None:
    data = VMLINUX.read_bytes()
    found = {field: offset_of(data, kind, field) for kind, field in FIELDS}
    assert None not in found.values()
    # struct nsproxy begins with a counter and has pointers behind it
    assert (found["net_ns"] or 0) % ctypes.sizeof(ctypes.c_void_p) == 0
    assert offset_of(data, "nsproxy", "inum") is None and offset_of(data, "none_such", "ns") is None
    assert netns_flags()[0] == "-DHAVE_NETNS"


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool")
def test_they_are_what_bpftool_reads() -> None:
    listed = subprocess.run(
        ["bpftool", "btf", "dump", "file", str(VMLINUX)], capture_output=True, text=True, check=True
    ).stdout
    data = VMLINUX.read_bytes()
    for kind, field in FIELDS:
        _, _, text = listed.partition(f"] STRUCT '{kind}' size=")
        members = text[: text.index("\n[")].splitlines()
        line = next(each for each in members if f"'{field}' " in each)
        bits = int(line.partition("bits_offset=")[2].split()[0])
        assert offset_of(data, kind, field) == bits // 8


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_members_of_what_has_no_name_are_found() -> None:
    # struct sock_common: 8 bytes of addresses and 4 of hashes, then the ports, in unions
    data = VMLINUX.read_bytes()
    daddr = offset_of(data, "sock_common", "skc_daddr")
    assert offset_of(data, "sock_common", "skc_rcv_saddr") == (daddr or 0) + 4
    dport = offset_of(data, "sock_common", "skc_dport")
    assert daddr is not None and dport is not None
    assert offset_of(data, "sock_common", "skc_num") == dport + 2
    assert sock_flags()[0] == "-DHAVE_SOCK"


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")
def test_a_bit_field_has_no_place() -> None:
    assert offset_of(VMLINUX.read_bytes(), "sock_common", "skc_reuse") is None
