"""The stories of the lab: a throttle or none, a workload, and the rule that must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from porttrace.lab import surroundings
from porttrace.lab.bad_peers import FULL_PORT, RESTARTING_PORT
from porttrace.lab.hosts import SERVER_V4
from porttrace.lab.servers import DATABASE_PORT, DIRECTORY_PORT
from porttrace.lab.site import DEAD, LIVE
from porttrace.lab.story import Scenario, Settings


def _website(settings: Settings, *extra: str) -> list[str]:
    return [
        "porttrace.lab.workloads.website",
        *("--monitor", DEAD, "--directory", f"{SERVER_V4}:{DIRECTORY_PORT}"),
        *("--database", f"{SERVER_V4}:{DATABASE_PORT}", "--http", LIVE),
        *("--dead-time", str(settings.dead_time_s or 6.0), "--pause", str(settings.pause_s)),
        *("--pages", str(settings.pages), "--page-interval", str(settings.page_interval_s)),
        *extra,
    ]


# One stretch of denials may be chance: whoever denies shows it again and again.
def _restless_website(settings: Settings) -> list[str]:
    pages = max(settings.pages, 24)
    return _website(replace(settings, dead_time_s=settings.dead_time_s or 1.5, pages=pages))


# Visitors come faster than the rate lets logins go: that alone makes a line.
def _crowded_website(settings: Settings) -> list[str]:
    return _website(replace(settings, page_interval_s=settings.page_interval_s / 5))


def _two_threads(settings: Settings) -> list[str]:
    blocking = ["--blocking"] if settings.blocking else []
    return ["porttrace.lab.workloads.two_threads", *_ends(settings, 6.0), *blocking]


def _storm(settings: Settings) -> list[str]:
    return [
        *("porttrace.lab.workloads.storm", *_ends(settings, 0.3), *_amount(settings, 8, 10)),
        *("--dead-share", str(settings.dead_share), "--seed", str(settings.seed)),
        *("--pause", str(settings.pause_between_s or 0.05), "--spread", str(settings.spread_s)),
        *("--processes", str(settings.processes), "--users", str(settings.users)),
        *("--cgroups", str(settings.cgroups)),
        *("--nonblocking-per-thread", str(settings.overlapping)),
        *(["--blocking"] if settings.blocking else []),
        *("--dead-processes", str(settings.dead_processes or settings.processes)),
    ]


# Who is denied comes back at once: without longer pauses all attempts are used up in one stretch.
def _denied_storm(settings: Settings) -> list[str]:
    return _storm(replace(settings, pause_between_s=settings.pause_between_s or 0.5))


def _port_sharing(mode: str) -> Callable[[Settings], list[str]]:
    return lambda settings: ["porttrace.lab.workloads.port_sharing", mode]


def _control(mode: str, threads: int, connects: int) -> Callable[[Settings], list[str]]:
    def workload(settings: Settings) -> list[str]:
        amount = _amount(settings, threads, connects)
        return ["porttrace.lab.workloads.controls", mode, *_ends(settings, 2.0), *amount]

    return workload


def _habit(
    mode: str, threads: int, connects: int, live: str = LIVE
) -> Callable[[Settings], list[str]]:
    def workload(settings: Settings) -> list[str]:
        return [
            *("porttrace.lab.workloads.habits", mode, *_ends(settings, 2.0, live)),
            *(*_amount(settings, threads, connects), "--seed", str(settings.seed)),
            *("--pause", str(settings.pause_between_s or 0.1)),
        ]

    return workload


def _ends(settings: Settings, dead_time_s: float, live: str = LIVE) -> list[str]:
    dead_time_s = settings.dead_time_s or dead_time_s
    return ["--dead", DEAD, "--live", live, "--dead-time", str(dead_time_s)]


def _amount(settings: Settings, threads: int, connects: int) -> list[str]:
    return [
        *("--threads", str(settings.threads or threads)),
        *("--connects", str(settings.connects or connects)),
    ]


# Slowly enough for samples, taken once a second, to see the ports go.
def _spending(settings: Settings) -> list[str]:
    patient = replace(settings, pause_between_s=settings.pause_between_s or 0.3)
    elsewhere = ["--elsewhere", f"{SERVER_V4}:{DIRECTORY_PORT}"]
    return [*_habit("spend", 1, 44)(patient), *elsewhere]


STORIES = (
    Scenario(
        "serialized-logins",
        "a web site whose logins hang while its agent tries a dead monitor: one slot per process",
        "gate",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "two-threads",
        "the smallest case: one dead attempt, and a healthy one that waits for it",
        "gate",
        _two_threads,
        "serialized-connects",
    ),
    Scenario(
        "preloaded-logins",
        "the same web site, held in user space by a preloaded library",
        "preload",
        lambda settings: _website(settings, "--blocking"),
        "serialized-connects",
    ),
    Scenario(
        "storm",
        "many threads under a throttle of any number of slots, to infer slots and scope",
        "gate",
        _storm,
        "serialized-connects",
    ),
    Scenario(
        "egress-held-logins",
        "the same web site; the client's packet filter holds its SYNs (NFQUEUE)",
        "egress-hold",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "egress-dropped-logins",
        "the same web site; the client's packet filter drops SYNs while a slot is taken",
        "egress-drop",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "gateway-held-logins",
        "the same web site; a router on the way holds its SYNs",
        "gateway",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "gateway-dropped-logins",
        "the same web site; a router on the way drops SYNs while a slot is taken",
        "gateway-drop",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "ingress-held-logins",
        "the same web site; the answers wait in the client's packet filter on their way in",
        "ingress-hold",
        _website,
        "serialized-connects",
    ),
    Scenario(
        "denied-logins",
        "the same web site; the client's packet filter rejects SYNs while a slot is taken",
        "deny",
        _restless_website,
        "limited-connects",
    ),
    Scenario(
        "hook-denied-storm",
        "many threads; a cgroup's connect hook denies with EPERM while a slot is taken",
        "deny-cgroup",
        _denied_storm,
        "limited-connects",
    ),
    Scenario(
        "paced-logins",
        "a crowded web site; the client's packet filter lets SYNs go at a fixed pace",
        "rate-hold",
        _crowded_website,
        "paced-connects",
    ),
    Scenario(
        "rated-logins",
        "a crowded web site; the client's packet filter drops SYNs beyond a rate",
        "rate",
        _crowded_website,
        "paced-connects",
        rate_per_s=1.0,
    ),
    Scenario(
        "free-logins",
        "control: the same web site without any throttle",
        None,
        _website,
        "dead-destination",
    ),
    Scenario(
        "sequential",
        "control: one thread connects to several destinations in turn, one of them dead",
        None,
        _control("sequential", 1, 3),
        "sequential-connects",
    ),
    Scenario(
        "lock",
        "control: several threads, and the program's own lock around connect",
        None,
        _control("lock", 4, 3),
        None,
    ),
    Scenario(
        "burst",
        "control: many threads connect at once, and nothing holds them",
        None,
        _control("burst", 50, 10),
        None,
    ),
    Scenario(
        "slow-server",
        "control: many threads connect to a server that answers late",
        None,
        _control("slow-server", 8, 3),
        None,
        server_delay_s=0.5,
    ),
    Scenario(
        "dead-parallel",
        "control: dead destinations beside healthy ones, and nothing is held",
        None,
        _control("dead-parallel", 6, 3),
        "dead-destination",
    ),
    Scenario(
        "watched-burst",
        "control: a seccomp supervisor stands in the way of every connect and holds none",
        "gate",
        _control("burst", 50, 10),
        None,
        watch_only=True,
    ),
    Scenario(
        "watched-egress",
        "control: a program behind the packet filter sees every SYN and lets it go at once",
        "egress-hold",
        _habit("steady", 8, 10),
        None,
        watch_only=True,
    ),
    Scenario(
        "dead-together",
        "control: parallel attempts to one dead host",
        None,
        _habit("dead-together", 6, 4),
        "dead-destination",
    ),
    Scenario(
        "pool-of-one",
        "control: a thread pool of size one, and a dead host among its destinations",
        None,
        _habit("pool", 4, 3),
        None,
    ),
    Scenario(
        "asyncio-semaphore",
        "control: coroutines that connect one at a time under a semaphore, one of them in vain",
        None,
        _habit("asyncio", 4, 3),
        None,
    ),
    Scenario(
        "slow-names",
        "control: the name server answers late, and each thread waits for it before it connects",
        None,
        _habit("resolve", 6, 4),
        None,
        surroundings=surroundings.late_names,
    ),
    Scenario(
        "slow-names-lock",
        "control: late names, looked up one at a time under the program's own lock",
        None,
        _habit("resolve-lock", 4, 3),
        None,
        surroundings=surroundings.late_names,
    ),
    Scenario(
        "full-accept-queue",
        "control: the server accepts too late, and SYNs to it are dropped meanwhile",
        None,
        _habit("steady", 6, 3, f"{SERVER_V4}:{FULL_PORT}"),
        None,
        surroundings=surroundings.full_queue,
    ),
    Scenario(
        "slow-accept",
        "a server with an accept queue of three takes connections too late, and it overflows",
        None,
        _habit("steady", 6, 6, f"{SERVER_V4}:{FULL_PORT}"),
        "accept-queue",
        surroundings=surroundings.short_queue,
    ),
    Scenario(
        "exhausted-ports",
        "a host with 40 local ports closes each connection at once: soon there is no port left",
        None,
        _spending,
        "ephemeral-exhaustion",
        surroundings=surroundings.few_ports,
    ),
    Scenario(
        "full-tracking",
        "the client's packet filter tracks connections, and its table has no room for new ones",
        None,
        _habit("steady", 4, 3),
        "conntrack-pressure",
        surroundings=surroundings.full_tracking,
    ),
    Scenario(
        "server-restarts",
        "control: the server goes away for a second again and again, and refuses meanwhile",
        None,
        _habit("steady", 6, 20, f"{SERVER_V4}:{RESTARTING_PORT}"),
        None,
        surroundings=surroundings.restarts,
    ),
    Scenario(
        "client-restarts",
        "control: the program is killed in the middle of its attempts, and started again",
        None,
        _habit("restart", 6, 15),
        None,
    ),
    Scenario(
        "cpu-starved",
        "control: the program shares one core with busy loops, and has a dead host besides",
        None,
        _habit("starved", 8, 10),
        None,
    ),
    Scenario(
        "under-strace",
        "control: strace stops the program at each system call, and holds none",
        None,
        _habit("steady", 8, 10),
        None,
        surroundings=surroundings.strace,
    ),
    Scenario(
        "chance-loss",
        "control: a quarter of the SYNs is lost by chance on the way",
        None,
        _habit("steady", 8, 8),
        None,
        surroundings=surroundings.loss,
    ),
    Scenario(
        "port-takeover",
        "another user's program binds a UDP port that is in use, and gets every datagram",
        None,
        _port_sharing("takeover"),
        "port-shared",
    ),
    Scenario(
        "port-workers",
        "two workers of one program listen on one port, as they are meant to",
        None,
        _port_sharing("workers"),
        "port-shared",
    ),
    Scenario(
        "listen-race",
        "another user's program listens on a port between bind and listen of a server",
        None,
        _port_sharing("listen-race"),
        "bind-conflict",
    ),
)
