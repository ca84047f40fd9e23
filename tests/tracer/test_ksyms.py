"""Names of kernel functions by address, from what /proc/kallsyms says."""

from pathlib import Path

from porttrace.tracer.ksyms import UNKNOWN, KernelSymbols

TEXT = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000100 t inner_part
ffffffff81000180 d some_data
ffffffff81000200 W weak_one
ffffffffc0000000 t held_here\t[guard]
"""


def symbols(tmp_path: Path, text: str) -> KernelSymbols:
    path = tmp_path / "kallsyms"
    path.write_text(text)
    return KernelSymbols(path)


def test_an_address_lies_in_the_function_before_it(tmp_path: Path) -> None:
    known = symbols(tmp_path, TEXT)
    assert known.name(0xFFFFFFFF81000000) == "_stext"
    assert known.name(0xFFFFFFFF810000FF) == "_stext"
    assert known.name(0xFFFFFFFF810001FF) == "inner_part"  # data is no function
    assert known.name(0xFFFFFFFF81000203) == "weak_one"


def test_a_frame_of_a_module_carries_its_name(tmp_path: Path) -> None:
    assert symbols(tmp_path, TEXT).name(0xFFFFFFFFC0000010) == "held_here [guard]"


def test_what_the_kernel_does_not_show_has_no_name(tmp_path: Path) -> None:
    hidden = "\n".join("0" * 16 + line[16:] for line in TEXT.splitlines())
    assert symbols(tmp_path, hidden).name(0xFFFFFFFF81000000) == UNKNOWN
    assert KernelSymbols(tmp_path / "none").name(0xFFFFFFFF81000000) == UNKNOWN
    assert symbols(tmp_path, TEXT).name(0x1000) == UNKNOWN
