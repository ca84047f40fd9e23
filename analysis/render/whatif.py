"""Predictions of `whatif` as text for a terminal of 80 columns, and as plain values for JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from porttrace.analysis import names
from porttrace.analysis.render.escape import printable
from porttrace.analysis.render.text import short
from porttrace.analysis.render.wrap import wrapped
from porttrace.analysis.whatif import Fit, Prediction, Throttle

SCHEMA = 1
_MOST = 12  # destinations in a table; the rest is added up


def whatif_text(throttle: Throttle, fit: Fit, predictions: Sequence[Prediction]) -> str:
    """Return the fit of the model first, then a table of waits for each prediction."""
    parts = ["\n".join(_head(throttle, fit))]
    parts += ["\n".join(_table(prediction)) for prediction in predictions]
    return "\n\n".join(parts)


def _head(throttle: Throttle, fit: Fit) -> Iterator[str]:
    sure = "firm" if throttle.confidence >= 0.8 else "likely"
    yield from wrapped(
        printable(
            f"Throttle: {throttle.who}; place {throttle.place}, scope {throttle.scope}, slots"
            f" {throttle.slots} ({sure}, confidence {throttle.confidence:.2f})."
        )
    )
    yield from wrapped(
        "Model: first come, first served. With the slots of the trace, of"
        f" {names.count(fit.waits, 'wait')} in it the model gives {fit.near} ({fit.share():.0%})"
        " to within 10 % or 50 ms; the typical one is"
        f" {names.duration(fit.median_error_s * 1e9)} off; all together {fit.predicted_s:.1f} s,"
        f" measured {fit.measured_s:.1f} s. What the throttle itself costs each call is left out."
    )
    if fit.waits < 5:
        yield from wrapped("So few waits prove little: take the numbers as a hint.", "  - ")
    yield from _doubts(fit)
    if throttle.unserved:
        left = f"{names.count(throttle.unserved, 'attempt')} still held at the end of the trace"
        yield from wrapped(f"Left out: {left}.", "  - ")
    if throttle.others:
        yield from wrapped(f"Left out: {names.count(throttle.others, 'other throttle')}.", "  - ")


def _doubts(fit: Fit) -> Iterator[str]:
    if fit.passed:
        yield from wrapped(
            f"{names.count(fit.passed, 'attempt')} went straight on, where the model would have"
            f" held {'it' if fit.passed == 1 else 'them'}: taken as not counted by the throttle.",
            "  - ",
        )
    for off in fit.off[:_MOST]:
        yield from wrapped(
            f"Mind {off.destination}: with nothing changed the model gives {off.predicted_s:.1f} s"
            f" there, measured {off.measured_s:.1f} s; what stands below of it is as far off.",
            "  - ",
        )


def _table(prediction: Prediction) -> Iterator[str]:
    yield f"{printable(prediction.name).upper()}: {prediction.total_s():.1f} s of waiting in all"
    yield f"  {'DESTINATION':<40} {'ATTEMPTS':>8} {'P50':>6} {'P95':>6} {'WORST':>6} {'TOTAL':>6}"
    for line in prediction.lines[:_MOST]:
        waits = (line.p50_s, line.p95_s, line.worst_s, line.total_s)
        cells = " ".join(f"{short(wait * 1e9) or '0':>6}" for wait in waits)
        yield f"  {line.destination:<40} {line.attempts:>8} {cells}"
    if len(prediction.lines) > _MOST:
        rest = sum(line.total_s for line in prediction.lines[_MOST:])
        yield f"  ... and {len(prediction.lines) - _MOST} more, {rest:.1f} s in all"
    for sentence in prediction.assumptions:
        yield from wrapped(printable(f"assumed: {sentence}"), "  - ")


def whatif_json(throttle: Throttle, fit: Fit, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return everything as plain values, ready for json.dumps; times in seconds."""
    return {
        "schema": SCHEMA,
        "throttle": {
            "place": throttle.place,
            "scope": throttle.scope,
            "slots": throttle.slots,
            "confidence": throttle.confidence,
            "who": throttle.who.encode(errors="backslashreplace").decode(),
            "handoff_s": throttle.demand.lag_ns / 1e9,
            "unserved": throttle.unserved,
            "others": throttle.others,
        },
        "fit": {**vars(fit), "off": [vars(each) for each in fit.off], "share": fit.share()},
        "predictions": [_values(prediction) for prediction in predictions],
    }


def _values(prediction: Prediction) -> dict[str, Any]:
    return {
        "name": prediction.name,
        "total_s": prediction.total_s(),
        "assumptions": list(prediction.assumptions),
        "destinations": [vars(line) for line in prediction.lines],
    }
