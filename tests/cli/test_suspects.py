"""porttrace suspects: whom it looks at, how it prints, what it refuses."""

import importlib
import json
import os

import pytest

from porttrace.cli import main
from porttrace.tracer.census import Found
from porttrace.tracer.facts import NotLooked, Process, Suspect
from porttrace.tracer.targets import Targets

# by name, since the package may hold the command under the module's name
module = importlib.import_module("porttrace.cli.suspects")

FACT = Suspect("ptrace", "gate", "strace (pid 9) traces it \udcff", "/proc/9/status", 9)
FOUND = Found((FACT,), (NotLooked("BPF programs", "refused"),))
ME = str(os.getpid())


class FakeCensus:
    """Finds the same of everybody."""

    def of(self, process: Process) -> Found:
        assert process.comm
        return FOUND


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Census", FakeCensus)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.namespaces, "require_host_pids", lambda: None)


@pytest.mark.usefixtures("root")
def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suspects", "--pid", ME, "--pid", ME]) == 0
    out = capsys.readouterr().out
    assert out.count(f"(pid {ME})") == 1
    assert "  gate (at the entry of the system call):\n    - strace (pid 9) traces it \\xff" in out
    assert "  Not looked at on this host:\n    - BPF programs: refused\n" in out


@pytest.mark.usefixtures("root")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suspects", "--json", "--pid", ME]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    what = "strace (pid 9) traces it \\xff"
    assert first == {"type": "suspect", "target": os.getpid(), **vars(FACT), "what": what}
    assert second == {
        "type": "not_looked", "target": os.getpid(), "what": "BPF programs", "reason": "refused",
    }  # fmt: skip


@pytest.mark.usefixtures("root")
def test_containers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "_MOST", 1)
    many = Targets(frozenset((os.getpid(), os.getppid())))
    monkeypatch.setattr(module, "in_containers", lambda words: many)
    assert main(["suspects", "--container", "web"]) == 0
    out, err = capsys.readouterr()
    assert out.count("user ") == 1
    assert err == "note: 1 of 2 processes are looked at; --pid names others\n"


@pytest.mark.usefixtures("root")
def test_whom_to_look_at_has_to_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suspects"]) == 2
    assert "--pid" in capsys.readouterr().err


@pytest.mark.usefixtures("root")
def test_a_process_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suspects", "--pid", "99999999"]) == 1
    assert "there is no process 99999999" in capsys.readouterr().err


def test_rights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    assert main(["suspects", "--pid", ME]) == 3
    assert "hint: sudo " in capsys.readouterr().err
