"""CSV that every reader reads, and that no spreadsheet computes."""

import csv as standard
import io

import pandas as pd
import pytest

from builders import events
from porttrace.analysis import tables
from porttrace.analysis.export.csv import csv, guarded
from traces import trace_of


def text(frame: pd.DataFrame, on_terminal: bool = False) -> str:
    return b"".join(csv(frame, on_terminal)).decode()


def attempts(comm: bytes) -> pd.DataFrame:
    return tables.attempts(trace_of(events().connect(comm=comm).syn_sent().refused().array()))


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_guarded(begin: str) -> None:
    assert guarded(f"{begin}cmd") == f"'{begin}cmd"
    (row,) = standard.DictReader(io.StringIO(text(attempts(f"{begin}1+1".encode())), newline=""))
    assert row["comm"] == f"'{begin}1+1"


@pytest.mark.parametrize("harmless", ["", "web", "a=b", "'=1", "1-1"])
def test_other_text_stays(harmless: str) -> None:
    assert guarded(harmless) == harmless


def test_negative_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"fd": [-1], "ns": pd.array([None], "Int64"), "x": [-0.5]})
    assert text(frame) == "fd,ns,x\r\n-1,,-0.5\r\n"


def test_plain_text_columns_are_guarded_too() -> None:
    assert text(pd.DataFrame({"a": ["=1", "b"]})) == "a\r\n'=1\r\nb\r\n"


def test_quotes_commas_and_lines_as_in_rfc_4180() -> None:
    comm = b'a",\r\nb'
    written = text(attempts(comm))
    assert written.count('"a"",\r\nb"') == 1
    (row,) = standard.DictReader(io.StringIO(written, newline=""))
    assert row["comm"] == comm.decode()


def test_pandas_reads_it_back() -> None:
    frame = attempts(b"web")
    read = pd.read_csv(io.StringIO(text(frame)))
    assert read.columns.tolist() == frame.columns.tolist()
    assert read["call_ns"].tolist() == frame["call_ns"].tolist()
    assert read["gate_ns"].isna().all()


def test_on_a_terminal_nothing_acts() -> None:
    assert "\x1b" in text(attempts(b"\x1b[2J"))
    shown = text(attempts(b"\x1b[2J\r"), on_terminal=True)
    assert "\\x1b[2J\\x0d" in shown
    assert shown.replace("\r\n", "").isprintable()


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"n": range(10)})
    whole = text(frame)
    monkeypatch.setattr("porttrace.analysis.export.csv._CHUNK", 3)
    assert text(frame) == whole
