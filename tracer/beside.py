"""What a trace file says beside the events, as plain values and as JSON.

`TraceHeader` stands at the front of a file, a `Beside` with each batch, an `End` in the last.
Keys that a newer porttrace added are ignored, those that an older one lacked keep their
defaults. Names that are no UTF-8 survive: JSON escapes each of their bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from porttrace.tracer.facts import (
    Held,
    Holder,
    Host,
    Listener,
    Looked,
    NotLooked,
    PortUse,
    Process,
    Sample,
    Suspect,
    Usage,
)

_T = TypeVar("_T")
# What a sample says of a namespace, and need not say again.
_SECTIONS = tuple(each.name for each in fields(Sample) if each.default is None)


@dataclass(frozen=True)
class TraceHeader:
    """What is known when a recording begins. Times are CLOCK_MONOTONIC, in ns."""

    start_ns: int
    wall_offset_ns: int = 0  # wall clock = mark + offset
    host: Host = field(default_factory=Host)
    filter: str = ""  # in words, "" for everything
    gates_seen: bool = True  # False when the scheduler was not watched
    notes: tuple[str, ...] = ()  # what limits trust from the beginning
    watches: Mapping[str, int] = field(default_factory=dict)  # netns to when its wire was seen, ns
    clock: str = "CLOCK_MONOTONIC"
    part: int = 0  # 1, 2, ... of a recording in parts; 0: it is one file
    version: str = ""  # of the porttrace that wrote it


@dataclass(frozen=True)
class End:
    """What is known when a recording ends."""

    end_ns: int
    counters: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # instead of those of the header
    continues: bool = False  # another part follows; what is open here is carried into it
    not_looked: tuple[NotLooked, ...] = ()  # what no census of suspects could read


@dataclass(frozen=True)
class Beside:
    """What came with one batch of events."""

    watermark_ns: int = 0  # no event older than this comes after the batch
    wall_offset_ns: int = 0
    processes: Mapping[int, Process] = field(default_factory=dict)  # first seen, or seen anew
    stacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    suspects: Mapping[int, tuple[Suspect, ...]] = field(default_factory=dict)  # by pid
    held: tuple[Held, ...] | None = None  # at the last look; None: nobody looked
    carried: int = 0  # so many rows at the front stood in the part before this one, too
    end: End | None = None
    looked: tuple[Looked, ...] = ()  # after calls of bind(2) or listen(2) that failed
    samples: tuple[Sample, ...] = ()  # of each network namespace in order, only what is new


def header_values(header: TraceHeader) -> dict[str, Any]:
    """Return a header as plain values for JSON."""
    host = vars(header.host)
    plain = {name: dict(host[name]) for name in ("sysctls", "drop_reasons")}
    return {**vars(header), "host": {**host, **plain}, "watches": dict(header.watches)}


def header_of(values: dict[str, Any]) -> TraceHeader:
    """Return the header of plain values.

    Raises ValueError, TypeError, KeyError or AttributeError when they are something else.
    """
    known = {**values, "host": _made(Host, values.get("host", {}))}
    return _made(TraceHeader, {**known, "notes": tuple(values.get("notes", ()))})


def to_json(beside: Beside, number: int) -> bytes:
    """Return what stands beside batch `number` as JSON in ASCII; what is empty is left out."""
    values = {
        "batch": number,
        "watermark_ns": beside.watermark_ns,
        "wall_offset_ns": beside.wall_offset_ns,
        "processes": [_short(process) for process in beside.processes.values()],
        "stacks": beside.stacks,
        "suspects": {pid: [vars(fact) for fact in found] for pid, found in beside.suspects.items()},
        "looked": [_looked_values(each) for each in beside.looked],
        "samples": [_sample_values(each) for each in beside.samples],
        "carried": beside.carried,
    }
    values = {key: value for key, value in values.items() if value or key == "batch"}
    if beside.held is not None:
        values["held"] = [{**vars(each), "daddr": each.daddr.hex()} for each in beside.held]
    if beside.end:
        values["end"] = _end_values(beside.end)
    return json.dumps(values, separators=(",", ":")).encode()


def _looked_values(looked: Looked) -> dict[str, Any]:
    # What is not known is left out: most of a holder is.
    nothing = vars(Holder(""))
    holders = [
        {key: value for key, value in vars(each).items() if value != nothing[key]}
        for each in looked.holders
    ]
    return {**vars(looked), "holders": holders, "facts": dict(looked.facts)}


def _end_values(end: End) -> dict[str, Any]:
    not_looked = [vars(each) for each in end.not_looked]
    return {**vars(end), "counters": dict(end.counters), "not_looked": not_looked}


def trimmed(sample: Sample, before: Sample | None) -> Sample:
    """Return a sample without what it says as `before`, the one before it of its namespace."""
    if before is None:
        return sample
    same: dict[str, Any] = {
        name: None for name in _SECTIONS if getattr(sample, name) == getattr(before, name)
    }
    return replace(sample, **same)


def filled(sample: Sample, before: Sample | None) -> Sample:
    """Return the sample that `trimmed` was given."""
    if before is None:
        return sample
    same = {name: getattr(before, name) for name in _SECTIONS if getattr(sample, name) is None}
    return replace(sample, **same)


def _sample_values(sample: Sample) -> dict[str, Any]:
    values = {key: value for key, value in vars(sample).items() if value is not None}
    if sample.listeners is not None:
        values["listeners"] = [vars(each) for each in sample.listeners]
    if sample.usage is not None:
        groups = [vars(each) for each in sample.usage.groups]
        values["usage"] = {**vars(sample.usage), "groups": groups}
    return values


def _short(process: Process) -> dict[str, Any]:
    return {key: value for key, value in vars(process).items() if value or key == "pid"}


def from_json(text: bytes) -> tuple[Beside, int]:
    """Return what `to_json` wrote, and the batch's number.

    Raises ValueError, TypeError, KeyError or AttributeError when it is something else.
    """
    values = json.loads(text)
    processes = [_process(each) for each in values.get("processes", ())]
    held = [_held(each) for each in values["held"]] if "held" in values else None
    beside = Beside(
        watermark_ns=values.get("watermark_ns", 0),
        wall_offset_ns=values.get("wall_offset_ns", 0),
        processes={process.pid: process for process in processes},
        stacks={int(key): tuple(frames) for key, frames in values.get("stacks", {}).items()},
        suspects={
            int(pid): tuple(_made(Suspect, each) for each in found)
            for pid, found in values.get("suspects", {}).items()
        },
        held=None if held is None else tuple(held),
        looked=tuple(_looked(each) for each in values.get("looked", ())),
        samples=tuple(_sample(each) for each in values.get("samples", ())),
        carried=values.get("carried", 0),
        end=_end(values["end"]) if "end" in values else None,
    )
    return beside, values["batch"]


def _process(values: dict[str, Any]) -> Process:
    return _made(Process, {**values, "preloads": tuple(values.get("preloads", ()))})


def _looked(values: dict[str, Any]) -> Looked:
    keys = tuple((int(time_ns), int(tid)) for time_ns, tid in values["keys"])
    holders = tuple(
        _made(Holder, {"kind": "", **each, "also": tuple(each.get("also", ()))})
        for each in values.get("holders", ())
    )
    return _made(Looked, {**values, "keys": keys, "holders": holders})


def _held(values: dict[str, Any]) -> Held:
    fixed = {"daddr": bytes.fromhex(values["daddr"]), "frames": tuple(values["frames"])}
    return _made(Held, {**values, **fixed})


def _sample(values: dict[str, Any]) -> Sample:
    fixed: dict[str, Any] = {}
    if "listeners" in values:
        fixed["listeners"] = tuple(_made(Listener, each) for each in values["listeners"])
    if "usage" in values:
        groups = tuple(_made(PortUse, each) for each in values["usage"].get("groups", ()))
        fixed["usage"] = _made(Usage, {**values["usage"], "groups": groups})
    if "serves" in values:
        fixed["serves"] = tuple(values["serves"])
    return _made(Sample, {**values, **fixed})


def _end(values: dict[str, Any]) -> End:
    not_looked = tuple(_made(NotLooked, each) for each in values.get("not_looked", ()))
    fixed = {"notes": tuple(values.get("notes", ())), "not_looked": not_looked}
    return _made(End, {**values, **fixed})


def _made(kind: type[_T], values: dict[str, Any]) -> _T:
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in values.items() if key in known})
