"""doctor prints every check, in a table or as JSON, and exits by the verdict."""

import importlib
import json

import pytest
from click.testing import CliRunner

from porttrace.cli.doctor import doctor, table_row
from porttrace.tracer.checks import Check

# by name, since the package may hold the command under the module's name
module = importlib.import_module("porttrace.cli.doctor")

GOOD = Check("bcc", True, "/usr/lib/python3/dist-packages/bcc", "no live tracing", "apt install")
BAD = Check("lockdown", False, "confidentiality", "no " * 40 + "tracing", "boot anew", True)
UNSEEN = Check("tracefs", None, "only root may look")
LESS = Check("CAP_SYSLOG", False, "naming functions", "no names", "sudo", permission=True,
             word="limited")  # fmt: skip
RIGHTS = Check("capabilities", False, "CAP_BPF missing", "no tracing", "sudo x", True, True)


def run(monkeypatch: pytest.MonkeyPatch, *found: Check, arguments: tuple[str, ...] = ()) -> str:
    monkeypatch.setattr(module, "checks", lambda: found)
    result = CliRunner().invoke(doctor, arguments)
    return f"{result.output}exit {result.exit_code}"


def test_a_good_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, GOOD, UNSEEN).splitlines() == [
        "ok       bcc             /usr/lib/python3/dist-packages/bcc",
        "unknown  tracefs         only root may look",
        "",
        "Live tracing can work here.",
        "exit 0",
    ]


def test_only_faults_have_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    output = run(monkeypatch, GOOD, RIGHTS)
    assert output.count("costs:") == output.count("mend:") == 1
    assert output.endswith("doctor also sees the rest.\nexit 3")
    assert run(monkeypatch, BAD, RIGHTS).endswith("exit 4")


def test_what_is_optional_has_a_price_and_tracing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, LESS).splitlines() == [
        "limited  CAP_SYSLOG      naming functions",
        "                         costs: no names",
        "                         mend:  sudo",
        "",
        "Live tracing can work here.",
        "exit 0",
    ]
    line, _ = run(monkeypatch, LESS, arguments=("--json",)).splitlines()
    said = json.loads(line)
    assert (said["name"], said["ok"], said["cost"]) == ("CAP_SYSLOG", False, "no names")
    assert not said["essential"] and said["word"] == "limited"


def test_rows_stay_below_80_columns() -> None:
    lines = table_row(BAD).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) < 80


def test_json_is_one_object_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    *lines, code = run(monkeypatch, GOOD, BAD, UNSEEN, arguments=("--json",)).splitlines()
    first, second, third = map(json.loads, lines)
    assert first["type"] == "check"
    assert (first["ok"], second["ok"], third["ok"]) == (True, False, None)
    assert second["remedy"] == "boot anew"
    assert code == "exit 4"


def test_this_host_as_it_is() -> None:
    result = CliRunner().invoke(doctor)
    assert result.exit_code in (0, 3, 4)
    assert "capabilities" in result.output and "CAP_SYS_PTRACE" in result.output
    assert max(map(len, result.output.splitlines())) < 80 or "sudo" in result.output
