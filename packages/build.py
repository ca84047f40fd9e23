"""Wheel and packages: a tree for each Python is put together, then nfpm makes packages of it.

    python -m packages.build [TARGET...]

The tree is a virtual environment for the targets' own Python, made without that: wheels of the
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
# As scripts of an environment, but deaf to PYTHONPATH and the like. The workers of `fleet` import
# it under another name, and must not start over.
SCRIPT = f"""#!{PREFIX}/bin/python3 -I
import sys

from porttrace.cli import main

if __name__ == "__main__":
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
    """Run a command that must succeed, with these variables besides; what it makes all may read."""
    subprocess.run(words, cwd=cwd, check=True, env={**os.environ, **environment}, umask=0o022)


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


def wheels_for(python: int) -> tuple[str, ...]:
    """Return pip's options that take wheels for Python 3.`python`, whatever runs pip."""
    platforms = tuple(word for name in PLATFORMS for word in ("--platform", name))
    return ("--only-binary=:all:", "--python-version", f"3.{python}", *platforms)


def fetch(python: int) -> Path:
    """Download what is bundled for that Python, once; return the folder of the wheels."""
    folder = WHEELS / f"3.{python}"
    stamp = folder / "lock.txt"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        pip(
            "download",
            "--no-deps",
            "--require-hashes",
            *wheels_for(python),
            "--dest",
            folder,
            "-r",
            LOCK,
        )
        shutil.copy(LOCK, stamp)
    return folder


def tree(into: Path, python: int, porttrace: Path) -> None:
    """Make the virtual environment for that Python in a folder that is not there yet."""
    packages = into / "lib" / f"python3.{python}" / "site-packages"
    bundled = fetch(python)
    # by name: of a file's own path pip would leave traces
    pip("install", "--no-index", "--find-links", bundled, "--require-hashes", "--no-deps",
        "--no-compile", *wheels_for(python), "--target", packages, "-r", LOCK)  # fmt: skip
    with zipfile.ZipFile(porttrace) as ours:
        ours.extractall(packages)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    # tests of others are half of the files
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
    """Make manual pages, completions, documentation and the licence's notice in a folder."""
    for page in manpages.write(into / "man"):
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
    completions.write(into / "completions")
    shutil.copy(CHECKOUT / "LICENSE", into / "copyright")
    shutil.copytree(CHECKOUT / "docs", into / "doc/docs")
    shutil.copy(CHECKOUT / "README.md", into / "doc")
    _same_modes(into)


def stage(python: int, porttrace: Path, folder: Path | None = None) -> Path:
    """Put together what all packages for Python 3.`python` hold, anew, and return its folder.

    porttrace: the wheel; folder: where, else one for that Python in build/.
    """
    folder = folder or BUILD / f"3.{python}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tree(folder / "tree", python, porttrace)
    share(folder / "share")
    shutil.copytree(HERE, folder / "packages", ignore=shutil.ignore_patterns("__pycache__"))
    _same_modes(folder / "packages")
    return folder


def pack(name: str, staged: Path, version: str, into: Path = DIST) -> Path:
    """Let nfpm make the package of a target of what `stage` put together; return its file."""
    target = TARGETS[name]
    arch = {"deb": ARCH, "rpm": "x86_64"}[target.kind]
    separator = {"deb": f"_{version}-{target.release}_", "rpm": f"-{version}-{target.release}."}
    file = into / f"porttrace{separator[target.kind]}{arch}.{target.kind}"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("nfpm"), "package",
            "--config", HERE / "nfpm.yaml", "--packager", target.kind, "--target", file,
        ],
        cwd=staged, capture_output=True, text=True, check=False,
        env={
            **os.environ,
            "ARCH": ARCH, "VERSION": version, "RELEASE": target.release,
            "PYTHON": f"3.{target.python}", "PYTHON_NEXT": f"3.{target.python + 1}",
        },
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"package: nfpm cannot make {file.name}: {done.stdout}{done.stderr}")
    return file


def version_of(porttrace: Path) -> str:
    """Return the version in the name of a wheel."""
    return porttrace.name.split("-")[1]


def main(names: list[str]) -> int:
    """Make the wheel and the packages of these targets, or of all; of "wheel" that alone."""
    unknown = [name for name in names if name not in ("wheel", *TARGETS)]
    if unknown:
        known = ", ".join(("wheel", *TARGETS))
        print(f"package: knows {known}, not {unknown[0]}", file=sys.stderr)
        return 2
    made = wheel()
    print(made)
    staged: dict[int, Path] = {}
    for name in [name for name in names or TARGETS if name != "wheel"]:
        python = TARGETS[name].python
        if python not in staged:
            staged[python] = stage(python, made)
        print(pack(name, staged[python], version_of(made)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
