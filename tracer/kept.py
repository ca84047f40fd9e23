"""The kernel program as bcc compiled it, kept for the next start.

clang and LLVM take a second of processor time and 50 MB each time. What comes of it is small:
a few maps, and instructions that name maps by descriptor. Nothing else of bcc is needed to load
it again. bcc itself is an argument: only probe imports it.
"""

import base64
import contextlib
import ctypes
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_INSTRUCTION = 8
_LOAD_WIDE = 0x18  # BPF_LD | BPF_DW | BPF_IMM: two instructions long
_OF_A_MAP = 1  # BPF_PSEUDO_MAP_FD, include/uapi/linux/bpf.h
# enum bpf_map_type of include/uapi/linux/bpf.h, and bcc's class for it
_TABLES = {
    1: "HashTable",
    2: "Array",
    4: "PerfEventArray",
    6: "PerCpuArray",
    7: "StackTrace",
    8: "CgroupArray",
    9: "LruHash",
}
_NAMED = ("PerfEventArray",)  # they want to know what they are called


@dataclass(frozen=True)
class Map:
    """How a map is made: as the kernel wants it, and as bcc describes its types (JSON)."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key: str
    leaf: str


@dataclass(frozen=True)
class Code:
    """The instructions of one program; `maps` says whose descriptor belongs to which of them."""

    instructions: bytes
    maps: dict[int, str]


@dataclass(frozen=True)
class Kept:
    """All of a compiled module: maps and programs by name, licence, and version of the kernel."""

    maps: dict[str, Map]
    programs: dict[str, Code]
    licence: str
    version: int

    def to_bytes(self) -> bytes:
        """Return it as it is stored: JSON."""
        programs = {
            name: [base64.b64encode(code.instructions).decode(), list(code.maps.items())]
            for name, code in self.programs.items()
        }
        maps = {name: asdict(each) for name, each in self.maps.items()}
        rest = {"licence": self.licence, "version": self.version}
        return json.dumps({"maps": maps, "programs": programs, **rest}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Kept":
        """Read it back. Raises ValueError, KeyError or TypeError where it is not one."""
        found = json.loads(data)
        programs = {
            name: Code(base64.b64decode(code), dict(maps))
            for name, (code, maps) in found["programs"].items()
        }
        maps = {name: Map(**each) for name, each in found["maps"].items()}
        return cls(maps, programs, found["licence"], found["version"])


def taken_from(bpf: Any, lib: Any) -> Kept:
    """Return what bcc compiled. `lib` is its library. Raises OSError without /proc."""
    names = _names(bpf.module, lib, "bpf_num_tables", "bpf_table_name")
    fds = {lib.bpf_table_fd(bpf.module, name.encode()): name for name in names}
    programs = _names(bpf.module, lib, "bpf_num_functions", "bpf_function_name")
    return Kept(
        {name: _map(bpf.module, lib, name, fd) for fd, name in fds.items()},
        {name: _code(bpf.dump_func(name.encode()), fds) for name in programs},
        lib.bpf_module_license(bpf.module).decode(),
        lib.bpf_module_kern_version(bpf.module),
    )


def _names(module: Any, lib: Any, count: str, name: str) -> list[str]:
    # Function objects of our own: bcc does not declare all of them.
    counted, named = lib[count], lib[name]
    counted.restype, counted.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    named.restype, named.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    return [named(module, number).decode() for number in range(counted(module))]


def _map(module: Any, lib: Any, name: str, fd: int) -> Map:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    told = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Map(
        int(told["map_type"]),
        int(told["key_size"]),
        int(told["value_size"]),
        int(told["max_entries"]),
        int(told["map_flags"], 0),
        lib.bpf_table_key_desc(module, name.encode()).decode(),
        lib.bpf_table_leaf_desc(module, name.encode()).decode(),
    )


def _code(instructions: bytes, fds: dict[int, str]) -> Code:
    code, maps = bytearray(instructions), {}
    for number in _of_maps(code):
        value = _operand(number)
        maps[number] = fds[int.from_bytes(code[value], "little")]
        code[value] = bytes(4)
    return Code(bytes(code), maps)


# Where an instruction has its immediate operand.
def _operand(number: int) -> slice:
    return slice(number * _INSTRUCTION + 4, (number + 1) * _INSTRUCTION)


def _of_maps(code: bytearray) -> Iterator[int]:
    number, count = 0, len(code) // _INSTRUCTION
    while number < count:
        operation, registers = code[number * _INSTRUCTION], code[number * _INSTRUCTION + 1]
        if operation == _LOAD_WIDE and registers >> 4 == _OF_A_MAP:
            yield number
        number += 2 if operation == _LOAD_WIDE else 1


def revive(bcc: Any, base: type, kept: Kept) -> Any:
    """Return a BPF object of bcc's, as if it had compiled what is kept.

    `base` is the class of such objects. Raises OSError where the kernel makes no map.
    """
    return _revived(bcc, base)(kept)


def _revived(bcc: Any, base: Any) -> Any:
    class Revived(base):  # type: ignore[misc]
        """bcc's own, without a compiled module: maps and programs come from what was kept."""

        def __init__(self, kept: Kept) -> None:
            with _not_compiling(bcc.lib):
                super().__init__(text=b"")
            self.module = None
            self._kept, self._map_fds = kept, {}
            try:
                for name, each in kept.maps.items():
                    self._map_fds[name] = _create(bcc.lib, name, each)
            except OSError:
                self.cleanup()
                raise

        def load_func(self, func_name: str | bytes, prog_type: int, *_: Any) -> Any:
            name = os.fsdecode(func_name)
            if name.encode() not in self.funcs:
                fd = _load(bcc.lib, self._kept, name, prog_type, self._map_fds)
                self.funcs[name.encode()] = bcc.BPF.Function(self, name.encode(), fd)
            return self.funcs[name.encode()]

        def get_table(self, name: str | bytes, *_: Any, **__: Any) -> Any:
            name = os.fsdecode(name)
            return _table(bcc, self, name, self._kept.maps[name], self._map_fds[name])

        def cleanup(self) -> None:
            super().cleanup()
            while self._map_fds:
                os.close(self._map_fds.popitem()[1])

    return Revived


@contextlib.contextmanager
def _not_compiling(lib: Any) -> Iterator[None]:
    # bcc's constructor sets up all it has, and compiles in between: there it gets a stand-in.
    name = "bpf_module_create_c_from_string"
    compiles = getattr(lib, name)
    setattr(lib, name, lambda *_: 1)
    try:
        yield
    finally:
        setattr(lib, name, compiles)


def _create(lib: Any, name: str, each: Map) -> int:
    create = lib["bcc_create_map"]
    create.argtypes = [ctypes.c_int, ctypes.c_char_p, *[ctypes.c_int] * 4]
    sizes = (each.key_size, each.value_size, each.max_entries, each.flags)
    fd: int = create(each.kind, name.encode(), *sizes)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make the map {name}: {os.strerror(code)}")
    return fd


def _load(lib: Any, kept: Kept, name: str, kind: int, fds: dict[str, int]) -> int:
    if name not in kept.programs:
        raise LookupError(f"Unknown program {name}")  # in bcc's words
    code = bytearray(kept.programs[name].instructions)
    for number, table in kept.programs[name].maps.items():
        code[_operand(number)] = fds[table].to_bytes(4, "little")
    load = lib["bcc_prog_load"]
    load.argtypes = [
        ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p,
        ctypes.c_uint, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
    ]  # fmt: skip
    licence = kept.licence.encode()
    arguments = (bytes(code), len(code), licence, kept.version, 0, None, 0)
    fd: int = load(kind, name.encode(), *arguments)
    if fd < 0:
        raise OSError(f"Failed to load BPF program {name}: {os.strerror(ctypes.get_errno())}")
    return fd


def _table(bcc: Any, bpf: Any, name: str, each: Map, fd: int) -> Any:
    kind = _TABLES[each.kind]
    key, leaf = (bcc.BPF._decode_table_type(json.loads(text)) for text in (each.key, each.leaf))
    more = (name.encode(),) if kind in _NAMED else ()
    table = getattr(bcc.table, kind)(bpf, 0, fd, key, leaf, *more)
    # bcc has asked the module for these, which is not there
    table.ttype, table.flags, table.max_entries = each.kind, each.flags, each.max_entries
    return table
