"""Where the C programs stand, in a checkout and in an installed package alike.

A plain path: importlib.resources cannot open a package whose folder is mapped
elsewhere by an editable install.
"""

from pathlib import Path

BPF_DIR = Path(__file__).resolve().parent.parent / "bpf"
EVENT_H = BPF_DIR / "event.h"
ROOF = BPF_DIR / "porttrace.bpf.c"
KERNEL_TREE = BPF_DIR / "kernel"
