"""What this host has for live tracing, each found by trying rather than by a version.

Every path starts at `root`, "/" except in tests, which hide things there. Nothing
is imported or attached here: bcc is looked for, not loaded. `require` turns the
first thing that is missing into an error that says how to mend it.
"""

import ctypes
import errno
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path

from porttrace.tracer import clock, namespaces
from porttrace.tracer.capabilities import names
from porttrace.tracer.errors import NotPermittedError, UnsupportedError
from porttrace.tracer.offsets import netns_flags, sock_flags

ROOT = Path("/")

# Without these there is no tracing at all; what the others cost is in checks.py.
CONNECT_CALLS = ("syscalls:sys_enter_connect", "syscalls:sys_exit_connect")
STATE_CHANGES = "sock:inet_sock_set_state"

_TRACEFS = ("sys/kernel/tracing", "sys/kernel/debug/tracing")
_STILL = "recordings of other hosts can be read here: 'porttrace report FILE'"
_INSTALL_BCC = "sudo apt install python3-bpfcc"
_SEE_BCC = (
    "a virtual environment sees it only when it was made by "
    "'/usr/bin/python3 -m venv --system-site-packages'"
)


# -- permission ------------------------------------------------------------------


def effective_capabilities(root: Path = ROOT) -> frozenset[str]:
    """Return the names of those capabilities of this process that porttrace can use."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", _read(root / "proc/self/status"), re.M)
    bits = int(match[1], 16) if match else 0
    return names(bits)


def missing_capabilities(root: Path = ROOT) -> tuple[str, ...]:
    """Return what live tracing lacks: () when it is permitted.

    CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON, which Linux 5.8 split from
    it. tracefs is root's, so anyone else also has to read past its file modes.
    """
    held = effective_capabilities(root)
    needed = () if "CAP_SYS_ADMIN" in held else ("CAP_BPF", "CAP_PERFMON")
    if os.geteuid() != 0:
        needed = (*needed, "CAP_DAC_READ_SEARCH")
    return tuple(name for name in needed if name not in held)


def lockdown(root: Path = ROOT) -> str:
    """Return the kernel's lockdown mode: none, integrity or confidentiality."""
    match = re.search(r"\[(\w+)\]", _read(root / "sys/kernel/security/lockdown"))
    return match[1] if match else "none"


def container(root: Path = ROOT) -> str:
    """Return the kind of container this process seems to run in, "" for none."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    return _read(root / "run/systemd/container").strip()


def sudo_line(argv: Sequence[str] | None = None) -> str:
    """Return the command that runs this very program again as root.

    sudo searches its own PATH, which leaves out virtual environments, so the
    program is named by its path.
    """
    words = list(sys.argv if argv is None else argv)
    if words[0].endswith(".py"):
        words.insert(0, sys.executable)
    return shlex.join(["sudo", *words])


# -- the kernel --------------------------------------------------------------------


def find_tracefs(root: Path = ROOT) -> Path | None:
    """Return where tracefs can be read, None when it is not mounted or not ours to read."""
    for place in _TRACEFS:
        # os.path, since Path.is_dir raises where a parent may not be searched
        if os.path.isdir(root / place / "events"):
            return root / place
    return None


def mount_tracefs(root: Path = ROOT) -> Path:
    """Return where tracefs is, mounted first where it was not.

    Raises UnsupportedError with the command that mounts it by hand.
    """
    found = find_tracefs(root)
    if found is not None:
        return found
    place = root / _TRACEFS[0]
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.mount(b"nodev", os.fsencode(place), b"tracefs", 0, None)
    reason = os.strerror(ctypes.get_errno()) if failed else "it shows no events"
    found = find_tracefs(root)
    if found is None:
        raise UnsupportedError(
            f"the kernel's tracepoints are out of reach: cannot mount tracefs on {place}: {reason}",
            f"sudo mount -t tracefs nodev {shlex.quote(str(place))}",
        )
    return found


def has_tracepoint(name: str, root: Path = ROOT) -> bool:
    """Whether the tracepoint `category:name` is there and may be read."""
    return bool(tracepoint_format(name, root))


def has_field(name: str, field: str, root: Path = ROOT) -> bool:
    """Whether the record of the tracepoint `category:name` has that field."""
    pattern = rf"^\tfield:[^;]*\b{field}(\[\w*\])?;"
    return re.search(pattern, tracepoint_format(name, root), re.M) is not None


def compile_flags(root: Path = ROOT) -> tuple[str, ...]:
    """Return the -D flags of bpf/porttrace.bpf.c for what only some kernels have."""
    flags = []
    if has_field("sched:sched_process_exit", "group_dead", root):
        flags.append("-DHAVE_GROUP_DEAD")
    if has_tracepoint("sock:inet_sk_error_report", root):
        flags.append("-DHAVE_ERROR_REPORT")
    if has_field("skb:kfree_skb", "reason", root):
        flags.append("-DHAVE_DROP_REASON")
    vmlinux = root / "sys/kernel/btf/vmlinux"
    return (*flags, *netns_flags(vmlinux), *sock_flags(vmlinux))


def has_btf(root: Path = ROOT) -> bool:
    """Whether the kernel describes its own types."""
    return os.access(root / "sys/kernel/btf/vmlinux", os.R_OK)


def shows_symbols(root: Path = ROOT) -> bool:
    """Whether /proc/kallsyms shows us addresses; kernel.kptr_restrict hides them as zeros."""
    try:
        with (root / "proc/kallsyms").open() as symbols:
            # per-CPU symbols come first on x86 and may really stand at 0
            return any(int(line.split()[0], 16) for line in islice(symbols, 64))
    except (OSError, ValueError, IndexError):
        return False


def load_trial() -> int:
    """Load the shortest BPF program there is; return 0, or the errno of bpf(2).

    Capabilities do not tell: in a user namespace, behind a container's seccomp
    profile or under a security module they are shown and the call still fails.
    """
    number = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
    if number is None:
        return errno.ENOSYS
    # r0 = 0; exit (struct bpf_insn of <linux/bpf.h>)
    program = ctypes.create_string_buffer(b"\xb7\0\0\0\0\0\0\0\x95\0\0\0\0\0\0\0", 16)
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = _LoadAttributes(
        prog_type=_BPF_PROG_TYPE_TRACEPOINT,
        insn_cnt=2,
        insns=ctypes.addressof(program),
        license=ctypes.addressof(licence),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(number, _BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


_BPF_PROG_LOAD = 5
_BPF_PROG_TYPE_TRACEPOINT = 5


class _LoadAttributes(ctypes.Structure):
    # union bpf_attr of <linux/bpf.h>, as far as BPF_PROG_LOAD needs it
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 24),
    )


# -- bcc ---------------------------------------------------------------------------


def find_bcc(path: Sequence[str] | None = None) -> Path:
    """Return the folder of the BPF Compiler Collection's Python package, not importing it.

    `path` is searched as sys.path is, which is the default.
    Raises UnsupportedError when there is none, or another project of that name.
    """
    spec = PathFinder.find_spec("bcc", None if path is None else list(path))
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    for place in places:
        if all((place / name).is_file() for name in ("libbcc.py", "table.py")):
            return place
    if spec is not None:
        where = places[0] if places else spec.origin
        raise UnsupportedError(
            f"the bcc found at {where} is not the BPF Compiler Collection but a "
            "project of the same name",
            f"{shlex.quote(sys.executable)} -m pip uninstall bcc, then {_INSTALL_BCC}",
        )
    raise UnsupportedError(
        "Python finds no bcc, the BPF Compiler Collection", f"{_INSTALL_BCC}; {_SEE_BCC}"
    )


def bcc_version(place: Path) -> str:
    """Return the version of the bcc in that folder, as it says of itself; "" when it does not."""
    match = re.search(r"__version__ = '([^']+)'", _read(place / "version.py"))
    return match[1] if match else ""


# -- all together ------------------------------------------------------------------


def require(root: Path = ROOT) -> None:
    """Return when live tracing can work; mounts tracefs where nobody has yet.

    Raises UnsupportedError or NotPermittedError for the first thing in the way.
    """
    find_bcc()
    namespaces.require_host_pids(root)
    clock.require_host_clock(root)
    _require_permission(root)
    if lockdown(root) == "confidentiality":
        raise UnsupportedError(
            "the kernel is locked down to 'confidentiality', which forbids tracing",
            "boot without lockdown=confidentiality (Secure Boot alone needs only 'integrity'); "
            + _STILL,
        )
    mount_tracefs(root)
    if not all(has_tracepoint(name, root) for name in CONNECT_CALLS):
        raise UnsupportedError(
            "the kernel has no tracepoints for system calls",
            "run a kernel built with CONFIG_FTRACE_SYSCALLS, as distributions' kernels are; "
            + _STILL,
        )
    if not has_tracepoint(STATE_CHANGES, root):
        raise UnsupportedError(
            f"the kernel has no tracepoint {STATE_CHANGES}", f"run Linux 4.16 or newer; {_STILL}"
        )


def _require_permission(root: Path) -> None:
    missing = missing_capabilities(root)
    if missing:
        lacks = " and ".join(missing)
        raise NotPermittedError(
            f"this user may not trace the kernel: {lacks} missing", permission_hint(root)
        )
    # Only of this host can it be tried.
    refused = load_trial() if root == ROOT else 0
    if refused in (errno.EPERM, errno.EACCES):
        raise NotPermittedError(
            "bpf(2) is refused although the capabilities for it are there: by a user "
            "namespace, a seccomp profile or a security module",
            permission_hint(root),
        )
    if refused:
        raise UnsupportedError(
            f"the kernel cannot load a BPF program: {os.strerror(refused)}",
            "run a kernel built with CONFIG_BPF_SYSCALL",
        )


def permission_hint(root: Path = ROOT) -> str:
    """Return the command that gives what `require` found missing."""
    missing = ", ".join(missing_capabilities(root))
    if os.geteuid() != 0:
        return f"{sudo_line()}   (gives {missing})" if missing else sudo_line()
    if container(root):
        return "run it on the host, or start the container with --privileged --pid=host"
    return "run it as root of the host, outside of user namespaces and sandboxes"


def tracepoint_format(name: str, root: Path = ROOT) -> str:
    """Return how the kernel describes the record of `category:name`, "" where it has none."""
    tracefs = find_tracefs(root)
    return _read(tracefs / "events" / name.replace(":", "/") / "format") if tracefs else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
