"""--container, --netns, and a pid that is one of a container's: what is said to whoever slips."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from porttrace.cli import running
from porttrace.cli.options import MAX_CGROUPS, filters, trace_options
from porttrace.tracer import processes, targets
from porttrace.tracer.errors import TargetError
from porttrace.tracer.facts import Process
from porttrace.tracer.options import TraceOptions
from porttrace.tracer.targets import Targets

BY_CGROUP = Targets(cgroups=("/cg/web",), cgroups_called="container web")
BY_PID = Targets(
    frozenset((11, 12)), pids_called="container web (2 processes and children)", notes=("A note.",)
)
IN_NETNS = Targets(
    frozenset((12, 13)),
    pids_called="netns blue (2 processes and children)",
    netns=frozenset((5,)),
    notes=("Another.",),
)


@click.command()
@filters
@click.option("--command-pid", type=int, default=0, help="As if it had been started.")
def shown(**chosen: object) -> None:
    """Print what the filters come to."""
    options = trace_options(**chosen)  # type: ignore[arg-type]
    click.echo(options.describe())
    click.echo(f"{sorted(options.pids)} {options.cgroups} {options.follow_children}")
    click.echo(f"{sorted(options.netns)} {options.notes} {options.targeted}")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Targets]:
    """What stands for containers and network namespaces; a test may change it."""
    there = {"container": BY_CGROUP, "netns": IN_NETNS}
    monkeypatch.setattr(targets, "in_containers", lambda words: there["container"])
    monkeypatch.setattr(targets, "in_netns", lambda words: there["netns"])
    return there


def lines(*arguments: str) -> list[str]:
    result = CliRunner().invoke(shown, arguments)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


@pytest.mark.usefixtures("found")
def test_a_container_is_its_control_group() -> None:
    assert lines("--container", "web", "-P", "80") == [
        "remote port 80, container web",
        "[] ('/cg/web',) False",
        "[] () True",
    ]


def test_or_its_processes_and_their_children(found: dict[str, Targets]) -> None:
    found["container"] = BY_PID
    assert lines("--container", "web") == [
        "container web (2 processes and children)",
        "[11, 12] () True",
        "[] ('A note.',) True",
    ]
    assert lines("--container", "web", "--no-children")[1] == "[11, 12] () False"


@pytest.mark.usefixtures("found")
def test_a_network_namespace_is_its_processes() -> None:
    assert lines("--netns", "blue") == [
        "netns blue (2 processes and children)",
        "[12, 13] () True",
        "[5] ('Another.',) True",
    ]


def test_all_of_them_must_hold(found: dict[str, Targets]) -> None:
    assert lines("--container", "web", "--netns", "blue", "-p", "13") == [
        "pid 13, netns blue (2 processes and children), container web",
        "[13] ('/cg/web',) False",
        "[] ('Another.',) True",
    ]
    found["container"] = BY_PID
    assert lines("--container", "web", "--netns", "blue")[1] == "[12] () True"
    result = CliRunner().invoke(shown, ["--container", "web", "--netns", "blue", "-p", "11"])
    assert isinstance(result.exception, TargetError)


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--container", "web", "--cgroup", "/cg"], "use one of them"),
        (["--container", "web", "--command-pid", "9"], "leave them out to trace a command"),
        (["--netns", "blue", "--command-pid", "9"], "leave them out to trace a command"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(shown, arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_more_control_groups_than_the_kernel_program_has_places(found: dict[str, Targets]) -> None:
    found["container"] = Targets(cgroups=tuple(f"/{i}" for i in range(MAX_CGROUPS + 1)))
    result = CliRunner().invoke(shown, ["--container", "web"])
    assert result.exit_code == 2
    assert "at most 16 containers" in result.output


def test_that_many_places_it_has() -> None:
    maps = Path(__file__).parents[2] / "bpf" / "maps.h"
    assert f"BPF_CGROUP_ARRAY(wanted_cgroups, {MAX_CGROUPS});" in maps.read_text()


# -- when a trace is over


def test_a_trace_of_a_container_is_over_when_its_control_group_is_gone(tmp_path: Path) -> None:
    options = TraceOptions(cgroups=(str(tmp_path / "a"),), cgroups_called="container web")
    assert running.over(options, None)
    (tmp_path / "a").mkdir()
    assert not running.over(options, None)
    assert not running.over(TraceOptions(cgroups=(str(tmp_path / "b"),)), None)


# -- a pid of a container


NOBODY = 2**22 + 1


@pytest.mark.parametrize(
    ("inside", "process", "hint"),
    [
        (
            [4321],
            Process(4321, comm="we\x1bb", container="0a" * 6, container_name="shop\n", ns_pid=7),
            f"{NOBODY} is what we\\x1bb in container shop\\x0a is called there; "
            "here it is --pid 4321",
        ),
        (
            [4321],
            Process(4321, comm="web", container="0a" * 6),
            f"{NOBODY} is what web in container 0a0a0a0a0a0a is called there; "
            "here it is --pid 4321",
        ),
        (
            [4321],
            Process(4321, comm="web", container_name="x.service"),
            f"{NOBODY} is what web in a pid namespace of its own is called there; "
            "here it is --pid 4321",
        ),
        ([], Process(0), "'ps -e' or 'pgrep NAME' shows the processes that are there"),
        ([1, 2], Process(0), "'ps -e' or 'pgrep NAME' shows the processes that are there"),
    ],
)
def test_who_was_meant_is_said_but_not_guessed(
    monkeypatch: pytest.MonkeyPatch, inside: list[int], process: Process, hint: str
) -> None:
    monkeypatch.setattr(processes, "called_inside", lambda pid: inside)
    monkeypatch.setattr(processes, "read_process", lambda pid, name_of: process)
    with pytest.raises(TargetError, match="there is no process") as caught:
        running.check_targets([os.getpid(), NOBODY])
    assert caught.value.hint == hint
