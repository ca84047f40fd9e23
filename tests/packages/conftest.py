"""Wheel and packages as scripts/package makes them, once for all tests."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from packages import build

CHECKOUT = Path(__file__).parent.parent.parent


def made(*words: str) -> list[Path]:
    """Run scripts/package as whoever owns the checkout; return the files that it names."""
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    as_owner: tuple[str, ...] = ()
    if os.geteuid() == 0 and (uid := CHECKOUT.stat().st_uid) != 0:
        owner = pwd.getpwuid(uid)
        as_owner = ("runuser", "-u", owner.pw_name, "--")
        environment["HOME"] = owner.pw_dir
    done = subprocess.run(
        [*as_owner, CHECKOUT / "scripts" / "package", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True, env=environment,
    )  # fmt: skip
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel, in dist/."""
    [file] = made("wheel")
    return file


@pytest.fixture(scope="session")
def packages() -> dict[str, Path]:
    """Every package by its target, in dist/, and the `wheel`."""
    return dict(zip(("wheel", *build.TARGETS), made(), strict=True))
