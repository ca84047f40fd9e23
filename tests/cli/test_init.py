"""The door: arguments find their command, errors become two lines and an exit code."""

import errno
import os
import subprocess
import sys
import types
from collections.abc import Callable

import click
import pytest

import porttrace.cli
from porttrace.cli import COMMANDS, main
from porttrace.lab.errors import CommandNotRunError, LabError
from porttrace.tracer.errors import (
    NotPermittedError,
    PorttraceError,
    TargetError,
    UnsupportedError,
)

Raise = Callable[[BaseException], None]


@pytest.fixture
def boom(monkeypatch: pytest.MonkeyPatch) -> Raise:
    """A command that raises what it is given."""

    def install(error: BaseException) -> None:
        @click.command()
        def boom() -> None:
            raise error

        module = types.ModuleType("porttrace.cli.boom")
        module.boom = boom  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "porttrace.cli.boom", module)
        monkeypatch.setitem(COMMANDS, "boom", "raises")

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PorttraceError("it broke", "mend it"), 1),
        (TargetError("it broke", "mend it"), 1),
        (NotPermittedError("it broke", "mend it"), 3),
        (UnsupportedError("it broke", "mend it"), 4),
        (LabError("it broke", "mend it"), 1),
    ],
)
def test_our_errors(
    boom: Raise, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    boom(error)
    assert main(["boom"]) == code
    assert capsys.readouterr() == ("", "error: it broke\nhint: mend it\n")


@pytest.mark.parametrize(("number", "code"), [(errno.ENOENT, 127), (errno.EACCES, 126)])
def test_a_command_of_the_lab_that_does_not_run(boom: Raise, number: int, code: int) -> None:
    boom(CommandNotRunError("x", OSError(number, os.strerror(number))))
    assert main(["boom"]) == code


def test_an_error_without_a_hint(boom: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    boom(PorttraceError("it broke"))
    assert main(["boom"]) == 1
    assert capsys.readouterr().err == "error: it broke\n"


def test_a_defect_has_no_traceback(boom: Raise, capsys: pytest.CaptureFixture[str]) -> None:
    boom(ZeroDivisionError("division by zero"))
    assert main(["boom"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: ZeroDivisionError: division by zero"
    assert second.startswith("hint: ")
    assert "--debug" in second


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), PorttraceError("x")])
def test_debug_raises_what_happened(boom: Raise, error: Exception) -> None:
    boom(error)
    with pytest.raises(type(error)):
        main(["--debug", "boom"])
    with pytest.raises(type(error)):
        main(["boom", "--debug"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption(
    boom: Raise, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    boom(error)
    assert main(["boom"]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


def test_an_exit_code_is_passed_on(boom: Raise) -> None:
    boom(click.exceptions.Exit(5))
    assert main(["boom"]) == 5


@pytest.mark.parametrize(
    "code",
    [
        "print('x' * 100_000); print('y')",
        "import click; [click.echo('x' * 1000) for _ in range(1000)]",
    ],
)
def test_a_reader_that_leaves_is_no_error(code: str) -> None:
    """Also while the command still prints, not only when the output is flushed at the end."""
    script = (
        "import sys, types, click\n"
        "from porttrace import cli\n"
        f"@click.command()\ndef boom():\n    {code}\n"
        "sys.modules['porttrace.cli.boom'] = types.SimpleNamespace(boom=boom)\n"
        "cli.COMMANDS['boom'] = 'x'\n"
        "sys.exit(cli.main(['boom']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_names_that_the_terminal_cannot_show() -> None:
    script = "from porttrace import cli; import sys; cli.main(['--version']); print('日本')"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\\u65e5\\u672c\n")


# -- usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["--pid", "1", "--bogus"],
        ["--bogus"],
        ["live", "--pid", "x"],
        ["live", "--pid", "0"],
        ["-d", "soon"],
        ["-P", "http"],
        ["lab", "bogus"],
        ["lab"],
        ["lab", "run", "gate"],
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "Usage: porttrace" in err


@pytest.mark.parametrize("arguments", [["--force"], ["report", "a", "--force"]])
def test_an_option_for_nothing_is_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "--force needs " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["1234"], "No such command '1234'. A process is traced by --pid 1234."),
        (["recordd", "-o", "x"], "No such command 'recordd'. Is it 'record'?"),
        (["curl", "http://127.0.0.1/"], "behind two dashes: porttrace -- curl ..."),
    ],
)
def test_an_unknown_command_is_named_with_what_may_be_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert meant in capsys.readouterr().err


def test_who_is_removed_while_it_runs_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    gone = ModuleNotFoundError("No module named 'numpy.ma'")
    assert porttrace.cli._complain(gone) == 1
    assert "this is a defect" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(porttrace.cli, "__file__", "/nonexistent/porttrace/cli/__init__.py")
        assert porttrace.cli._complain(gone) == 1
    err = capsys.readouterr().err
    assert "removed or replaced while it ran" in err and "start it again" in err


def test_ipv4_and_ipv6_exclude_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("porttrace.tracer.features.require", lambda: None)
    assert main(["-4", "-6"]) == 2
    assert "-4 and -6 exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main([option]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, line in COMMANDS.items():
        assert name in out
        assert line.split()[0] in out


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"9.9 of {name}")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "porttrace, version 9.9 of porttrace\n"


def test_options_alone_mean_the_live_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "1", "--help"]) == 0
    assert "Trace connection attempts until" in capsys.readouterr().out


def test_behind_two_dashes_stands_somebody_elses_command_line(
    boom: Raise, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []

    @click.command()
    @click.argument("command", nargs=-1, type=click.UNPROCESSED)
    def live(command: tuple[str, ...]) -> None:
        seen.append(command)

    module = types.ModuleType("porttrace.cli.live")
    module.live = live  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "porttrace.cli.live", module)
    assert main(["--", "prog", "--debug", "--help", "-p"]) == 0
    assert seen == [("prog", "--debug", "--help", "-p")]


# -- start-up


@pytest.mark.parametrize("run", ["", "main(['--help']); main(['bogus']); main(['--version'])"])
def test_nothing_slow_is_imported_before_a_command_runs(run: str) -> None:
    code = (
        f"import sys\nfrom porttrace.cli import main\n{run}\n"
        "print('MODULES', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stderr.rpartition("MODULES")[2].split()
    assert "porttrace.cli" in modules
    assert not {"numpy", "pandas", "bcc", "pyroute2", "pyarrow"} & set(modules)


def test_a_command_module_does_not_import_bcc() -> None:
    code = "import sys; import porttrace.cli.live, porttrace.cli.lab; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"bcc", "pyroute2"} & set(done.stdout.split())


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "porttrace.cli", "bogus"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Usage: porttrace" in done.stderr


def test_every_command_has_a_module_of_its_name() -> None:
    context = click.Context(porttrace.cli.porttrace)
    for name in porttrace.cli.porttrace.list_commands(context):
        command = porttrace.cli.porttrace.get_command(context, name)
        assert command is not None
        assert command.name == name
