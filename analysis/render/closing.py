"""The last lines of a report, right above the prompt: they must close the case by themselves."""

from collections.abc import Iterator, Sequence

from porttrace.analysis.model import Finding, Trace
from porttrace.analysis.remarks import remarks
from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.peace import nothing_found
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.suspects import could_hold


def closing(trace: Trace, findings: Sequence[Finding]) -> str:
    """Return what is wrong, what could be behind it and what to do now, or that nothing is."""
    open_waits = remarks(trace, findings)
    if findings or open_waits:
        return "\n".join(["IN SHORT", *_findings(findings), *_remarks(open_waits)])
    return "\n".join(wrapped(printable(nothing_found(trace))))


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    # Notes at the side only where nothing worse is to be told.
    shown = [f for f in findings if f.severity != "info"] or findings
    for finding in shown:
        yield f"  {finding.rule} ({level(finding)}):"
        yield from wrapped(printable(finding.summary), "    ", "    ")
        best = finding.suspects[0] if finding.suspects else None
        stack = finding.evidence.get("stack")
        functions = stack if isinstance(stack, list) else []
        if best and could_hold(best, finding.place, functions):
            what = f"It could be done by: {best.what}."
            yield from wrapped(printable(what), "    ", "    ")
        if finding.advice:
            yield from wrapped(printable(f"Do now: {finding.advice[0]}"), "    ", "    ")


def _remarks(sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield "  Not explained:"
        for sentence in sentences:
            yield from wrapped(printable(sentence), "    - ", "      ")


def level(finding: Finding) -> str:
    """Return the word for a finding's confidence."""
    return "firm" if finding.confidence >= 0.8 else "likely"
