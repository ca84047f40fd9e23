"""Manual pages: one a command, clean in three readers, with text as it stands in the help."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from packages import manpages
from porttrace.cli import COMMANDS

CHECKOUT = Path(__file__).parent.parent.parent
PAGES = manpages.pages()
READERS = {
    # what man(1) itself says of a page, at the usual width and at a narrow one
    "man": ("man", "--warnings=w", "-E", "ascii", "-l"),
    "mandoc": ("mandoc", "-Tlint", "-W", "warning"),
    "groff": ("groff", "-man", "-ww", "-z", "-Tascii"),
}


def rendered(page: str, tmp_path: Path) -> str:
    path = tmp_path / "page.1"
    path.write_text(page)
    done = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=400", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.sub(r".\x08", "", done.stdout)  # bold is struck over


@pytest.fixture(autouse=True)
def _readers_at_hand() -> None:
    missing = [name for name in READERS if not shutil.which(name)]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs {', '.join(missing)}: scripts/setup packages")
    assert not missing


def test_every_command_has_a_page() -> None:
    from porttrace.cli.lab import lab

    below = {f"porttrace-{name}.1" for name in COMMANDS}
    lab_pages = {f"porttrace-lab-{name}.1" for name in lab.commands}
    assert set(PAGES) == {"porttrace.1"} | below | lab_pages


@pytest.mark.parametrize("reader", READERS)
def test_readers_find_nothing_wrong(reader: str, tmp_path: Path) -> None:
    files = manpages.write(tmp_path)
    for width in ("80", "50"):
        done = subprocess.run(
            [*READERS[reader], *files],
            capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": width},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        # lint goes to standard output; what man prints there is the page itself
        said = done.stderr + ("" if reader == "man" else done.stdout)
        assert not said


def test_a_reader_would_find_what_is_wrong(tmp_path: Path) -> None:
    # GIVEN a page with a request that is none
    bad = tmp_path / "bad.1"
    bad.write_text(PAGES["porttrace.1"].replace(".SH NAME", ".nosuchrequest\n.SH NAME"))
    # THEN each reader says so
    for reader, words in READERS.items():
        done = subprocess.run([*words, bad], capture_output=True, text=True, check=False)
        assert re.search("nosuchrequest", done.stdout + done.stderr), reader


def test_options_and_examples_are_those_of_the_help(tmp_path: Path) -> None:
    from porttrace.cli.live import live

    text = rendered(PAGES["porttrace-live.1"], tmp_path)
    for option in live.params:
        if isinstance(option, click.Option):
            assert all(word in text for word in option.opts), option.name
            assert " ".join((option.help or "").split()) in " ".join(text.split())
    assert "sudo porttrace --json -- curl http://192.0.2.2/" in text
    assert "-h, --help" in text


def test_paragraphs_that_click_leaves_alone_keep_their_lines(tmp_path: Path) -> None:
    lines = [line.strip() for line in rendered(PAGES["porttrace-export.1"], tmp_path).splitlines()]
    assert "parquet   attempts; beside OUT: x.binds.parquet, x.events.parquet" in lines


@pytest.mark.parametrize(
    "text", [".so /etc/passwd", "'tis", r"a\nb\(aq", '--x ^~` "q"', "...", "\u2026"]
)
def test_text_is_never_read_as_a_request(text: str, tmp_path: Path) -> None:
    page = f".TH X 1 1970-01-01\n.SH NAME\nx \\- y\n.SH TEXT\n{manpages.quote(text)}\n"
    lines = [line.strip() for line in rendered(page, tmp_path).splitlines()]
    assert text.replace("\u2026", "...") in lines


def test_the_same_date_gives_the_same_bytes(tmp_path: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1763683200"}
    for run in ("one", "two"):
        subprocess.run(
            [sys.executable, "-m", "packages.manpages", tmp_path / run],
            env=environment, cwd=CHECKOUT, check=True,
        )  # fmt: skip
    for name in PAGES:
        page = (tmp_path / "one" / name).read_bytes()
        assert b'"2025-11-21"' in page
        assert page == (tmp_path / "two" / name).read_bytes()
