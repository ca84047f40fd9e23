"""Loading and attaching by trying: what a kernel refuses is left out, or the mode is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from porttrace.tracer.compiler import Compiler
from porttrace.tracer.hooks import MAX_RETURNS, MODES, hooks_of
from porttrace.tracer.program import NO_WIRE, Program, Refused, load
from porttrace.tracer.shelf import Shelf

FLAGS = [
    "-DGATE", "-DHAVE_ERROR_REPORT", "-DWIRE", "-DHAVE_DROP_REASON", "-DBINDS", "-DMOVES",
]  # fmt: skip


class FakeBpf:
    """bcc's class as far as loading goes; `refuses` decides what the kernel will not have."""

    TRACEPOINT, KPROBE, TRACING, SOCKET_FILTER, RAW_TRACEPOINT = 5, 2, 26, 1, 17
    module = ""  # what this bcc puts between its prefix and the function's name
    compiled: ClassVar[list[list[str]]]
    refuses: ClassVar[dict[str, Any]]

    def __init__(self, text: bytes, cflags: list[str]) -> None:
        self.cflags = cflags
        type(self).compiled.append(cflags)
        for word, unless in self.refuses.get("compile", {}).items():
            if unless not in cflags if unless.startswith("-D") else True:
                raise RuntimeError(f"error: implicit declaration of function '{word}'")
        self.attached: list[tuple[Any, ...]] = []
        self.cleaned = False

    def load_func(self, name: str, kind: int) -> Any:
        if "func__" in name and ("vmlinux__" in name) != bool(self.module):
            raise Exception(f"Unknown program {name}")
        if self.refuses.get(name, lambda flags: False)(self.cflags):
            raise Exception(f"Failed to load BPF program {name}: Invalid argument")
        return SimpleNamespace(fd=7)

    def attach_tracepoint(self, tp: str, fn_name: str) -> None:
        self._attach("tracepoint", tp)

    def attach_raw_tracepoint(self, tp: bytes, fn_name: bytes) -> None:
        self._attach("raw", tp.decode(), fn_name.decode())

    def attach_kfunc(self, fn_name: str) -> None:
        self._attach("fentry", fn_name)

    def attach_kretfunc(self, fn_name: str) -> None:
        self._attach("fexit", fn_name)

    def attach_kprobe(self, event: str, fn_name: str) -> None:
        self._attach("kprobe", event)

    def attach_kretprobe(self, event: str, fn_name: str, maxactive: int) -> None:
        self._attach("kretprobe", event, maxactive)

    def _attach(self, *what: Any) -> None:
        if what[1] in self.refuses.get("attach", ()):
            raise Exception("Failed to attach")
        self.attached.append(what)

    def cleanup(self) -> None:
        self.cleaned = True


def bpf(**refuses: Any) -> type[FakeBpf]:
    return type("Bpf", (FakeBpf,), {"compiled": [], "refuses": refuses})


def compiler(kind: type[FakeBpf]) -> Compiler:
    """A compiler that keeps nothing."""
    return Compiler(None, kind, Shelf(Path("/proc/nowhere")))


def loaded(mode: str, kind: type[FakeBpf]) -> Program:
    return load(compiler(kind), "text", FLAGS, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_willing_kernel_gets_every_hook_at_the_first_try(mode: str) -> None:
    kind = bpf()
    program = loaded(mode, kind)
    program.attach()
    assert len(kind.compiled) == 1 and "-DHAVE_TASK_REGS" in kind.compiled[0]
    assert (f"-D{mode.upper()}" in kind.compiled[0]) == (mode != "tracepoint")
    assert len(program.bpf.attached) == len(hooks_of(mode)) and program.missing == []


def loaded_raw(kind: type[FakeBpf]) -> Program:
    program = load(compiler(kind), "text", [*FLAGS, "-DHAVE_SOCK"], "tracepoint")
    program.attach()
    return program


def test_raw_tracepoints_are_taken_where_sockets_are_described() -> None:
    program = loaded_raw(bpf())
    raw = [what for what in program.bpf.attached if what[0] == "raw"]
    assert ("raw", "inet_sock_set_state", "on_set_state_raw") in raw and len(raw) == 5
    assert ("tracepoint", "sock:inet_sock_set_state") not in program.bpf.attached
    assert len(program.bpf.attached) == len(hooks_of("tracepoint")) and program.missing == []


@pytest.mark.parametrize(
    "refuses",
    [{"on_set_state_raw": lambda _: True}, {"attach": ("inet_sock_set_state",)}],
    ids=["load", "attach"],
)
def test_the_classic_tracepoint_is_taken_where_the_raw_one_is_refused(refuses: Any) -> None:
    program = loaded_raw(bpf(**refuses))
    kinds = {what[1]: what[0] for what in program.bpf.attached}
    assert kinds["sock:inet_sock_set_state"] == "tracepoint"
    assert kinds["tcp_receive_reset"] == "raw"
    assert "on_set_state" in program.names.values() and program.missing == []


def test_a_signal_in_the_middle_of_loading_is_no_refusal() -> None:
    class Interrupted(FakeBpf):
        compiled: ClassVar[list[list[str]]] = []
        refuses: ClassVar[dict[str, Any]] = {}
        times = 2

        def load_func(self, name: str, kind: int) -> Any:
            if name == "on_connect_enter" and type(self).times:
                type(self).times -= 1
                raise Exception(f"Failed to load {name}: Resource temporarily unavailable")
            return super().load_func(name, kind)

    assert loaded("tracepoint", Interrupted).missing == [] and Interrupted.times == 0


def test_without_the_wire_all_else_goes_on() -> None:
    assert loaded("tracepoint", bpf()).wire_fd == 7
    program = loaded("tracepoint", bpf(on_packet=lambda _: True))
    assert program.wire_fd == -1 and program.missing == [NO_WIRE]
    program.attach()
    quiet = load(compiler(bpf()), "text", ["-DHAVE_ERROR_REPORT"], "tracepoint")
    assert quiet.wire_fd == -1 and quiet.missing == []


def test_accept_may_be_waited_in_by_thousands() -> None:
    program = loaded("kprobe", bpf())
    program.attach()
    assert ("kretprobe", "inet_csk_accept", MAX_RETURNS) in program.bpf.attached


def test_a_newer_bcc_names_programs_after_the_module_too() -> None:
    kind = bpf()
    kind.module = "vmlinux__"
    program = loaded("fentry", kind)
    assert "kfunc__vmlinux__tcp_v4_connect" in program.names.values()


def test_without_the_helper_for_registers_the_gate_is_told_by_stacks() -> None:
    kind = bpf(on_switch=lambda flags: "-DHAVE_TASK_REGS" in flags)
    program = loaded("tracepoint", kind)
    assert len(kind.compiled) == 2 and "-DHAVE_TASK_REGS" not in program.flags
    assert program.missing == []


def test_a_bcc_that_does_not_know_the_helper_is_no_obstacle() -> None:
    class Old(FakeBpf):
        compiled: ClassVar[list[list[str]]] = []
        refuses: ClassVar[dict[str, Any]] = {}

        def __init__(self, text: bytes, cflags: list[str]) -> None:
            super().__init__(text, cflags)
            if "-DHAVE_TASK_REGS" in cflags:
                raise RuntimeError("use of undeclared identifier 'bpf_task_pt_regs'")

    assert "-DHAVE_TASK_REGS" not in load(compiler(Old), "text", FLAGS, "kprobe").flags


@pytest.mark.parametrize("arguments", [4, 2])
def test_the_result_of_accept_is_found_behind_its_arguments(arguments: int) -> None:
    # GIVEN a kernel without the helper, whose verifier takes only the right place
    right = f"-DFENTRY_RESULT_AT={arguments}"
    program = loaded("fentry", bpf(kretfunc__inet_csk_accept=lambda flags: right not in flags))
    assert right in program.flags and program.missing == []


def test_accepts_can_be_spared_and_say_what_is_lost() -> None:
    program = loaded("fentry", bpf(kretfunc__inet_csk_accept=lambda _: True))
    assert program.mode == "fentry" and program.missing == [
        "when connections are accepted is not seen"
    ]


def test_ipv6_may_be_a_module_that_is_not_there() -> None:
    program = loaded("kprobe", bpf(attach=("tcp_v6_connect",)))
    program.attach()
    assert ("kprobe", "tcp_v4_connect") in program.bpf.attached
    assert set(program.missing) == {
        "connects by IPv6 that do not pass connect(2) are not seen when they fail at once"
    }


def test_a_mode_whose_main_hook_is_refused_is_refused() -> None:
    with pytest.raises(Refused, match="tcp_v4_connect could not be loaded"):
        loaded("fentry", bpf(kfunc__tcp_v4_connect=lambda _: True))
    program = loaded("kprobe", bpf(attach=("tcp_v4_connect",)))
    with pytest.raises(Refused, match="cannot attach to the kretprobe tcp_v4_connect"):
        program.attach()


def test_a_program_that_does_not_compile_says_the_first_errors() -> None:
    with pytest.raises(Refused, match="could not be compiled: error: implicit") as caught:
        loaded("tracepoint", bpf(compile={"bpf_nothing": "always"}))
    assert "bpf_nothing" in caught.value.messages


def test_what_was_loaded_is_unloaded_when_the_mode_is_refused() -> None:
    made: list[FakeBpf] = []

    class Remembered(FakeBpf):
        compiled: ClassVar[list[list[str]]] = []
        refuses: ClassVar[dict[str, Any]] = {"on_connect_enter": lambda _: True}

        def __init__(self, text: bytes, cflags: list[str]) -> None:
            super().__init__(text, cflags)
            made.append(self)

    with pytest.raises(Refused):
        load(compiler(Remembered), "text", FLAGS, "tracepoint")
    assert [each.cleaned for each in made] == [True]
