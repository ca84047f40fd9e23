"""docs/trace-format.md says what a recording holds, and its reader reads one."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from pages import ROOT, tables
from porttrace.tracer.columns import fields
from porttrace.tracer.event import EVENT, EventType

PAGE = ROOT / "docs" / "trace-format.md"
GOLDEN = ROOT / "tests" / "data" / "v1-two-threads.ptrace"
TYPES = {"binary(16)": pa.binary(16), "dictionary of text": pa.dictionary(pa.int32(), pa.utf8())}


def test_it_names_every_column_and_its_type() -> None:
    told = [(name.strip("`"), kind) for name, kind, _ in tables(PAGE, "column")]
    assert [name for name, _ in told] == list(EVENT.names or ())
    for (_, kind), field in zip(told, fields(EVENT), strict=True):
        assert field.type == TYPES.get(kind, kind), field


def test_it_names_every_type_of_event() -> None:
    told = re.findall(r"`([A-Z]+)`", " ".join(row[0] for row in tables(PAGE, "type")))
    assert told == [each.name for each in EventType]


def test_its_reader_reads(tmp_path: Path) -> None:
    _, reader, _, output, *_ = re.split(r"^```.*\n", PAGE.read_text(), flags=re.M)
    assert len([line for line in reader.splitlines() if line]) <= 22
    (tmp_path / "reader.py").write_text(reader)
    # without porttrace: -I leaves the checkout out, and nothing of it is imported
    assert "porttrace." not in reader.replace("porttrace.analysis", "")
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "reader.py"), str(GOLDEN)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == output
