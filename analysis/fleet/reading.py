"""From where recordings lie to their sums: files here, or in any store that fsspec knows.

`summed` is what a worker runs: one recording at a time, never more. A file in a store is copied
into a temporary one first, as long as it is read: readers go back and forth in it.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from porttrace.analysis.exported import load_exported
from porttrace.analysis.fleet.model import Skipped, Slice
from porttrace.analysis.fleet.slices import slice_of
from porttrace.analysis.recording import load
from porttrace.tracer.errors import PorttraceError

SUFFIXES = (".ptrace", ".parquet")
_NOT_ATTEMPTS = (".binds.parquet", ".events.parquet")
_LOCAL = ("file", "local")
_CHUNK = 1 << 20


def recordings_at(paths: Iterable[str]) -> list[str]:
    """Return the recordings that `paths` name: files, folders (all below) and patterns with `*`.

    In folders and patterns only `.ptrace` and `.parquet` count, without what export writes
    beside. Each is named once, in order. Raises PorttraceError for a path at which there is none.
    """
    found: dict[str, None] = {}
    for path in paths:
        here = _at(path)
        if not here:
            raise PorttraceError(
                f"there is no recording at {path}",
                "name files, folders or patterns of .ptrace or .parquet files",
            )
        found |= dict.fromkeys(here)
    return list(found)


def _at(path: str) -> list[str]:
    files, inside = _store(path)
    with _explained(path):
        if fsspec.core.has_magic(inside):
            return _wanted(files, files.glob(inside), path)
        if files.isdir(inside):
            return _wanted(files, files.find(inside), path)
        # a file that is not there is told as unreadable, like every other one
        return [os.path.abspath(inside) if _is_local(files) else path]


def _wanted(files: Any, names: Sequence[str], path: str) -> list[str]:
    ours = [
        name for name in sorted(names)
        if name.endswith(SUFFIXES) and not name.endswith(_NOT_ATTEMPTS)
    ]  # fmt: skip
    if _is_local(files):
        return ours
    # What a chained address has behind it (zip://*.ptrace::s3://...) belongs to each of its files.
    _, *behind = path.split("::")
    return ["::".join([files.unstrip_protocol(name), *behind]) for name in ours]


def summed(path: str) -> Slice | Skipped:
    """Return the sum of the recording at `path`, or why there is none. Never raises Exception."""
    shown: dict[str, str] = {}
    try:
        with _fetched(path) as (local, size):
            # messages name the file that was asked for, not its copy
            shown[local] = path
            kind = "parquet" if path.endswith(".parquet") else "trace"
            recording = load_exported(local, path) if kind == "parquet" else load(local)
            return slice_of(recording, kind, size, path)
    except PorttraceError as error:
        return Skipped(path, _renamed(error.message, shown), error.hint)
    except Exception as error:  # one file must not end the others, whatever is wrong with it
        why = str(error).split("\n")[0]
        return Skipped(path, f"cannot read {path}: {type(error).__name__}: {why}"[:500])


def _renamed(text: str, shown: Mapping[str, str]) -> str:
    for local, path in shown.items():
        text = text.replace(local, path)
    return text


@contextlib.contextmanager
def _fetched(path: str) -> Iterator[tuple[str, int]]:
    # A path of this machine, and the size of the file (bytes).
    files, inside = _store(path)
    if _is_local(files):
        local = Path(inside)
        if local.exists() and not (local.is_file() or local.is_dir()):
            # whoever opens a pipe waits for its writer
            raise PorttraceError(f"cannot read {path}: it is no file", "name recordings")
        yield inside, local.stat().st_size if local.exists() else 0
        return
    with tempfile.TemporaryDirectory(prefix="porttrace-fleet-") as folder:
        local = Path(folder, "recording")
        with _explained(path), files.open(inside, "rb") as source, local.open("wb") as copy:
            while piece := source.read(_CHUNK):
                copy.write(piece)
        yield str(local), local.stat().st_size


def _store(path: str) -> tuple[Any, str]:
    with _explained(path):
        files, inside = url_to_fs(path)
        return files, inside


def _is_local(files: Any) -> bool:
    protocol = files.protocol
    return bool({*_LOCAL} & {*([protocol] if isinstance(protocol, str) else protocol)})


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    # What stores raise is of every kind: their clients bring errors of their own.
    try:
        yield
    except ImportError as error:
        raise PorttraceError(f"cannot read {path}: {error}", "install it on every worker") from None
    except FileNotFoundError:
        raise PorttraceError(f"cannot read {path}: it is not there", "check the name") from None
    except PorttraceError:
        raise
    except Exception as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise PorttraceError(
            f"cannot read {path}: {why}", "check the address, and the rights to read it"
        ) from None
