"""The least that tracing can cost: state changes counted in the kernel, nothing sent.

Prints "ready" once it counts, and the count when it is interrupted.
"""

import os
import signal

from porttrace.tracer.layout import KERNEL_TREE

_PROGRAM = b"""
BPF_ARRAY(changes, u64, 1);
TRACEPOINT_PROBE(sock, inet_sock_set_state)
{
    int zero = 0;
    u64 *count = changes.lookup(&zero);
    if (count)
        __sync_fetch_and_add(count, 1);
    return 0;
}
"""


def main() -> None:
    """Count until SIGINT."""
    os.environ["BCC_KERNEL_SOURCE"] = str(KERNEL_TREE)
    from bcc import BPF  # noqa: TID251 - no part of porttrace is measured here

    signal.signal(signal.SIGINT, signal.default_int_handler)
    bpf = BPF(text=_PROGRAM)
    try:
        print("ready", flush=True)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print(bpf["changes"][0].value, flush=True)


if __name__ == "__main__":
    main()
