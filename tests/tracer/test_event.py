"""The dtype is the C compiler's struct, and a declaration that cannot be read is named."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.event import EVENT, EventType, Flag, no_events, parse_enum, parse_struct
from porttrace.tracer.layout import EVENT_H

TEXT = EVENT_H.read_text()
TYPES = "".join(
    f"typedef {'unsigned' if name[0] == 'u' else 'signed'} {ctype} {name};\n"
    for name, ctype in (
        ("u8", "char"),
        ("u16", "short"),
        ("u32", "int"),
        ("u64", "long long"),
        ("s32", "int"),
    )
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the C compiler makes of event.h: offsets and sizes by field, enum values by name."""
    if shutil.which("gcc") is None and "CI" not in os.environ:
        pytest.skip("gcc is not installed: the C compiler cannot be asked for the offsets")
    folder = tmp_path_factory.mktemp("event")
    lines = ['say("size", sizeof(struct event), _Alignof(struct event));']
    for name in EVENT.names or ():
        member = f"((struct event *)0)->{name}"
        lines.append(f'say("{name}", offsetof(struct event, {name}), sizeof({member}));')
    for prefix, members in (("EVENT_", EventType), ("FLAG_", Flag)):
        lines += [f'say("{prefix}{m.name}", {prefix}{m.name}, 0);' for m in members]
    (folder / "main.c").write_text(
        f"#include <stdio.h>\n#include <stddef.h>\n{TYPES}"
        f'#include "{EVENT_H}"\n'
        '#define say(name, a, b) printf("%s %ld %ld\\n", name, (long)(a), (long)(b))\n'
        f"int main(void) {{ {' '.join(lines)} }}\n"
    )
    build = ["gcc", "-Wall", "-Werror", "-o", str(folder / "main"), str(folder / "main.c")]
    subprocess.run(build, check=True)
    said = subprocess.run([folder / "main"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        name, first, second = line.split()
        found[name], found[f"{name} 2"] = int(first), int(second)
    return found


def place(dtype: np.dtype[np.void], name: str) -> tuple[int, int]:
    """Return size and offset of a field."""
    assert dtype.fields is not None
    return dtype.fields[name][0].itemsize, int(dtype.fields[name][1])


def test_offsets_and_sizes_are_the_compilers(compiled: dict[str, int]) -> None:
    assert (EVENT.itemsize, EVENT.alignment) == (compiled["size"], compiled["size 2"])
    for name in EVENT.names or ():
        size, offset = place(EVENT, name)
        assert (name, offset, size) == (name, compiled[name], compiled[f"{name} 2"])


def test_enums_are_the_compilers(compiled: dict[str, int]) -> None:
    values = {f"EVENT_{m.name}": m.value for m in EventType}
    values |= {f"FLAG_{m.name}": m.value for m in Flag}
    assert {name: compiled[name] for name in values} == values
    assert (EventType.START, Flag.IN_CONNECT) == (1, 1)


def test_no_name_is_left_out() -> None:
    declared = TEXT.count("\tEVENT_") + TEXT.count("\tFLAG_")
    assert declared == len(EventType) + len(Flag)


def test_padding_is_explicit() -> None:
    assert sum(place(EVENT, name)[0] for name in EVENT.names or ()) == EVENT.itemsize


def test_names_end_at_the_first_nul_and_addresses_do_not() -> None:
    row = np.zeros(1, EVENT)
    row["comm"], row["saddr"] = b"curl", b"\x01" + bytes(15)
    assert bytes(row["comm"][0]) == b"curl"
    assert row["saddr"][0].tobytes() == b"\x01" + bytes(15)


def test_no_events_are_an_empty_array() -> None:
    assert (len(no_events()), no_events().dtype) == (0, EVENT)


def declaration(*lines: str) -> str:
    return "#define LEN 16\nstruct event {\n" + "".join(f"\t{line}\n" for line in lines) + "};\n"


def test_a_declaration_becomes_a_dtype() -> None:
    dtype = parse_struct(
        declaration(
            "u8 kind;\t/* a */",
            "u64 at;\t/* b */",
            "char name[LEN];\t/* c */",
            "u8 pad[3];\t/* d */",
        )
    )
    assert [place(dtype, name)[1] for name in ("kind", "at", "name", "pad")] == [
        0,
        8,
        16,
        32,
    ]
    assert dtype.itemsize == 40


@pytest.mark.parametrize(
    "line",
    [
        "u8 kind;",  # no comment
        "u8 kind;\t/* not closed",
        "u8 kind, other;\t/* two */",
        "s64 at;\t/* unknown type */",
        "char name;\t/* a name without a length */",
        "char name[OTHER];\t/* a length that is defined nowhere */",
        "char name[0];\t/* no bytes */",
        "u16 words[2];\t/* an array of what is no byte */",
        "struct x y;\t/* nested */",
        "",
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(PorttraceError) as raised:
        parse_struct(declaration("u8 fine;\t/* fine */", line))
    assert repr(line) in raised.value.message
    assert str(EVENT_H) in raised.value.message


def test_a_name_twice_is_an_error() -> None:
    with pytest.raises(PorttraceError, match="struct event"):
        parse_struct(declaration("u8 a;\t/* one */", "u8 a;\t/* two */"))


def test_a_missing_block_is_an_error_with_a_hint() -> None:
    for text in ("", "struct event {\n\tu8 a;\t/* never closed */\n", TEXT.replace("event", "x")):
        with pytest.raises(PorttraceError, match="no 'struct event'") as raised:
            parse_struct(text)
        assert raised.value.hint


def test_a_constant_that_cannot_be_read_is_named() -> None:
    good = "enum kind {\n\tKIND_A = 1,\t/* a */\n};\n"
    assert parse_enum(good, "kind") == {"A": 1}
    with pytest.raises(PorttraceError, match="KIND_A = 1 << 3"):
        parse_enum(good.replace("1", "1 << 3"), "kind")
    with pytest.raises(PorttraceError, match="no 'enum other'"):
        parse_enum(good, "other")


_WORDS = st.sampled_from(
    [
        "u8",
        "u64",
        "char",
        "x",
        "[LEN]",
        "[3]",
        "[99999999999]",
        ";",
        "\t",
        " ",
        "/* c */",
        "\n",
        "};",
    ]
)
_LINES = st.lists(_WORDS, max_size=9).map("".join) | st.text(max_size=30)


@given(st.lists(_LINES, max_size=6), st.text(max_size=40) | st.just("#define LEN " + "9" * 5000))
@example(["u8 a[LEN];\t/* c */"], "#define LEN " + "9" * 5000)
def test_no_text_raises_anything_else(lines: list[str], before: str) -> None:
    text = f"{before}\n{declaration(*lines)}"
    for parse in (parse_struct, lambda text: parse_enum(text, "event")):
        try:
            parse(text)
        except PorttraceError as error:
            assert str(EVENT_H) in error.message


@given(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)), st.text(max_size=3))
def test_no_edit_of_the_real_declaration_raises_anything_else(a: int, b: int, new: str) -> None:
    text = TEXT[: min(a, b)] + new + TEXT[max(a, b) :]
    try:
        parse_struct(text)
        parse_enum(text, "event_type")
    except PorttraceError as error:
        assert str(Path(EVENT_H)) in error.message
