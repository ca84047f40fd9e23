"""When Linux sends a SYN again, and when it gives up: the ladder that the sysctls in force make.

With `tcp_syn_linear_timeouts` = 0 (and before that sysctl, up to Linux 6.4) the timer doubles from
1 s: 1, 3, 7, 15, 31, 63, and gives up at 127 s. With 4 it fires once a second at first: 1, 2, 3,
4, 5, 7, 11, 19, 35, 67, and gives up at 131 s.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

_FIRST_S = 1.0  # TCP_TIMEOUT_INIT
_LONGEST_S = 120.0  # TCP_RTO_MAX
_MOST_RETRIES = 127  # MAX_TCP_SYNCNT


@dataclass(frozen=True)
class Ladder:
    """Seconds after the first SYN at which it is sent again, and at which connect fails."""

    retries: int
    rungs_s: tuple[float, ...]
    give_up_s: float


@functools.lru_cache
def ladder(retries: int, linear: int) -> Ladder:
    """Return the ladder for `tcp_syn_retries` (or TCP_SYNCNT) and `tcp_syn_linear_timeouts`.

    The kernel gives up at the first timer by which it has sent `retries + linear` SYNs again, or
    by which 2^(retries + 1) - 1 s have passed (tcp_write_timeout, retransmits_timed_out).
    """
    retries = min(max(retries, 1), _MOST_RETRIES)
    patience_s = _patience_s(retries)
    rungs: list[float] = []
    now_s = step_s = _FIRST_S
    while len(rungs) < retries + linear and not (rungs and now_s >= patience_s):
        rungs.append(now_s)
        # tcp_retransmit_timer doubles only once it has fired more often than `linear`.
        if len(rungs) > linear:
            step_s = min(2 * step_s, _LONGEST_S)
        now_s += step_s
    return Ladder(retries, tuple(rungs), now_s)


# tcp_model_timeout: doubling up to the longest timer, from there on in steps of it.
def _patience_s(retries: int) -> float:
    doublings = min(retries, 6)
    return (2.0 ** (doublings + 1) - 1) * _FIRST_S + (retries - doublings) * _LONGEST_S


def of_host(sysctls: Mapping[str, int]) -> Ladder:
    """Return the ladder of a host's own sysctls; kernels without the linear one have it at 0."""
    return ladder(_sysctl(sysctls, "tcp_syn_retries", 6), linear_of(sysctls))


def linear_of(sysctls: Mapping[str, int]) -> int:
    """Return `tcp_syn_linear_timeouts` of a host, 0 where there is none."""
    return _sysctl(sysctls, "tcp_syn_linear_timeouts", 0)


def _sysctl(sysctls: Mapping[str, int], name: str, default: int) -> int:
    return sysctls.get(name, sysctls.get(f"net.ipv4.{name}", default))


def given_up(waited_s: float, sysctls: Mapping[str, int]) -> Ladder | None:
    """Return the ladder whose give-up time is `waited_s`, the host's own first, or None."""
    own, linear = of_host(sysctls), linear_of(sysctls)
    others = (ladder(n, linear) for n in range(1, 16) if n != own.retries)
    for candidate in (own, *others):
        if is_near(waited_s, candidate.give_up_s):
            return candidate
    return None


def is_near(waited_s: float, due_s: float) -> bool:
    """Tell whether a wait fits a timer: never early, late by what timer wheels round up.

    Each timer is rounded up by the timer wheel: on Linux 6.18 the default ladder, due at 131 s,
    ended at 133.4 s, the one of TCP_SYNCNT = 3, due at 19 s, at 19.5 s.
    """
    return due_s - 0.1 <= waited_s <= due_s * 1.04 + 0.1
