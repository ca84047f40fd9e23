"""What an image is made of: all that the package needs, by the list that leaves it in."""

import re
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def test_the_image_gets_every_part_of_the_package() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    licences = {pattern.split("/")[0] for pattern in project["project"]["license-files"]}
    needed = folders | licences | {"pyproject.toml", project["project"]["readme"]}
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == needed
    assert "*" in ignored


def test_the_image_has_the_packages_that_setup_installs_for_tracing() -> None:
    words = set((CHECKOUT / "Containerfile").read_text().split())
    setup = (CHECKOUT / "scripts" / "setup").read_text()
    for package in ("python3-bpfcc", "python3-venv"):
        assert package in words
        assert re.search(rf"\b{package}\b", setup)
