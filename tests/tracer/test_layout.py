"""What the kernel program is built from is really there."""

from porttrace.tracer.layout import BPF_DIR, EVENT_H, KERNEL_TREE, ROOF


def test_the_sources_are_there() -> None:
    assert EVENT_H.is_file()
    assert ROOF.is_file()
    assert (KERNEL_TREE / "include" / "linux" / "types.h").is_file()
    assert {EVENT_H.parent, ROOF.parent, KERNEL_TREE.parent} == {BPF_DIR}
