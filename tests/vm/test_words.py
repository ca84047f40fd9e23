"""What is typed after scripts/vm arrives in the guest as it is, and nothing else does."""

import subprocess
from pathlib import Path

import pytest

from vm import __main__ as program
from vm.guest import Guest, command_script
from vm.kernels import SUITES, Kernel

GUEST = Guest(Kernel("6.1", "6.1.0-1-amd64", Path("/nowhere")), kvm=False, timeout_s=1)


def run_script(text: str) -> str:
    done = subprocess.run(
        ["/bin/sh"], input=text, env={}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_an_unknown_kernel_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        program.main(["4.19"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "4.19" in said
    assert all(version in said for version in SUITES)


def test_words_keep_their_spaces_and_signs() -> None:
    words = ["a b", "$(id)", "it's", "", "*", "\n"]
    text = command_script(GUEST, ["printf", "<%s>", *words])
    assert run_script(text) == "".join(f"<{word}>" for word in words)


def test_the_environment_is_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTTRACE_TEST_MODE", "it's one")
    monkeypatch.setenv("PORTTRACE_VM_CACHE", "/somewhere")
    monkeypatch.setenv("LANG", "xx_XX")
    lines = run_script(command_script(GUEST, ["env"])).splitlines()
    assert "PORTTRACE_TEST_MODE=it's one" in lines
    assert "PORTTRACE_SLOW=1" in lines
    assert "LANG=C.UTF-8" in lines
    assert not [line for line in lines if "VM_CACHE" in line]
