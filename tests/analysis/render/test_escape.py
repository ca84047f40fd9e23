"""No name acts on the terminal: whatever could is written out."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porttrace.analysis.render.escape import clipped, columns, json_line, padded, printable

ANY = st.text() | st.binary().map(lambda raw: raw.decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("curl", "curl"),
        ("", ""),
        ("Müller 日本", "Müller 日本"),
        ("a\\b", "a\\b"),
        ("\x1b[2Jboo", "\\x1b[2Jboo"),
        ("\x9b31m", "\\x9b31m"),
        ("line\nforged\r\t\0\x7f", "line\\x0aforged\\x0d\\x09\\x00\\x7f"),
        ("\u202etxt.exe\u2066", "\\u202etxt.exe\\u2066"),
        ("\u200bzero\u200d\ufeff", "\\u200bzero\\u200d\\ufeff"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        (b"\xff\xc3(".decode(errors="surrogateescape"), "\\xff\\xc3("),
        ("\ud800", "\\ud800"),
        ("\ue000\U000f0000", "\\ue000\\U000f0000"),
        ("\U000e0041", "\\U000e0041"),
        ("soft\xadhyphen", "soft\\xadhyphen"),
    ],
)
def test_what_acts_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY, st.sampled_from(["", "\ud800", "a\udcff"]))
def test_a_line_of_json_has_valid_text_only(text: str, more: str) -> None:
    line = json_line({"comm": text + more, "holders": [{"why": more}], "pid": 7, "none": None})
    read = json.loads(line)
    read["comm"].encode(), read["holders"][0]["why"].encode()  # raises on a lone surrogate
    assert (read["pid"], read["none"]) == (7, None)
    assert json.loads(json_line({"comm": "a\x1b\udcff💀"})) == {"comm": "a\x1b\\xff💀"}


def test_a_long_name_of_nothing_but_escapes() -> None:
    assert printable("\x1b" * 4096) == "\\x1b" * 4096


@given(ANY)
def test_nothing_unsafe_is_left(text: str) -> None:
    shown = printable(text)
    unsafe = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not unsafe & {unicodedata.category(char) for char in shown}
    assert printable(shown) == shown
    assert len(shown.splitlines()) <= 1
    shown.encode()


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("exactly", 7, "exactly"),
        ("a longer name", 7, "a long~"),
        ("\x1b\x1b", 5, "\\x1b~"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本~"),
        ("日本語", 4, "日~"),
        ("e\u0301" * 5, 5, "e\u0301" * 5),
        ("ab", 1, "~"),
    ],
)
def test_clipped(text: str, width: int, shown: str) -> None:
    assert clipped(text, width) == shown


def test_padded_counts_columns_and_not_characters() -> None:
    assert padded("日本", 7) == "日本   "
    assert padded("curl", 7) == "curl   "
    assert padded("a longer name", 7) == "a long~"


@given(ANY, st.integers(1, 40))
def test_the_width_is_kept(text: str, width: int) -> None:
    assert columns(clipped(text, width)) <= width
    assert columns(padded(text, width)) == width
    if columns(printable(text)) <= width:
        assert clipped(text, width) == printable(text)


def test_a_long_name_is_cut_at_once() -> None:
    assert clipped("日" * 200_000, 10) == "日日日日~"
