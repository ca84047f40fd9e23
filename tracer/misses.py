"""How often a program of ours was passed over by the kernel, asked of the kernel itself.

While one BPF program of a classic tracepoint runs on a CPU, no other one runs there:
trace_call_bpf in kernel/trace/bpf_trace.c steps over it and, since Linux 6.7, counts
that in the program's recursion_misses. What was missed is lost as surely as a record
that found the buffer full.
"""

import ctypes
import os
import platform
import struct

_BPF = {"x86_64": 321, "aarch64": 280}
_GET_INFO_BY_FD = 15
_INFO_BYTES = 232
_RECURSION_MISSES = 208  # offset in struct bpf_prog_info, include/uapi/linux/bpf.h
# Made once: a dozen programs are asked twenty times a second.
_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBER = _BPF.get(platform.machine(), -1)
_ATTR = struct.Struct("<IIQ")  # bpf_attr.info: the program, the length of the buffer, its address


def missed(program_fd: int) -> int:
    """Return how often the program could not run; 0 on kernels that do not count it."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    attr = _ATTR.pack(program_fd, _INFO_BYTES, ctypes.addressof(info))
    if _LIBC.syscall(_NUMBER, _GET_INFO_BY_FD, attr, len(attr)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ctypes.c_uint64.from_buffer(info, _RECURSION_MISSES).value
