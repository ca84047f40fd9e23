"""The joined text holds every header once, and the compiler still names the real file."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.layout import BPF_DIR, ROOF
from porttrace.tracer.source import join_source


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder / "main.c"


def test_a_header_stands_in_the_place_of_its_include(tmp_path: Path) -> None:
    main = write(tmp_path, main_c='first\n#include "a.h"\nlast\n', a_h="#pragma once\ninside\n")
    assert join_source(main).splitlines() == [
        '#line 1 "main.c"',
        "first",
        '#line 1 "a.h"',
        "",
        "inside",
        '#line 3 "main.c"',
        "last",
    ]


def test_each_header_comes_once(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main_c='#include "a.h"\n#include "b.h"\n#include "a.h"\n',
        a_h='#include "b.h"\nof_a\n',
        b_h='#include "a.h"\nof_b\n',
    )
    text = join_source(main)
    assert (text.count("of_a"), text.count("of_b"), text.count("#include")) == (1, 1, 0)


def test_system_headers_are_left_to_the_compiler(tmp_path: Path) -> None:
    main = write(tmp_path, main_c="#include <linux/types.h>\n")
    assert "#include <linux/types.h>" in join_source(main)


@pytest.mark.parametrize("text", ['#include "gone.h"\n', '#include "folder"\n'])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(PorttraceError, match=r"cannot read .*(gone\.h|folder)") as raised:
        join_source(write(tmp_path, main_c=text))
    assert raised.value.hint == "reinstall porttrace"


def test_the_compiler_names_the_real_line(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no compiler can be asked")
    main = write(
        tmp_path, main_c='int x;\n#include "a.h"\nint y = gone;\n', a_h="\n\nint z = oops;\n"
    )
    build = ["gcc", "-fsyntax-only", "-xc", "-"]
    done = subprocess.run(
        build, input=join_source(main), capture_output=True, text=True, check=False
    )
    assert re.findall(r"^(\S+:\d+):\d+: error", done.stderr, re.M) == ["a.h:3", "main.c:3"]


def test_the_programs_own_sources_are_complete() -> None:
    text = join_source(ROOF)
    assert '#include "' not in text
    assert "struct event {" in text
    joined = set(re.findall(r'^#line 1 "(.+)"$', text, re.M))
    assert joined == {path.name for path in [*BPF_DIR.glob("*.c"), *BPF_DIR.glob("*.h")]}
