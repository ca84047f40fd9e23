"""What a kernel stack tells: the functions that hold a thread, without the scheduler's own."""

from collections import Counter
from collections.abc import Mapping

from porttrace.analysis.model import Attempts

_MOST = 3
# How a thread goes to sleep, whatever it sleeps for (kernel/sched: core, completion, swait).
_SLEEPING = ("__schedule", "schedule", "io_schedule", "preempt_schedule", "wait_for_completion",
             "__wait_for_common", "do_wait_for_common", "wait_for_common", "__traceiter_",
             "__bpf_", "bpf_", "perf_")  # fmt: skip


def telling(frames: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first functions of a stack (innermost first) that say what it waits for.

    A function of a module has its name behind it: `hold_connect [guard]`.
    """
    names = [_plain(frame) for frame in frames]
    # In front of the scheduler's own are those of this trace; a BPF program behind it may hold.
    asleep = names.index("__schedule") if "__schedule" in names else len(names)
    return tuple(
        name
        for number, name in enumerate(names)
        if not name.startswith(_SLEEPING) or (name.startswith("bpf_prog_") and number > asleep)
    )[:_MOST]


def _plain(frame: str) -> str:
    # without .isra.0, .constprop.0
    function, bracket, module = frame.partition(" [")
    return function.partition(".")[0] + bracket + module


def held_in(rows: Attempts, place: str, stacks: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the telling functions that most of the rows were held in at `gate` or `connect`.

    () where no stack was taken: at other places, or when the kernel could not store it.
    """
    if place not in ("gate", "connect"):
        return ()
    found = (telling(stacks.get(stack, ())) for stack in rows[f"{place}_stack"].tolist())
    counted = Counter(names for names in found if names)
    return counted.most_common(1)[0][0] if counted else ()
