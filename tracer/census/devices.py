"""What is on the network devices of a namespace: shapers, policers, BPF programs."""

from collections.abc import Iterator

from porttrace.tracer.census import bpf
from porttrace.tracer.census.programs import Snapshot
from porttrace.tracer.errors import PorttraceError
from porttrace.tracer.facts import Fact, NotLooked, Suspect
from porttrace.tracer.links import Devices, Filter, devices
from porttrace.tracer.words import count

# Disciplines that hold packets back although the device could take them: tc(8)
_DELAYING = {
    "netem": "delays or drops packets as configured",
    "tbf": "holds packets above a rate back",
    "htb": "shares a rate out among classes and holds what is above it back",
    "hfsc": "shares a rate out among classes and holds what is above it back",
    "cake": "may hold packets above a rate back",
    "plug": "holds packets until it is told to let them go",
    "taprio": "lets packets go at set times",
    "etf": "lets packets go at set times",
}
_DIRECTIONS = {46: "ingress", 47: "egress"}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_SOURCE = "rtnetlink"


def look(found: Snapshot) -> Iterator[Fact]:
    """Yield what delays, polices or filters on the devices of our own network namespace."""
    try:
        there = devices()
    except PorttraceError as error:
        yield NotLooked("network devices", error.message)
        return
    yield from _queueing(there)
    for each in there.filters:
        yield from _filter(each, found)
    for device, number in there.xdp.items():
        if not found.is_own(number):
            what = (
                f"{found.called(number)} is on {device} (XDP): it sees packets first that come in"
            )
            yield Suspect("bpf-xdp", "ingress", what, _SOURCE, found.holder(number))
    yield from _tcx(there, found)
    if there.left_out:
        yield NotLooked(
            f"filters of {count(there.left_out, 'more discipline')}", "too many devices"
        )


def _queueing(there: Devices) -> Iterator[Fact]:
    for each in dict.fromkeys(there.queueing):
        if each.kind in _DELAYING:
            what = f"the queueing discipline {each.kind} of {each.device} {_DELAYING[each.kind]}"
            yield Suspect("qdisc", "egress", what, f"{_SOURCE} (tc qdisc show dev {each.device})")


def _filter(each: Filter, found: Snapshot) -> Iterator[Fact]:
    where = f"{_SOURCE} (tc filter show dev {each.device})"
    if "police" in each.actions:
        what = f"a filter of {each.device} ({each.kind}, {each.direction}) polices: it drops "
        yield Suspect("police", each.direction, f"{what}packets above a rate", where)
    if each.program and not found.is_own(each.program):
        what = f"{found.called(each.program)} is on {each.device} (tc, {each.direction})"
        yield Suspect("bpf-tc", each.direction, what, where, found.holder(each.program))


def _tcx(there: Devices, found: Snapshot) -> Iterator[Fact]:
    for index, device in there.names.items():
        for kind, direction in _DIRECTIONS.items():
            try:
                numbers = bpf.attached(index, kind)
            except OSError:
                return  # before Linux 6.6 there is no tcx
            for number in numbers:
                if not found.is_own(number):
                    what = f"{found.called(number)} is on {device} (tcx, {direction})"
                    yield Suspect("bpf-tc", direction, what, "bpf(2)", found.holder(number))
