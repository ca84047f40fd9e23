"""Packages in bare systems of Debian 12 and 13, as a user has them: from an older one to purge."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import bare
from packages import build, completions, manpages

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]
GOLDEN = build.CHECKOUT / "tests" / "data" / "v1-two-threads.ptrace"
PAGE = "/usr/share/man/man1/porttrace.1.gz"
OLDER = "0.0.9"
GONE = "porttrace/tracer/gone.py"
CONNECT = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 9)))"
SERVE = """
sudo porttrace serve --textfile . -d 3s &
until [ -e porttrace.prom ]; do kill -0 $! && sleep 0.1 || exit; done
cat porttrace.prom
wait $!
"""
# Makes the older release small: it need not trace.
LIBRARIES = ("dask*", "distributed*", "numpy*", "pandas*", "pyarrow*", "pygments*")


@pytest.fixture(scope="module", params=["debian12", "debian13"])
def system(request: pytest.FixtureRequest) -> Iterator[bare.Bare]:
    with bare.system(request.param) as made:
        made.run("useradd", "--create-home", "ann")
        (made.root / "etc" / "sudoers.d" / "ann").write_text("ann ALL=(ALL) NOPASSWD: ALL\n")
        yield made


def machine_of(system: bare.Bare) -> str:
    return "debian" + system.run("sh", "-c", ". /etc/os-release; echo $VERSION_ID").strip()


def older(target: str, wheel: Path, folder: Path) -> Path:
    """Return a package of an older release, which has a module that is no more in the newer."""
    python = build.TARGETS[target].python
    staged = folder / "staged"
    shutil.copytree(
        build.BUILD / f"3.{python}", staged, symlinks=True,
        ignore=shutil.ignore_patterns(*LIBRARIES),
    )  # fmt: skip
    version = build.version_of(wheel)
    site = staged / "tree" / "lib" / f"python3.{python}" / "site-packages"
    info = site / f"porttrace-{version}.dist-info"
    metadata = (info / "METADATA").read_text()
    assert f"\nVersion: {version}\n" in metadata
    (info / "METADATA").write_text(
        metadata.replace(f"\nVersion: {version}\n", f"\nVersion: {OLDER}\n")
    )
    info.rename(site / f"porttrace-{OLDER}.dist-info")
    (site / GONE).write_text("")
    package = build.pack(target, staged, OLDER, folder)
    shutil.rmtree(staged)
    return package


def at_hand(system: bare.Bare, *files: Path) -> list[str]:
    """Copy files to where everybody may read them; return their places there."""
    for file in files:
        shutil.copy(file, system.root / "tmp")
    return [f"/tmp/{file.name}" for file in files]


def site_of(system: bare.Bare) -> Path:
    [site] = (system.root / "opt/porttrace/lib").glob("python3.*/site-packages")
    return site


def compiled(system: bare.Bare) -> list[Path]:
    return list((system.root / "opt").rglob("gone.*.pyc"))


# -- what works once it is installed ---------------------------------------------------------------


def starts(system: bare.Bare, version: str) -> None:
    assert system.run("porttrace", "--version", user="ann") == f"porttrace, version {version}\n"
    assert "Usage: porttrace" in system.run("porttrace", "--help", user="ann")


def works(system: bare.Bare, wheel: Path) -> None:
    starts(system, build.version_of(wheel))
    assert "Live tracing can work here." in system.run("sudo", "porttrace", "doctor", user="ann")
    traces(system)


def traces(system: bare.Bare) -> None:
    """Trace a connect as a user with sudo, record one, and read that without."""
    command = ("/usr/bin/python3", "-c", CONNECT)
    said = system.run("sudo", "porttrace", "-d", "30s", "--", *command, user="ann")
    assert re.search(r"127\.0\.0\.1:9 +refused", said), said
    assert "none lost" in said
    system.run("rm", "-f", "x.ptrace", user="ann")
    system.run("sudo", "porttrace", "record", "-o", "x.ptrace", "--", *command, user="ann")
    assert "1 attempt was refused: 127.0.0.1:9" in system.run(
        "porttrace", "report", "x.ptrace", user="ann"
    )
    [recording] = at_hand(system, GOLDEN)
    assert "serialized-connects" in system.run("porttrace", "report", recording, user="ann")


def every_command_has_its_libraries(system: bare.Bare) -> None:
    """Run what needs more than the others do: rich, prometheus_client, Dask, OpenTelemetry."""
    assert "porttrace_in_flight" in system.run("sh", "-c", SERVE, user="ann")
    system.run("script", "-qec", "sudo porttrace top -d 1s", "/dev/null", user="ann")
    golden = f"/tmp/{GOLDEN.name}"
    system.run(
        "porttrace", "export", golden, "-f", "otel", "-o", "spans.json", "--force", user="ann"
    )
    assert "serialized-connects" in system.run("porttrace", "fleet", golden, user="ann")


def is_documented(system: bare.Bare, zsh: str) -> None:
    """Find pages, manual pages and completions, and try what bash does at Tab."""
    pages_at = system.root / "usr/share/doc/porttrace"
    assert (pages_at / "docs/metrics.md").stat().st_mode & 0o777 == 0o644
    assert (pages_at / "docs/grafana/alerts.yml").exists() and (pages_at / "README.md").exists()
    pages = sorted(path.name for path in (system.root / "usr/share/man/man1").glob("porttrace*"))
    assert pages == sorted(f"{name}.gz" for name in manpages.pages())
    done = subprocess.run(
        ["man", "--warnings=w", "-E", "ascii", "-l", f"{system.root}{PAGE}"],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert "porttrace" in done.stdout and not done.stderr
    for shell, place in {
        "bash": "usr/share/bash-completion/completions/porttrace",
        "fish": "usr/share/fish/vendor_completions.d/porttrace.fish",
        "zsh": f"usr/share/zsh/{zsh}/_porttrace",
    }.items():
        assert (system.root / place).read_text() == completions.script(shell)
    assert system.run("bash", "-c", """
        . /usr/share/bash-completion/completions/porttrace
        COMP_WORDS=(porttrace whati) COMP_CWORD=1
        _porttrace_completion porttrace
        echo "${COMPREPLY[@]}" """, user="ann").split() == ["whatif"]  # fmt: skip


# -- a package's life ------------------------------------------------------------------------------


def without(owned: set[str], files: set[str]) -> set[str]:
    """Return the files that neither belong to the package nor were compiled by it."""
    return {
        path
        for path in files
        if not path.startswith("/opt/porttrace") and not (path in owned and "porttrace" in path)
    }


def nothing_is_left(system: bare.Bare, before: set[str], owned: set[str]) -> None:
    after = system.files()
    assert not [path for path in after if "porttrace" in path]
    assert after - before <= {"/opt"}  # a deb takes it along, an rpm leaves it
    assert before - after <= owned  # folders that nobody else has


def test_a_deb_from_an_older_release_to_purge(
    system: bare.Bare, packages: dict[str, Path], tmp_path: Path
) -> None:
    machine = machine_of(system)
    system.run("dpkg", "--purge", "porttrace")
    # GIVEN an older release, with all that it depends on, from Debian
    old, new = at_hand(system, older(machine, packages["wheel"], tmp_path), packages[machine])
    system.run("apt-get", "update")
    system.run("apt", "install", "--yes", old)
    starts(system, OLDER)
    assert compiled(system)
    owned = set(system.run("dpkg", "--listfiles", "porttrace").split())
    before = without(owned, system.files())
    # WHEN it is upgraded by the package of another system THEN apt refuses, and says why
    [foreign] = at_hand(system, packages[{"debian12": "debian13"}.get(machine, "debian12")])
    assert "Depends: python3" in system.run("apt", "install", "--yes", foreign, code=100)
    starts(system, OLDER)
    # WHEN it is upgraded THEN all of the new works, and nothing of the old is left
    system.run("apt", "install", "--yes", new)
    assert not (site_of(system) / GONE).exists() and not compiled(system)
    works(system, packages["wheel"])
    every_command_has_its_libraries(system)
    is_documented(system, zsh="vendor-completions")
    assert system.run("dpkg", "--verify", "porttrace") == ""
    # AND after removing no file is left, nor is anything known of it after purging
    system.run("apt", "remove", "--yes", "porttrace")
    nothing_is_left(system, before, owned)
    system.run("apt", "purge", "--yes", "porttrace")
    nothing_is_left(system, before, owned)
    assert "porttrace" not in system.run("dpkg", "--get-selections")
    assert not list((system.root / "var/lib/dpkg/info").glob("porttrace*"))


@pytest.mark.parametrize("system", ["debian13"], indirect=True)  # has the Python of Fedora 42
def test_an_rpm_from_an_older_release_to_its_end(
    system: bare.Bare, packages: dict[str, Path], tmp_path: Path
) -> None:
    root = system.outside("readlink", f"/proc/{system.pid}/root").strip()
    rpm = ("rpm", "--root", root, "--dbpath", "/var/lib/rpm", "--force-debian", "--nodeps")
    old, new = older("fedora42", packages["wheel"], tmp_path), packages["fedora42"]
    # GIVEN an older release, and what it depends on, which Debian has under other names
    system.run("apt-get", "update")
    system.run("apt-get", "install", "--yes", "python3-bpfcc", "iproute2")
    before = system.files()
    system.outside(*rpm, "--install", old)
    starts(system, OLDER)
    assert compiled(system)
    # WHEN it is upgraded THEN all of the new works, and nothing of the old is left
    system.outside(*rpm, "--upgrade", new)
    assert not (site_of(system) / GONE).exists() and not compiled(system)
    works(system, packages["wheel"])
    is_documented(system, zsh="site-functions")
    system.outside(*rpm, "--verify", "porttrace")
    # AND after erasing it no file is left
    owned = set(system.outside(*rpm[:-1], "--query", "--list", "porttrace").split())
    system.outside(*rpm, "--erase", "porttrace")
    nothing_is_left(system, before, owned)


def test_what_an_rpm_tells_of_itself(packages: dict[str, Path]) -> None:
    def told(what: str) -> str:
        return subprocess.run(
            ["rpm", "--query", "--package", what, packages["fedora42"]],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    assert {"python(abi) = 3.13", "python3-bcc"} <= set(told("--requires").splitlines())
    assert {"iproute", "nftables"} <= set(told("--recommends").split())
    files = set(told("--list").splitlines())
    assert {"/usr/bin/porttrace", "/usr/lib/systemd/system/porttrace.service"} <= files
    assert all(path.startswith(("/opt/porttrace", "/usr/")) for path in files)
    scripts = told("--scripts")
    for when in ("preuninstall", "postuninstall", "posttrans"):
        assert f"{when} scriptlet (using /bin/sh)" in scripts
