"""Write lock.txt anew: the newest releases of what packages bundle, with the sums of their wheels.

    python -m packages.lock

Every command must work from a package, so that what `serve`, `export -f otel` and `fleet` need is
bundled besides what porttrace always needs.
"""

import json
import sys
import tempfile
import tomllib
from pathlib import Path

from packages import build

EXTRAS = ("serve", "otel", "fleet")
HEAD = (
    "# What is bundled in packages, for Python {pythons} on x86_64: scripts/package takes nothing\n"
    "# else. Written by packages/lock.py.\n"
)


def wanted() -> list[str]:
    """Return what pyproject.toml asks for, with the extras that packages carry."""
    project = tomllib.loads((build.CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]


def resolve(python: int, constraints: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return version and sum (SHA-256) of each package for Python 3.`python`, by its name.

    constraints: versions that another Python has of the same packages.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report, held = Path(scratch, "report.json"), Path(scratch, "constraints.txt")
        held.write_text("".join(f"{name}=={each}\n" for name, each in constraints.items()))
        build.pip("install", "--dry-run", "--ignore-installed", "--report", report,
                  "--constraint", held, "--target", Path(scratch, "nowhere"),
                  *build.wheels_for(python), *wanted())  # fmt: skip
        found = json.loads(report.read_text())["install"]
    return {
        each["metadata"]["name"].lower().replace("_", "-"): (
            each["metadata"]["version"],
            each["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for each in found
    }


def lock(pythons: list[int]) -> str:
    """Return the text of lock.txt for these minor versions of Python, the oldest first."""
    versions: dict[str, str] = {}
    sums: dict[str, set[str]] = {}
    for python in pythons:
        for name, (version, digest) in resolve(python, versions).items():
            versions[name] = version
            sums.setdefault(name, set()).add(f"--hash=sha256:{digest}")
    lines = [f"{name}=={versions[name]} {' '.join(sorted(sums[name]))}\n" for name in sorted(sums)]
    return HEAD.format(pythons=" and ".join(f"3.{each}" for each in pythons)) + "".join(lines)


def main() -> int:
    """Write lock.txt for the Pythons of all targets."""
    pythons = sorted({target.python for target in build.TARGETS.values()})
    build.LOCK.write_text(lock(pythons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
