"""Which hook modes this host seems to have, found by cheap trials before anything is compiled.

A mode that passes may still be refused when its programs are loaded; one that does not
pass is not tried, which would cost a compilation.
"""

import ctypes
import os
import platform
from pathlib import Path

from porttrace.tracer.errors import UnsupportedError
from porttrace.tracer.features import ROOT, find_tracefs, has_btf
from porttrace.tracer.hooks import MODES

_FUNCTION = b"tcp_v4_connect"
_BPF = {"x86_64": 321, "aarch64": 280}
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_BPF_PROG_LOAD = 5
_BPF_PROG_TYPE_TRACING = 26
_BPF_TRACE_FENTRY = 24
_PERF_FLAG_FD_CLOEXEC = 8
# libbpf comes with bcc, which looks functions up through it, too.
_LIBBPF = ("libbpf.so.1", "libbpf.so.0")


def possible_modes(root: Path = ROOT) -> tuple[str, ...]:
    """Return the modes worth trying, best first; `tracepoint` is always the last."""
    return tuple(mode for mode in MODES if not why_not(mode, root))


def modes_to_try(forced: str = "") -> tuple[str, ...]:
    """Return the modes to try, best first; only the forced one when there is one.

    Raises UnsupportedError when that cannot work on this host.
    """
    if not forced:
        return possible_modes()
    reason = why_not(forced)
    if reason:
        raise UnsupportedError(
            f"the hook mode {forced} does not work here: {reason}",
            "leave --mode out to take the best that works; 'porttrace doctor' lists them",
        )
    return (forced,)


def why_not(mode: str, root: Path = ROOT) -> str:
    """Return why a mode cannot work on this host, "" when nothing speaks against it.

    Trials need this host itself: with another `root` only what is read there counts.
    """
    if mode == "fentry":
        return _why_no_fentry(root)
    if mode == "kprobe":
        return _why_no_kprobe(root)
    return ""


def _why_no_fentry(root: Path) -> str:
    if not has_btf(root):
        return "the kernel has no BTF (/sys/kernel/btf/vmlinux)"
    if root != ROOT:
        return ""
    refused = _try_fentry()
    return f"the kernel refuses programs at its functions: {refused}" if refused else ""


def _why_no_kprobe(root: Path) -> str:
    tracefs = find_tracefs(root)
    by_file = tracefs is not None and os.path.exists(tracefs / "kprobe_events")
    kind = root / "sys/bus/event_source/devices/kprobe/type"
    if not by_file and not kind.exists():
        return "the kernel was built without kprobes"
    if root != ROOT or by_file:
        return ""
    refused = _try_kprobe(int(kind.read_text()))
    return f"the kernel refuses kprobes: {refused}" if refused else ""


def _try_fentry() -> str:
    libbpf = _libbpf()
    if libbpf is None:
        return ""  # bcc may have one of its own: let it try
    found = libbpf.libbpf_find_vmlinux_btf_id(_FUNCTION, _BPF_TRACE_FENTRY)
    if found <= 0:
        return f"{_FUNCTION.decode()} is not in its BTF"
    # r0 = 0; exit (struct bpf_insn of <linux/bpf.h>)
    program = ctypes.create_string_buffer(b"\xb7\0\0\0\0\0\0\0\x95\0\0\0\0\0\0\0", 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = _LoadTracing(
        prog_type=_BPF_PROG_TYPE_TRACING,
        insn_cnt=2,
        insns=ctypes.addressof(program),
        license=ctypes.addressof(licence),
        expected_attach_type=_BPF_TRACE_FENTRY,
        attach_btf_id=found,
    )
    return _syscall(_BPF, _BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))


def _libbpf() -> ctypes.CDLL | None:
    for name in _LIBBPF:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _try_kprobe(pmu_type: int) -> str:
    name = ctypes.create_string_buffer(_FUNCTION)
    attributes = _PerfEvent(type=pmu_type, size=72, config1=ctypes.addressof(name))
    return _syscall(_PERF_EVENT_OPEN, ctypes.byref(attributes), -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)


def _syscall(numbers: dict[str, int], *arguments: object) -> str:
    # The descriptor that success gives is closed at once: nothing stays.
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(numbers.get(platform.machine(), -1), *arguments)
    if fd < 0:
        return os.strerror(ctypes.get_errno())
    os.close(fd)
    return ""


class _LoadTracing(ctypes.Structure):
    # union bpf_attr of <linux/bpf.h>, as far as BPF_PROG_LOAD of a tracing program needs it
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_and_name", ctypes.c_uint8 * 44),
        ("expected_attach_type", ctypes.c_uint32),
        ("debug_information", ctypes.c_uint8 * 36),
        ("attach_btf_id", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 16),
    )


class _PerfEvent(ctypes.Structure):
    # struct perf_event_attr of <linux/perf_event.h>, its second version (72 bytes)
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sampling", ctypes.c_uint64 * 3),
        ("flags", ctypes.c_uint64),
        ("wakeup", ctypes.c_uint32 * 2),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
    )
