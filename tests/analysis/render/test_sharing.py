"""The words of the matrix: widths, the page between its markers, and what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from porttrace.analysis.render import sharing
from sharing_trials import obedient

UDP = obedient("udp")


def test_the_tables_fit_a_terminal() -> None:
    text = sharing.text([*obedient("tcp"), *UDP])
    assert max(map(len, text.splitlines())) <= 80
    assert "  REUSEPORT       no    no         one user   one user\n" in text
    assert "  D [::]          no   yes  yes  no  no   no   yes  yes\n" in text


def test_a_table_of_markdown_has_a_line_for_each_row() -> None:
    lines = sharing.markdown(UDP).splitlines()
    at = lines.index("| first \\ second | none | REUSEADDR | REUSEPORT | both |")
    assert lines[at + 1] == "| --- | --- | --- | --- | --- |"
    assert lines[at + 3] == "| REUSEADDR | no | yes | no | yes |"


def test_a_page_keeps_what_stands_around_its_markers() -> None:
    page = f"# Ports\n\n{sharing.BEGIN}\nold\n{sharing.END}\n\nmore\n"
    new = sharing.between_markers(page, "tables")
    assert new == f"# Ports\n\n{sharing.BEGIN}\n\ntables\n\n{sharing.END}\n\nmore\n"
    assert sharing.between_markers(new, "tables") == new


@pytest.mark.parametrize(
    "page",
    [
        "no markers",
        sharing.BEGIN,
        f"{sharing.END}{sharing.BEGIN}",
        f"{sharing.BEGIN}{sharing.BEGIN}{sharing.END}",
        f"{sharing.BEGIN}{sharing.END}{sharing.END}",
    ],
)
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        sharing.between_markers(page, "tables")


def test_a_first_socket_that_cannot_go_on_is_named() -> None:
    stuck = replace(obedient("tcp")[0], errno=None, first_errno=98)
    assert "the first cannot go on, EADDRINUSE, by rule" in sharing.difference(stuck)


def test_what_differs_is_named_with_what_the_rules_say() -> None:
    first = UDP[0]
    wrong = [replace(trial, errno=0) if trial.errno else trial for trial in UDP]
    lines = sharing.verdict(wrong, most=2).splitlines()
    assert lines[0] == (
        "udp bind: first 0.0.0.0, options none, user 60001, bound; second 0.0.0.0, options none, "
        "user 60001: works, by rule EADDRINUSE: 0.0.0.0:2000 is bound to the port, and neither "
        "socket has set an option for sharing."
    )
    differ = sum(trial.errno != 0 for trial in UDP)
    assert lines[2] == f"... and {differ - 2:,} more" and f" {differ:,} differ " in lines[-1]
    counted = [line.split(" differ: ", 1) for line in lines[3:-1]]
    assert sum(int(count.replace(",", "")) for count, _ in counted) == differ
    assert "udp, first [::] to IPv4, second 0.0.0.0" in {where for _, where in counted}
    assert first.errno and sharing.verdict(UDP).endswith(" 0 differ from the rules.")
