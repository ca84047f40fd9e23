"""Recordings of every format stay readable, and say what they always said.

tests/data/README.md tells where they come from. After a change that is meant to change what is
found, write the new text with

    .venv/bin/python tests/test_golden.py
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from porttrace.analysis import bind_names, tables
from porttrace.analysis.model import Finding
from porttrace.analysis.recording import Recording, load

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("v*-*.ptrace"))
_BIND = ("comm", "call", "protocol", "local", "port_got", "error", "options", "netns")
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def told(recording: Recording) -> str:
    """Return what must not change: attempts, binds, then the findings without their wording."""
    binds = [*_binds(recording)]
    parts = (*_attempts(recording), "", *binds, *[""] * bool(binds), *_findings(recording), "")
    return "\n".join(parts)


def _attempts(recording: Recording) -> Iterator[str]:
    for row in tables.attempts(recording.trace).itertuples(index=False):
        yield (
            f"{row.attempt_id} {row.comm} {row.destination} {row.outcome} errno={row.errno} "
            f"resent={row.retransmits} held_ns={row.held_ns} took_ns={row.wait_beyond_ns} "
            f"in_flight={row.in_flight_at_start} demand={row.demand_at_start}"
        )


def _binds(recording: Recording) -> Iterator[str]:
    trace = recording.trace
    rows = tables.binds(trace)[[*_BIND]].itertuples(index=False, name=None)
    for row, each in zip(rows, trace.binds, strict=True):
        looked = bind_names.looked(trace, each)
        holders = [f"{who.kind}/{who.pid}/{who.user}" for who in looked.holders] if looked else []
        told = [f"{name}={value}" for name, value in zip(_BIND, row, strict=True)]
        yield f"{' '.join(told)} holders={','.join(holders) or '-'}"


def _findings(recording: Recording) -> Iterator[str]:
    for each in recording.findings:
        yield (
            f"{each.severity} {each.rule} place={each.place or '-'} scope={each.scope or '-'} "
            f"slots={each.slots} victims={len(each.victims)} blockers={len(each.blockers)} "
            f"suspects={','.join(suspect.kind for suspect in each.suspects) or '-'}{_port(each)}"
        )


def _port(finding: Finding) -> str:
    if "port" not in finding.subject:
        return ""
    return f" port={finding.subject['port']} kind={finding.evidence.get('kind', '-')}"


def test_there_are_some() -> None:
    assert len(FILES) >= 4


@each_file
def test_it_says_what_it_always_said(path: Path) -> None:
    recording = load(path)
    assert recording.complete
    assert told(recording) == path.with_suffix(".txt").read_text()


@each_file
def test_it_is_small_and_explained(path: Path) -> None:
    assert path.stat().st_size < 50_000
    assert f"`{path.name}`" in (DATA / "README.md").read_text()


if __name__ == "__main__":
    for file in FILES:
        file.with_suffix(".txt").write_text(told(load(file)))
