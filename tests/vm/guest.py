"""Boots one kernel, runs one command in it as root, and passes on what that prints.

virtme-ng builds the initramfs and the command line of QEMU; scripts/vm-guest does the
rest inside. The host's files are seen read-only under a layer in the guest's memory;
only the folder of results is shared both ways.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vm.errors import VmError
from vm.kernels import PATH, Kernel, cache_directory

CHECKOUT = Path(__file__).resolve().parent.parent.parent
VIRTME = CHECKOUT / ".venv" / "bin" / "virtme-run"
TIMED_OUT = 124
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
# What makes emulation bearable. Emulated CPUs read one clock, but the kernel doubts it and
# would take the far slower HPET. Code that lies at the same address in every process is
# translated only once. Linux 5.10 allocates, and would clear, the largest possible message
# for every read of a file of the host (p9_fcall_init in net/9p/client.c).
EMULATED = (
    "--disable-kvm",
    *("--kopt", "tsc=reliable"),
    *("--kopt", "norandmaps"),
    *("--kopt", "init_on_alloc=0"),
)
# What "timeout" ends with when the time was up: politely, or with SIGKILL.
_TIME_WAS_UP = (124, 128 + 9)


@dataclass(frozen=True)
class Guest:
    """How to boot.

    kernel: which; kvm: with the processor's help, else emulated; timeout_s: after how
    many seconds the guest is ended.
    """

    kernel: Kernel
    kvm: bool
    timeout_s: int


def results_directory(version: str) -> Path:
    """Return the folder, in host and guest alike, in which a guest can leave files."""
    return CHECKOUT / "build" / "vm" / version


def run(guest: Guest, command: Sequence[str], out: IO[bytes], err: IO[bytes]) -> int:
    """Run `command` at the root of the checkout in a fresh guest and return its exit status.

    What it prints goes to `out` and `err` as it comes. The status is TIMED_OUT when the
    time was up.

    Raises:
        VmError: the guest did not start, or ended before the command did; what its
            console said is then kept with the results.
    """
    results = results_directory(guest.kernel.version)
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache_directory()) as scratch:
        folder = Path(scratch)
        (folder / "command").write_text(command_script(guest, command))
        try:
            code = _boot(guest, folder, out, err)
        finally:
            _give_back(results)
        status = folder / "status"
        text = status.read_text().strip() if status.exists() else ""
        if text.isdigit():
            return int(text)
        if code in _TIME_WAS_UP:
            return TIMED_OUT
        console = shutil.copy(folder / "console.log", results)
        _give_back(results)
    raise VmError(
        f"the guest with kernel {guest.kernel.version} ended before its command did",
        f"{Path(console).relative_to(CHECKOUT)} holds what its console said",
    )


def _give_back(results: Path) -> None:
    # Under sudo, what is left in a checkout belongs to its owner.
    owner = CHECKOUT.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (results.parent, results, *results.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def command_script(guest: Guest, command: Sequence[str]) -> str:
    """Return the script for sh that runs `command` in the environment of every guest."""
    # In a file: the kernel's command line holds 2 KiB.
    variables = ENVIRONMENT | {
        name: value
        for name, value in os.environ.items()
        if name == "CI" or (name.startswith("PORTTRACE_") and not name.startswith("PORTTRACE_VM_"))
    }
    if not guest.kvm:
        variables["PORTTRACE_SLOW"] = "1"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*lines, f"exec {shlex.join(command)}", ""])


def _boot(guest: Guest, folder: Path, out: IO[bytes], err: IO[bytes]) -> int:
    # Whatever becomes of this process, the guest ends with it or when its time is up.
    limit = ["setpriv", "--pdeathsig", "TERM", "timeout", "--kill-after=10", str(guest.timeout_s)]
    # QEMU opens its outputs anew, which would cut a file short: it gets pipes. Its third
    # is the console of the guest, so that stderr needs one more.
    (out_end, out_into), (err_end, err_into) = os.pipe(), os.pipe()
    with open(folder / "console.log", "ab") as console:
        process = subprocess.Popen(
            [*limit, *_virtme(guest, folder, err_into)],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=out_into,
            stderr=console,
            pass_fds=(err_into,),
            env=os.environ | {"PATH": PATH},
        )
    pumps = [
        threading.Thread(target=_pump, args=each, daemon=True)
        for each in ((out_end, out), (err_end, err))
    ]
    for pump in pumps:
        pump.start()
    os.close(out_into)
    os.close(err_into)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()
        for pump in pumps:
            pump.join()


def _pump(source: int, sink: IO[bytes]) -> None:
    with open(source, "rb", buffering=0) as chunks:
        while chunk := chunks.read(65536):
            sink.write(chunk)
            sink.flush()


def _virtme(guest: Guest, folder: Path, stderr: int) -> list[str]:
    kernel = guest.kernel
    results = results_directory(kernel.version)
    inside = [CHECKOUT / "scripts" / "vm-guest", kernel.root, CHECKOUT, results, folder / "command"]
    return [
        *map(str, (VIRTME, "--kimg", kernel.image, "--mods", "auto")),
        *("--force-9p", "--cpus", "2", "--memory", "2G"),
        *([] if guest.kvm else EMULATED),
        *("--script-sh", shlex.join(map(str, inside))),
        *("--show-boot-console", "--kopt", "loglevel=4"),
        "--qemu-opts",
        *_share("porttrace.root", Path("/"), "readonly=on"),
        *_share("porttrace.results", results, "readonly=off"),
        *_port("porttrace.stdout", Path("/proc/self/fd/1")),
        *_port("porttrace.stderr", Path(f"/proc/self/fd/{stderr}")),
        *_port("porttrace.status", folder / "status"),
    ]


def _share(tag: str, folder: Path, access: str) -> list[str]:
    options = f"mount_tag={tag},security_model=none,multidevs=remap,{access}"
    return ["-virtfs", f"local,path={_escaped(folder)},{options}"]


def _port(name: str, path: Path) -> list[str]:
    return [
        *("-chardev", f"file,id={name},path={_escaped(path)}"),
        *("-device", f"virtserialport,name={name},chardev={name}"),
    ]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # in QEMU's options
