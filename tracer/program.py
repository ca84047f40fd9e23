"""The kernel program, compiled and loaded for one hook mode, with what this kernel lacks left out.

What can be left out is found by trying: each fallback belongs to one program or helper,
and is taken when that one is refused.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from porttrace.tracer.compiler import Compiler
from porttrace.tracer.features import find_tracefs
from porttrace.tracer.hooks import MAX_RETURNS, RAW_FLAG, Hook, hooks_of
from porttrace.tracer.kprobes import Definitions, definition_of, remove_leftovers
from porttrace.tracer.layout import KERNEL_TREE

# bcc names the programs at a function after it, and since 0.29 also after the module.
_FUNCTION_PROGRAMS = {
    "fentry": ("kfunc__vmlinux__", "kfunc__"),
    "fexit": ("kretfunc__vmlinux__", "kretfunc__"),
}
NO_WIRE = "the wire is not seen: what becomes of a SYN after it was sent is not told"
_LOAD_AGAIN = 5
_REGISTERS = "-DHAVE_TASK_REGS"
# Where inet_csk_accept has its result when no helper tells: behind its arguments, four of
# them before Linux 6.10 and two since. The kernel's verifier refuses a wrong one.
_RESULT_AT = ("-DFENTRY_RESULT_AT=4", "-DFENTRY_RESULT_AT=2")


class Refused(Exception):
    """A mode that this host does not allow: a short reason, and all that was printed."""

    def __init__(self, reason: str, messages: str = "", program: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.messages = messages
        self.program = program  # the one that could not be loaded, "" when none compiled


@dataclass
class Program:
    """Loaded, not attached. `missing` says what is lost by what had to be left out."""

    bpf: Any
    mode: str
    flags: list[str]
    hooks: list[Hook] = field(default_factory=list)
    names: dict[Hook, str] = field(default_factory=dict)  # of the program of each hook
    missing: list[str] = field(default_factory=list)
    wire_fd: int = -1  # of the socket filter; -1 where there is none
    definitions: Definitions | None = None  # of kprobes, where they are hooked

    def attach(self) -> None:
        """Attach every hook. Raises Refused when one fails that cannot be spared."""
        tracefs = find_tracefs() if self.mode == "kprobe" else None
        if tracefs:
            remove_leftovers(tracefs)
            with contextlib.suppress(OSError):
                self.definitions = Definitions(tracefs)
        for hook in self.hooks:
            with captured_stderr() as captured:
                try:
                    self._attach(hook)
                except Exception as error:
                    if not hook.cost:
                        where = f"the {hook.kind} {hook.event}"
                        raise Refused(
                            f"cannot attach to {where}: {error}", captured(), hook.program
                        ) from None
                    self.missing.append(hook.cost)

    def _attach(self, hook: Hook) -> None:
        name = self.names[hook]
        if name == hook.raw:
            with contextlib.suppress(Exception):
                event = hook.event.partition(":")[2]
                self.bpf.attach_raw_tracepoint(tp=event.encode(), fn_name=name.encode())
                return
            name = self.names[hook] = _load_one(self.bpf, hook)
        attach: dict[str, Callable[[], Any]] = {
            "tracepoint": lambda: self.bpf.attach_tracepoint(tp=hook.event, fn_name=name),
            "fentry": lambda: self.bpf.attach_kfunc(fn_name=name),
            "fexit": lambda: self.bpf.attach_kretfunc(fn_name=name),
            "kprobe": lambda: self.bpf.attach_kprobe(event=hook.event, fn_name=name),
            "kretprobe": lambda: self.bpf.attach_kretprobe(
                event=hook.event, fn_name=name, maxactive=MAX_RETURNS
            ),
        }
        attach[hook.kind]()

    def program_fds(self) -> list[int]:
        """Return the descriptor of every loaded program."""
        return [self.bpf.funcs[name.encode()].fd for name in set(self.names.values())]

    def close(self) -> None:
        """Detach and unload. Safe to call twice."""
        with contextlib.suppress(Exception):
            self._detach_together()
        with contextlib.suppress(Exception):
            self._detach_kprobes()
        with contextlib.suppress(Exception):
            self.bpf.cleanup()

    # Each waits until no CPU runs its program (tracepoint_synchronize_unregister). Together
    # they wait once; one after the other it takes most of a second.
    def _detach_together(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        events = list(self.bpf.tracepoint_fds)
        with ThreadPoolExecutor(max(1, len(events))) as pool:
            list(pool.map(self.bpf.detach_tracepoint, events))

    # bcc opens the kernel's list for each of them, which takes the rights that are dropped by now.
    def _detach_kprobes(self) -> None:
        if self.definitions is None:
            return
        for event, opened in list(self.bpf.kprobe_fds.items()):
            for fd in opened.values():
                os.close(fd)
            del self.bpf.kprobe_fds[event]
            self.definitions.remove(definition_of(event.decode()))
        self.definitions.close()


def load(compiler: Compiler, text: str, flags: list[str], mode: str) -> Program:
    """Compile and load the program for `mode`, or load what was compiled for it before.

    `flags` are the -D flags of what the host has. Raises Refused.
    """
    mode_flag = [] if mode == "tracepoint" else [f"-D{mode.upper()}"]
    registers, result_at = [_REGISTERS], iter(_RESULT_AT)
    result: list[str] = []
    while True:
        tried = [*flags, *mode_flag, *registers, *result]
        try:
            return _try(compiler, text, tried, mode)
        except Refused as refused:
            said = refused.program + refused.messages
            no_registers = bool(registers) and _about(said, "bpf_task_pt_regs", "on_switch")
            no_result = mode == "fentry" and _about(said, "bpf_get_func_ret", "inet_csk_accept")
            if not no_registers and not no_result:
                raise
            if no_registers:
                registers = []
            # bpf_get_func_ret is the younger helper: no need to fail for it once more
            if mode == "fentry" and (no_result or not result):
                result = [next(result_at)]


def _about(said: str, *names: str) -> bool:
    return any(name in said for name in names)


def _try(compiler: Compiler, text: str, flags: list[str], mode: str) -> Program:
    # bcc and clang write to descriptor 2: catch it there, show it only on failure.
    with captured_stderr() as captured:
        kept = compiler.revive(text, flags)
        if kept is not None:
            with contextlib.suppress(Refused):
                return _loaded(Program(kept, mode, flags))
        try:
            with _at_home():
                bpf = compiler.compile(text, flags)
        except Exception as error:
            messages = captured() + f"\n{error}"
            raise Refused(
                f"the kernel program could not be compiled: {_telling(messages)}", messages
            ) from None
        try:
            program = _loaded(Program(bpf, mode, flags))
        except Refused as refused:
            refused.messages += captured()
            raise
    compiler.keep(bpf, text, flags)
    return program


def _loaded(program: Program) -> Program:
    try:
        _load_all(program)
        _load_wire(program)
    except Refused:
        program.close()
        raise
    return program


@contextlib.contextmanager
def _at_home() -> Iterator[None]:
    """Work in the folder of our own headers.

    bcc lets the compiler look for headers in the current folder first: in that of somebody else
    root would compile his `linux/types.h` into the kernel program.
    """
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(KERNEL_TREE)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _load_all(program: Program) -> None:
    for hook in hooks_of(program.mode):
        if hook.chosen and hook.chosen not in program.flags:
            continue
        if hook.flag and hook.flag not in program.flags:
            program.missing.append(hook.cost)
            continue
        try:
            program.names[hook] = _load_raw(program, hook) or _load_one(program.bpf, hook)
        except Exception as error:
            if not hook.cost or _has_another_way(hook, program.flags):
                name = hook.program or hook.event
                raise Refused(
                    f"the program {name} could not be loaded: {error}", "", name
                ) from None
            program.missing.append(hook.cost)
            continue
        program.hooks.append(hook)


# Nothing that is watched depends on the wire: where it cannot be seen, all else goes on.
def _load_wire(program: Program) -> None:
    if "-DWIRE" in program.flags:
        try:
            loaded = program.bpf.load_func("on_packet", program.bpf.SOCKET_FILTER)
            program.wire_fd = loaded.fd
        except Exception:
            program.missing.append(NO_WIRE)


def _has_another_way(hook: Hook, flags: list[str]) -> bool:
    # Compiled otherwise, the program may do without what this kernel lacks.
    if hook.program == "on_switch":
        return _REGISTERS in flags
    return hook.kind == "fexit" and hook.event == "inet_csk_accept" and _RESULT_AT[-1] not in flags


def _load_raw(program: Program, hook: Hook) -> str:
    # "" where there is none, or where this kernel (or bcc) has no raw tracepoints.
    if hook.raw and RAW_FLAG in program.flags:
        with contextlib.suppress(Exception):
            _load_func(program.bpf, hook.raw, program.bpf.RAW_TRACEPOINT)
            return hook.raw
    return ""


def _load_one(bpf: Any, hook: Hook) -> str:
    if hook.kind in _FUNCTION_PROGRAMS:
        return _load_function_program(bpf, hook)
    kind = bpf.TRACEPOINT if hook.kind == "tracepoint" else bpf.KPROBE
    _load_func(bpf, hook.program, kind)
    return hook.program


# A signal ends the kernel's check of a program with EAGAIN (bpf_check in kernel/bpf/verifier.c).
def _load_func(bpf: Any, name: str, kind: int) -> None:
    for _ in range(_LOAD_AGAIN):
        try:
            bpf.load_func(name, kind)
        except Exception as error:
            if os.strerror(errno.EAGAIN) not in str(error):
                raise
        else:
            return
    bpf.load_func(name, kind)


def _load_function_program(bpf: Any, hook: Hook) -> str:
    for prefix in _FUNCTION_PROGRAMS[hook.kind]:
        name = prefix + hook.event
        try:
            _load_func(bpf, name, bpf.TRACING)
        except Exception as error:
            if "Unknown program" not in str(error):
                raise
        else:
            return name
    raise LookupError(f"bcc made no program for {hook.event}")


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Catch what is written to descriptor 2; yields a function that returns it."""
    saved, sink = os.dup(2), os.memfd_create("stderr")
    os.dup2(sink, 2)
    try:
        yield lambda: os.pread(sink, 1 << 20, 0).decode(errors="replace")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _telling(messages: str, keep: int = 4) -> str:
    lines = [line for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-keep:]
    shown = errors[:keep]
    omitted = len(lines) - len(shown)
    return "; ".join(shown) + (f" ({omitted} lines omitted)" if omitted > 0 else "")
