"""What pages show as the output of a command on a recording of the repository is its output."""

import re

from pages import ROOT
from tracing import run


def test_the_verdict_page_shows_a_real_report() -> None:
    report = run("report", str(ROOT / "tests" / "data" / "v1-storm.ptrace"), timeout_s=120)
    blocks = re.findall(
        r"^```\n(.*?)^```$", (ROOT / "docs" / "verdict.md").read_text(), re.M | re.S
    )
    assert len(blocks) >= 8
    for block in blocks:
        assert block in report.stdout, block
