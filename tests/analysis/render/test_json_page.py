"""docs/json.md has every key of every object, and no other."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binding import in_use, listener, trace_of_binds
from porttrace.analysis import show, tables
from porttrace.analysis.assemble import held_rows
from porttrace.analysis.findings import RULES, diagnose
from porttrace.analysis.findings.fixed_port import fixed_port_at_risk
from porttrace.analysis.model import Finding, Outcome, Trace
from porttrace.analysis.recording import load
from porttrace.analysis.render.report import finding_json, report
from porttrace.analysis.render.windows import values as window_values
from porttrace.analysis.windows import summed
from porttrace.cli import lab_binds, main
from porttrace.cli.printer import JsonPrinter
from porttrace.cli.probe import values as probe_values
from porttrace.cli.suspects import json_lines as suspects_lines
from porttrace.tracer import bindfacts
from porttrace.tracer.census import Found
from porttrace.tracer.facts import NotLooked, Process, Suspect
from porttrace.tracer.ports import inventory
from porttrace.tracer.trial import Measured, Step, conclude
from recordings import HELD
from sharing_trials import obedient

from ..deniers import Slots, world  # noqa: TID252
from ..findings import (  # noqa: TID252
    shortages,
    test_accept_queue,
    test_conntrack,
    test_exhaustion,
    test_source_port,
    written,
)
from ..findings.test_bind_conflict import CLIENT  # noqa: TID252
from ..findings.test_family import both, in_turn  # noqa: TID252
from ..findings.test_fixed_port import APP, RANGE  # noqa: TID252
from ..findings.test_limited import busy  # noqa: TID252
from ..findings.test_paced import dropping, held  # noqa: TID252
from ..findings.test_port_shared import listening  # noqa: TID252
from ..findings.test_rules import TAKING_TURNS  # noqa: TID252
from ..findings.test_storm import stream  # noqa: TID252

CHECKOUT = Path(__file__).parents[3]
PAGE = (CHECKOUT / "docs" / "json.md").read_text()
GOLDEN = sorted((CHECKOUT / "tests" / "data").glob("v*.ptrace"))
FACT = Suspect("ptrace", "gate", "strace (pid 9) traces it", "/proc/9/status", 9)
NESTED = ("victims", "blockers", "suspects", "hypotheses")


def documented(heading: str) -> set[str]:
    """Return the keys in the tables below a heading, up to the next one."""
    section = re.split(rf"^##+ {re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1]
    own = re.split(r"^##", section, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`.*?) \|", own, flags=re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def flat(value: dict[str, Any], *deeper: str) -> set[str]:
    """Return the keys of an object; those of `deeper` ones with theirs, as `trace.host`."""
    keys = set(value) - set(deeper)
    for name in deeper:
        inside = value[name] if isinstance(value[name], list) else [value[name]]
        keys |= {f"{name}.{key}" for each in inside for key in each}
    return keys


@cache
def recorded() -> Trace:
    return load(GOLDEN[0]).trace


def every_finding() -> Iterator[Finding]:
    for path in GOLDEN:
        yield from load(path).findings
    dead = [(written.DEAD, at, at + 900, Outcome.timed_out) for at in (1000, 3000, 5000)]
    for trace in (
        world(busy(1), 1, Slots(1, "process")),
        held(100, 1, 1),
        dropping(1, 2, 1, mean_s=0.65),
        written.world(*TAKING_TURNS),
        written.world(*dead),
        stream(60, 30),
        both(*in_turn(4)),
        queue_and_late_accepts(),
        no_port_left(),
        test_source_port.from_port(8380, 8380),
        test_conntrack.traced(test_conntrack.tracked(500, 700, 810, 900)),
        in_use(CLIENT, to="0.0.0.0:43611"),
        trace_of_binds(listening(7), listening(8)),
    ):
        yield from diagnose(trace)
    yield from fixed_port_at_risk([APP], RANGE, [])


def queue_and_late_accepts() -> Trace:
    trace = test_accept_queue.traced(test_accept_queue.OVERFLOWING, lost=5)
    return replace(trace, accepted=test_accept_queue.accepting(20).accepted)


def no_port_left() -> Trace:
    failing = test_exhaustion.connects(3, outcome=Outcome.no_port, at_ms=3900)
    steps = [*test_exhaustion.connects(20), *failing]
    return shortages.of_namespace(*steps, samples=test_exhaustion.FILLING)


@cache
def by_rule() -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = {}
    for finding in every_finding():
        told.setdefault(finding.rule, []).append(finding_json(finding))
    return told


# The last is not a rule of traces: `porttrace ports` asks it.
FOUND = [*(rule.__name__.replace("_", "-") for rule in RULES), "fixed-port-at-risk"]


@pytest.mark.parametrize("rule", FOUND)
def test_subject_and_evidence_of_each_rule(rule: str) -> None:
    seen = [flat({k: each[k] for k in ("subject", "evidence")}, "subject", "evidence")
            for each in by_rule()[rule]]  # fmt: skip
    assert set().union(*seen) == documented(f"`{rule}`")


def test_windows() -> None:
    told = window_values(summed(GOLDEN[-1], 1_000_000_000))
    assert len(told["windows"]) > 1 and told["findings"][0]["windows"]
    assert flat(told, "trust", "attempts", "windows") == documented("`windows`")


def test_a_finding() -> None:
    whole = [each for found in by_rule().values() for each in found]
    keys = documented("`finding`")
    top = {key for key in keys if "." not in key}
    assert all(set(each) | {"type"} == top for each in whole)
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in NESTED}
    for each in whole:
        for name in NESTED:
            parts[name] += each.get(name) or each["evidence"].get(name, [])
    assert parts["victims"] and parts["suspects"] and parts["hypotheses"]
    parts["victims"] += parts.pop("blockers")
    seen = {f"{name}.{key}" for name, rows in parts.items() for row in rows for key in row}
    assert seen == {key for key in keys if "." in key}


def test_the_report() -> None:
    told = report(recorded(), [])
    seen = flat(told, "trace", "trust", "attempts", "processes") | {"type"}
    assert seen == documented("`report`")


def test_lines_of_a_live_trace(capsys: pytest.CaptureFixture[str]) -> None:
    printer, rows = JsonPrinter(), recorded().rows
    printer.attempts(rows)
    printer.pending(np.concatenate([rows[:1], held_rows([HELD])]), 10**12, {})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    attempt, pending = documented("`attempt`"), documented("`pending`")
    for line in lines:
        own = pending - {"attempt", "attempt_id"} if line["type"] == "pending" else set()
        wanted = attempt - {"attempt_id"} if own else attempt
        assert set(line) == wanted | own
    assert {line["type"] for line in lines} == {"attempt", "pending"}


def test_a_bind(capsys: pytest.CaptureFixture[str]) -> None:
    trace = in_use(listener(), to="0.0.0.0:80")
    JsonPrinter(trace.processes).binds(trace.binds, trace.looked)
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    keys = documented("`bind`")
    facts = {key for key in keys if key.startswith("facts.")}
    assert flat(line, "holders") | {"holders"} == keys - facts
    named = re.findall(r"^    ((?:\w+, )*\w+)  ", bindfacts.__doc__ or "", flags=re.MULTILINE)
    assert facts == {f"facts.{name}" for names in named for name in names.split(", ")}
    assert {f"facts.{name}" for name in line["facts"]} <= facts


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    main([*words, "--json"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_commands_for_ports(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inventory, "MOST", 1)  # the rest is not seen
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)):
        port = one.getsockname()[1]
        wanted = tmp_path / "ports.yaml"
        wanted.write_text(f"ports:\n- {{port: {port}, process: none}}\n")
        (told,) = printed(capsys, "port", str(port), "--tcp", "--try-bind")
        (checked,) = printed(capsys, "ports", "--check", str(wanted))
        listed = printed(capsys, "ports")
    assert flat(told, "asked", "bind", "listen", "tried") == documented("`port`")
    assert flat(checked, "problems") == documented("`wanted`")
    holders = {key for key in documented("`bind`") if key.startswith("holders.")}
    for each in (*told["holders"], *checked["holders"]):
        assert {f"holders.{key}" for key in each} == holders
    assert {each["type"] for each in listed} >= {"ports", "socket", "not_seen"}
    for each in listed:
        if each["type"] != "finding":
            assert set(each) == documented(f"`{each['type']}`")


def test_suspects_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found((FACT,), (NotLooked("BPF programs", "refused"),))
    lines = [*map(json.loads, suspects_lines(Process(7), found)), *printed(capsys, "doctor")]
    assert {each["type"] for each in lines} == {"suspect", "not_looked", "check"}
    for each in lines:
        assert set(each) == documented(f"`{each['type']}`")


def test_a_probe() -> None:
    last = Step(1, "through", 0, "through", 0.0, 0)
    measured = Measured((last,), dict.fromkeys(("process", "user", "cgroup", "netns"), False))
    keys = flat(probe_values(measured, conclude(measured)), "steps")
    assert keys == documented("`probe`")


def test_whatif(capsys: pytest.CaptureFixture[str]) -> None:
    logins = CHECKOUT / "notebooks" / "data" / "serialized-logins.ptrace"
    (told,) = printed(capsys, "whatif", str(logins))
    assert flat(told, "throttle", "fit", "predictions") == documented("`whatif`")


def test_combinations_of_two_sockets(capsys: pytest.CaptureFixture[str]) -> None:
    lab_binds.print_json(obedient("udp")[:2])
    first, _, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(first) == documented("`combination`")
    assert set(last) == documented("`summary`")


SHOWN = ("attempts", "binds", "events", "accepts", "concurrency")


@pytest.mark.parametrize("table", SHOWN)
def test_rows_of_show(table: str) -> None:
    recording = load(GOLDEN[0])
    made: dict[str, Any] = {
        "attempts": lambda: tables.attempts(recording.trace),
        "binds": lambda: tables.binds(in_use(CLIENT)),
        "events": lambda: tables.events(recording.events),
        "accepts": lambda: tables.accepts(recording.events),
        "concurrency": lambda: tables.concurrency(recording.trace, "process"),
    }
    frame = made[table]()
    assert {"type", *frame.columns} == documented(f"`show {table}`")
    for line in show.json_lines(table, frame.head(1)):
        assert {"type", *frame.columns} == set(json.loads(line))


def test_nothing_else_has_a_section() -> None:
    headings = set(re.findall(r"^### `(.+)`$", PAGE, flags=re.MULTILINE))
    assert headings == {*FOUND, *(f"show {table}" for table in SHOWN)}
