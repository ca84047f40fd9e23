"""A census as text: by place, in the order of a connect, in 80 columns, nothing raw."""

from porttrace.analysis.model import NotLooked, Process, Suspect
from porttrace.analysis.render.suspects import census_text

HOSTILE = "\x1b[2J\n  gate:\udcff"
WEB = Process(7, comm="web", user="www", cgroup="/system.slice/web.service", netns=40)


def test_nothing_found() -> None:
    assert census_text(WEB, (), ()).splitlines() == [
        "web (pid 7), user www, cgroup /system.slice/web.service, netns 40",
        "  Nothing was found that interposes on its connects.",
    ]


def test_places_in_the_order_of_a_connect() -> None:
    facts = (
        Suspect("nfqueue", "egress", "guard reads a queue", "/proc/a"),
        Suspect("lsm", "connect", "a profile", "/proc/b"),
        Suspect("module", "connect", "a module", "/proc/c"),
        Suspect("preload", "user", "a library", "/proc/d"),
    )
    assert census_text(WEB, facts, (NotLooked("BPF", "refused"),)).splitlines()[1:] == [
        "  user (before the call):",
        "    - a library [/proc/d]",
        "  connect (inside the kernel's connect, before the SYN):",
        "    - a module [/proc/c]",
        "    - a profile [/proc/b]",
        "  egress (the SYN on its way out):",
        "    - guard reads a queue [/proc/a]",
        "  Not looked at on this host:",
        "    - BPF: refused",
    ]


def test_nothing_raw_and_nothing_wide() -> None:
    hostile = Process(7, comm=HOSTILE, user=HOSTILE, cgroup="/" + HOSTILE)
    facts = (Suspect("ptrace", "gate", f"{HOSTILE} traces " * 9, f"/proc/{HOSTILE}"),)
    lines = census_text(hostile, facts, (NotLooked(HOSTILE, HOSTILE),)).split("\n")
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith("  gate") for line in lines) == 1
