"""Rules turn a trace into findings; the report is the list of what they found.

A rule takes the trace and the findings of the rules before it and returns its own.
"""

from collections.abc import Callable, Sequence

from porttrace.analysis.findings.accept_queue import accept_queue
from porttrace.analysis.findings.bind_conflict import bind_conflict
from porttrace.analysis.findings.conntrack import conntrack_pressure
from porttrace.analysis.findings.dead_destination import dead_destination
from porttrace.analysis.findings.exhaustion import ephemeral_exhaustion
from porttrace.analysis.findings.family import broken_family
from porttrace.analysis.findings.limited import limited_connects
from porttrace.analysis.findings.lost import syn_lost
from porttrace.analysis.findings.paced import paced_connects
from porttrace.analysis.findings.port_shared import port_shared
from porttrace.analysis.findings.sequential import sequential_connects
from porttrace.analysis.findings.serialized import serialized_connects
from porttrace.analysis.findings.source_port import source_port_taken
from porttrace.analysis.findings.storm import connect_storm
from porttrace.analysis.findings.timeout_source import timeout_source
from porttrace.analysis.model import Finding, Trace

Rule = Callable[[Trace, Sequence[Finding]], list[Finding]]

RULES: tuple[Rule, ...] = (
    accept_queue,
    conntrack_pressure,
    serialized_connects,
    limited_connects,
    paced_connects,
    sequential_connects,
    dead_destination,
    syn_lost,
    timeout_source,
    connect_storm,
    broken_family,
    bind_conflict,
    port_shared,
    ephemeral_exhaustion,
    source_port_taken,
)
"""In the order they run: later rules may build on what earlier ones found."""

MIN_CONFIDENCE = 0.5


def diagnose(trace: Trace) -> tuple[Finding, ...]:
    """Return what all rules find in `trace`, the most severe and then the surest first.

    Findings below a confidence of 0.5 are dropped.
    """
    found: list[Finding] = []
    for rule in RULES:
        found.extend(rule(trace, tuple(found)))
    shown = [finding for finding in found if finding.confidence >= MIN_CONFIDENCE]
    return tuple(sorted(shown, key=Finding.gravity))


def same(finding: Finding) -> tuple[str, ...]:
    """Return what a finding has in common with itself, found again in more or in later attempts."""
    subject = str(sorted(finding.subject.items()))
    return finding.rule, finding.place, finding.scope, subject
