"""Whether guests can use KVM here, found by booting one.

That /dev/kvm can be opened proves nothing: where this machine is a guest itself, the
first instruction of a guest of its own may never return.
"""

import os
import sys
from pathlib import Path

from vm.errors import VmError
from vm.guest import Guest, run
from vm.kernels import Kernel, cache_directory

TRIAL_TIMEOUT_S = 30
# QEMU falls back to emulation by itself, which must not count.
TRIAL = [
    "grep",
    "-q",
    "kvm-clock",
    "/sys/devices/system/clocksource/clocksource0/available_clocksource",
]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def works(kernel: Kernel) -> bool:
    """Return whether a guest with this kernel boots with KVM.

    Asked anew each time this machine has booted; the answer is in the cache.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    memory = cache_directory() / "kvm"
    boot = _BOOT_ID.read_text().strip()
    known = memory.read_text().split() if memory.exists() else []
    if len(known) == 2 and known[0] == boot:
        return known[1] == "yes"
    print(f"vm: trying KVM, for {TRIAL_TIMEOUT_S} s at most", file=sys.stderr)
    answer = _try(kernel)
    memory.write_text(f"{boot} {'yes' if answer else 'no'}\n")
    print(
        f"vm: KVM works here: {'yes' if answer else 'no, so guests are emulated'}", file=sys.stderr
    )
    return answer


def _try(kernel: Kernel) -> bool:
    with open(os.devnull, "wb") as nowhere:
        try:
            return run(Guest(kernel, True, TRIAL_TIMEOUT_S), TRIAL, nowhere, nowhere) == 0
        except VmError:
            return False
