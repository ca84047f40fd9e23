"""Options are read as they are meant, and a slip is answered with a sentence."""

import os
import pwd
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from porttrace.cli import main
from porttrace.cli.options import Duration, Ports, User, filters, trace_options
from porttrace.tracer.options import AF_INET, AF_INET6, TraceOptions

NONE: dict[str, Any] = {
    "pids": (),
    "children": None,
    "comms": (),
    "uids": (),
    "remote_ports": None,
    "local_ports": None,
    "ipv4": False,
    "ipv6": False,
    "cgroups": (),
    "mode": None,
}


def read(kind: Duration | Ports | User, text: str) -> object:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("1.5m", 90), ("500ms", 0.5), ("2h", 7200), ("1min", 60), ("5 s", 5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert read(Duration(), text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "0.0s", "-1", "1e3", "5d", "s", "1.s", ".5", "1,5", "1s2"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no length of time; write 30, 30s"):
        read(Duration(), text)


@pytest.mark.parametrize(
    ("text", "ports"),
    [("80", {80}), ("80,443", {80, 443}), ("80,80", {80}), ("1,65535", {1, 65535})],
)
def test_ports(text: str, ports: set[int]) -> None:
    assert read(Ports(), text) == ports


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "http", "80,", ",80", "-80", "80 443", "²", "8.0"]
)
def test_no_ports(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 80 or 80,443"):
        read(Ports(), text)


def test_users() -> None:
    assert read(User(), "0") == read(User(), "root") == 0
    assert read(User(), "12345") == 12345
    own = pwd.getpwuid(os.getuid()).pw_name
    assert read(User(), own) == os.getuid()


@pytest.mark.parametrize("text", ["nobody-of-that-name", "-1", "²", "", "4294967295", "9" * 5000])
def test_no_users(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no user"):
        read(User(), text)


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    for kind in (Duration(), Ports(), User()):
        try:
            read(kind, text)
        except click.BadParameter as error:
            assert error.message


@click.command()
@filters
def shown(**chosen: Any) -> None:
    """Print what the filters come to."""
    click.echo(repr(trace_options(**chosen).describe()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ""),
        ("-p 1 --pid 2", "pid 1,2"),
        ("-p 1 --children", "pid 1 and children"),
        ("--comm a --comm b -u 0", "comm a,b, uid 0"),
        ("-P 80,443 -L 5000", "remote port 80,443, local port 5000"),
        ("-4", "IPv4"),
        ("-6", "IPv6"),
        ("--cgroup /a --cgroup /b", "cgroup /a,/b"),
    ],
)
def test_filters(arguments: str, words: str) -> None:
    result = CliRunner().invoke(shown, arguments.split())
    assert (result.output, result.exit_code) == (f"{words!r}\n", 0)


def test_filters_become_options() -> None:
    options = trace_options(
        **{
            **NONE,
            "pids": (3, 4),
            "remote_ports": frozenset((80,)),
            "ipv6": True,
            "cgroups": ("/a",),
        }
    )
    assert options == TraceOptions(
        pids=frozenset((3, 4)), remote_ports=frozenset((80,)), family=AF_INET6, cgroups=("/a",)
    )
    assert trace_options(**{**NONE, "ipv4": True}).family == AF_INET


@pytest.mark.parametrize(("children", "followed"), [(None, True), (True, True), (False, False)])
def test_a_command_is_followed_with_its_children(children: bool | None, followed: bool) -> None:
    options = trace_options(**{**NONE, "children": children}, command_pid=9)
    assert (options.pids, options.follow_children) == (frozenset((9,)), followed)


def test_a_process_is_traced_without_its_children() -> None:
    assert not trace_options(**{**NONE, "pids": (9,)}).follow_children


def test_both_families_at_once_is_wrong_usage() -> None:
    with pytest.raises(click.UsageError, match="exclude each other"):
        trace_options(**{**NONE, "ipv4": True, "ipv6": True})


@pytest.mark.parametrize("words", [["--comm", ""], ["--comm", "a" * 16], ["--children"]])
def test_filters_that_would_match_nothing_are_refused(words: list[str]) -> None:
    assert main(["live", *words]) == 2


def test_no_command_behind_the_dashes_is_a_usage_error() -> None:
    assert main(["--"]) == 2
    assert main(["--json", "--"]) == 2
