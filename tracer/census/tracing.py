"""Probes that others have put on the kernel functions of a connect: ftrace and kprobes."""

import re
from collections.abc import Collection, Iterator

from porttrace.tracer.census.host import HERE, HostFiles, UnreadError
from porttrace.tracer.census.path import place_of
from porttrace.tracer.facts import Fact, NotLooked, Suspect

_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_KPROBES = "/sys/kernel/debug/kprobes/list"
# function (users) FLAGS ..., as kernel/trace/ftrace.c writes it
_ENABLED = re.compile(r"^(\S+)(?: \[\S+\])? \((\d+)\)", re.M)
# p:group/name function+offset, or r..: kernel/trace/trace_kprobe.c
_EVENT = re.compile(r"^([pr])\S*:(\S+) (?:\S+:)?([\w.]+)", re.M)
# address k|r function+offset [module] ...
_KPROBE = re.compile(r"^\S+\s+[kr]\s+([\w.]+)\+", re.M)


def look(own: Collection[str] = (), files: HostFiles = HERE) -> Iterator[Fact]:
    """Yield the functions on the way of a connect that somebody has hooked.

    `own` are those that porttrace itself hooks now: only a second user of them counts.
    """
    told: set[str] = set()
    for fact, function in (*_events(files), *_enabled(own, files), *_kprobes(own, files)):
        if function not in told or not function:
            told.add(function)
            yield fact


def _events(files: HostFiles) -> Iterator[tuple[Fact, str]]:
    text, source = _read("kprobe_events", files)
    if not source:
        yield NotLooked("kprobe events", f"{text} (a kernel without kprobes has none)"), ""
    for kind, name, function in _EVENT.findall(text if source else ""):
        if place_of(function) and "_bcc_" not in name:  # bcc's show whose they are elsewhere
            what = "the return of " if kind == "r" else ""
            yield _hooked(function, f"the kprobe event {name} is on {what}", source), function


def _enabled(own: Collection[str], files: HostFiles) -> Iterator[tuple[Fact, str]]:
    text, source = _read("enabled_functions", files)
    if not source:
        yield NotLooked("functions hooked through ftrace", text), ""
    for function, users in _ENABLED.findall(text if source else ""):
        others = int(users) - (function in own)
        if place_of(function) and others > 0:
            many = f"{others} users" if others > 1 else "a user"
            what = f"ftrace has {many} (a tracer, BPF, a live patch or a module) on "
            yield _hooked(function, what, source), function


def _kprobes(own: Collection[str], files: HostFiles) -> Iterator[tuple[Fact, str]]:
    try:
        text = files.text(_KPROBES)
    except UnreadError as unread:
        yield NotLooked("kprobes of modules", str(unread)), ""
        return
    probed = _KPROBE.findall(text)
    for function in dict.fromkeys(probed):
        if place_of(function) and probed.count(function) > (2 if function in own else 0):
            yield _hooked(function, "a kprobe is on ", _KPROBES), function


def _hooked(function: str, what: str, source: str) -> Suspect:
    return Suspect("kernel-probe", place_of(function), f"{what}the kernel's {function}", source)


def _read(name: str, files: HostFiles) -> tuple[str, str]:
    # (text, where), or (why not, "").
    reason = ""
    for folder in _TRACEFS:
        try:
            return files.text(f"{folder}/{name}"), f"{folder}/{name}"
        except UnreadError as unread:
            reason = reason or str(unread)
    return reason, ""
