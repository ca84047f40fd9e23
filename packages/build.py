"""Wheel and packages: each target's tree is put together, then nfpm makes the package of it.

    python -m packages.build [TARGET...]

The tree is a virtual environment for the target's own Python, made without that: wheels of the
versions and sums in lock.txt, unpacked by pip. It sees the system's packages, since bcc is one.
"""

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packages import completions, manpages

CHECKOUT = Path(__file__).resolve().parent.parent
HERE = CHECKOUT / "packages"
BUILD = CHECKOUT / "build" / "packages"
WHEELS = CHECKOUT / "build" / "wheels"
DIST = CHECKOUT / "dist"
LOCK = HERE / "lock.txt"
SETUPTOOLS = "setuptools==80.9.0"  # its version stands in the wheel
PREFIX = "/opt/porttrace"
ARCH = "amd64"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
# As scripts of an environment, but deaf to PYTHONPATH and the like.
SCRIPT = f"""#!{PREFIX}/bin/python3 -I
import sys

from porttrace.cli import main

sys.exit(main())
"""


@dataclass(frozen=True)
class Target:
    """A distribution: kind of its packages, and its Python's minor version (11 for 3.11)."""

    kind: str
    python: int
    release: str


TARGETS = {
    "debian12": Target("deb", 11, "1.deb12"),
    "debian13": Target("deb", 13, "1.deb13"),
    "fedora42": Target("rpm", 13, "1.fc42"),
}


def run(*words: str | Path, cwd: Path = CHECKOUT, **environment: str) -> None:
    """Run a command that must succeed, with these variables besides."""
    subprocess.run(words, cwd=cwd, check=True, env={**os.environ, **environment})


def pip(*words: str | Path, **environment: str) -> None:
    """Run pip of the environment that this runs in."""
    command = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words)
    run(*command, cwd=CHECKOUT, **environment)


def wheel() -> Path:
    """Make the wheel of porttrace in dist/."""
    DIST.mkdir(exist_ok=True)
    constraint = BUILD / "constraint.txt"
    BUILD.mkdir(parents=True, exist_ok=True)
    constraint.write_text(f"{SETUPTOOLS}\n")
    # setuptools would take files of an older build along
    shutil.rmtree(CHECKOUT / "build" / "lib", ignore_errors=True)
    pip("wheel", "--no-deps", "--wheel-dir", DIST, ".", PIP_CONSTRAINT=str(constraint))
    return max(DIST.glob("porttrace-*.whl"), key=lambda path: path.stat().st_mtime)


def _for(python: int) -> tuple[str, ...]:
    platforms = tuple(word for name in PLATFORMS for word in ("--platform", name))
    return ("--no-deps", "--only-binary=:all:", "--python-version", f"3.{python}", *platforms)


def fetch(python: int) -> Path:
    """Download what is bundled for that Python, once; return the folder of the wheels."""
    folder = WHEELS / f"3.{python}"
    stamp = folder / "lock.txt"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        pip("download", "--require-hashes", *_for(python), "--dest", folder, "-r", LOCK)
        shutil.copy(LOCK, stamp)
    return folder


def tree(into: Path, python: int, porttrace: Path) -> None:
    """Make the virtual environment for that Python in a folder that is not there yet."""
    packages = into / "lib" / f"python3.{python}" / "site-packages"
    bundled = fetch(python)
    pip("install", "--no-index", "--no-compile", *_for(python), "--target", packages,
        *sorted(bundled.glob("*.whl")))  # fmt: skip
    with zipfile.ZipFile(porttrace) as ours:
        ours.extractall(packages)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    # where pip took a wheel from is of this machine; tests of others are half of the files
    for path in [*packages.glob("*.dist-info/direct_url.json")]:
        path.unlink()
    for path in [*packages.rglob("tests")]:
        shutil.rmtree(path, ignore_errors=True)
    (into / "bin").mkdir()
    (into / "bin" / "python3").symlink_to("/usr/bin/python3")
    (into / "bin" / "porttrace").write_text(SCRIPT)
    (into / "bin" / "porttrace").chmod(0o755)
    (into / "lib64").symlink_to("lib")
    (into / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.{python}\n"
    )
    _same_modes(into)


# Whatever the umask of who builds was, and the time: nfpm takes both from the files.
def _same_modes(folder: Path) -> None:
    epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.parent.name in ("bin", "maintainer")
        path.chmod(0o755 if runs else 0o644)


def share(into: Path) -> None:
    """Make manual pages, completions and the licence's notice in a folder."""
    for page in manpages.write(into / "man"):
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
    completions.write(into / "completions")
    shutil.copy(CHECKOUT / "LICENSE", into / "copyright")
    _same_modes(into)


def package(name: str, porttrace: Path, version: str = "") -> Path:
    """Make the package of a target in dist/ and return its file; `version` in place of our own."""
    target = TARGETS[name]
    stage = BUILD / name
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    tree(stage / "tree", target.python, porttrace)
    share(stage / "share")
    shutil.copytree(HERE, stage / "packages", ignore=shutil.ignore_patterns("__pycache__"))
    _same_modes(stage / "packages")
    return pack(name, version or porttrace.name.split("-")[1])


def pack(name: str, version: str) -> Path:
    """Let nfpm make the package of what stands in the target's folder; return its file."""
    target = TARGETS[name]
    arch = {"deb": ARCH, "rpm": "x86_64"}[target.kind]
    separator = {"deb": f"_{version}-{target.release}_", "rpm": f"-{version}-{target.release}."}
    file = DIST / f"porttrace{separator[target.kind]}{arch}.{target.kind}"
    run(
        Path(sys.executable).with_name("nfpm"), "package",
        "--config", HERE / "nfpm.yaml", "--packager", target.kind, "--target", file,
        cwd=BUILD / name,
        ARCH=ARCH, VERSION=version, RELEASE=target.release,
        PYTHON=f"3.{target.python}", PYTHON_NEXT=f"3.{target.python + 1}",
    )  # fmt: skip
    return file


def main(names: list[str]) -> int:
    """Make the wheel and the packages of these targets, or of all."""
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        print(f"package: knows {', '.join(TARGETS)}, not {unknown[0]}", file=sys.stderr)
        return 2
    made = wheel()
    print(made)
    for name in names or TARGETS:
        print(package(name, made), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
