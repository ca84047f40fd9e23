"""Rounds and rows become counters; labels are bounded, and nothing in them acts on anybody."""

import numpy as np
import pytest

from binding import call, listener
from builders import MS, NEVER, S, events
from porttrace.analysis.attempts import Open, step
from porttrace.analysis.findings import RULES
from porttrace.analysis.metrics.catalogue import METRICS
from porttrace.analysis.metrics.histogram import Histogram
from porttrace.analysis.metrics.tally import Now, Tally, label
from porttrace.analysis.model import Finding, Looked, Sample
from porttrace.tracer.event import EventType
from porttrace.tracer.facts import Listener

RULE_NAMES = tuple(rule.__name__.replace("_", "-") for rule in RULES)


def values(tally: Tally, name: str, now: Now | None = None) -> dict[tuple[str, ...], float]:
    """Return the series of one metric; of a histogram, the number of lengths."""
    (family,) = (f for f in tally.families(now or Now()) if f.metric.name == name)
    return {
        labels: value.count if isinstance(value, Histogram) else value
        for labels, value in family.samples
    }


def nonzero(tally: Tally, name: str, now: Now | None = None) -> dict[tuple[str, ...], float]:
    return {labels: value for labels, value in values(tally, name, now).items() if value}


def test_attempts_by_name_and_outcome_with_their_holds() -> None:
    story = events()
    story.connect(tid=1, comm=b"web", held_ns=2 * S, at=3 * S).syn_sent().established(after_ns=MS)
    story.connect(tid=2, comm=b"web").syn_sent().refused(after_ns=MS)
    story.connect(tid=3, comm=b"cron").syn_sent().established(after_ns=MS)
    tally = Tally(RULE_NAMES)
    tally.take_events(story.array())
    tally.take_attempts(step(story.array(), Open(), NEVER)[0], 6 * S)
    assert nonzero(tally, "porttrace_attempts_total") == {
        ("web", "established"): 1, ("web", "refused"): 1, ("cron", "established"): 1,
    }  # fmt: skip
    assert nonzero(tally, "porttrace_held_attempts_total") == {("web",): 1}
    assert nonzero(tally, "porttrace_hold_duration_seconds") == {("gate",): 1}
    worst = nonzero(tally, "porttrace_worst_hold_seconds", Now(now_ns=6 * S))
    assert worst == {("gate",): pytest.approx(2.0)}
    assert nonzero(tally, "porttrace_connect_duration_seconds") == {
        ("established",): 2, ("refused",): 1,
    }  # fmt: skip
    assert values(tally, "porttrace_events_total") == {(): len(story.array())}


def test_losses_and_syns_sent_again() -> None:
    story = events().loss(1, 2, count=5).loss(3, 4, count=2, cpu=1)
    story.connect().syn_sent().retransmit(after_ns=S).retransmit(after_ns=2 * S)
    tally = Tally(RULE_NAMES)
    tally.take_events(story.array())
    assert values(tally, "porttrace_lost_events_total") == {(): 7}
    assert values(tally, "porttrace_syn_retransmissions_total") == {(): 2}
    assert values(tally, "porttrace_events_total") == {(): len(story.array()) - 2}


def test_accepted_connections_by_port() -> None:
    story = events()
    for port, waited_ns in ((80, 2 * MS), (80, 30 * MS), (443, 0)):
        story.add(EventType.ACCEPT, S, start_ns=S - waited_ns, sport=port, pid=9)
    story.add(EventType.ACCEPT, S, start_ns=0, sport=443, pid=9)  # when it came is not known
    tally = Tally(RULE_NAMES)
    tally.take_events(story.array())
    assert values(tally, "porttrace_accepts_total") == {("80",): 2, ("443",): 2, ("other",): 0}
    assert values(tally, "porttrace_accept_wait_seconds") == {(): 3}


def test_failed_binds_by_errno_and_holder() -> None:
    tally = Tally(RULE_NAMES)
    held, unseen = call(at=1, error=98), call(at=2, error=98)
    others = [call(at=3, error=13), call(at=4, error=5), call(at=6)]
    looked = {(1, 7): Looked(((1, 7),), (listener(),))}
    tally.take_binds(np.concatenate([*map(binds, (held, unseen, *others))]), looked)
    assert nonzero(tally, "porttrace_bind_failures_total") == {
        ("EADDRINUSE", "listener"): 1, ("EADDRINUSE", "none"): 1,
        ("EACCES", "none"): 1, ("other", "none"): 1,
    }  # fmt: skip
    # AND what may fail first is there before it does: increase() needs two values
    assert values(Tally(RULE_NAMES), "porttrace_bind_failures_total")["EADDRINUSE", "client"] == 0


def binds(array: np.ndarray) -> np.ndarray:
    from porttrace.analysis.binds import binds_of

    return binds_of(array)


def test_a_connect_without_a_port_is_no_failed_bind() -> None:
    story = events()
    story.add(EventType.AUTOBIND, S, error=-99, newstate=6, pid=7, tid=7)
    tally = Tally(RULE_NAMES)
    tally.take_binds(binds(story.array()), {})
    assert nonzero(tally, "porttrace_bind_failures_total") == {}


def test_what_stands_for_now() -> None:
    tally = Tally(RULE_NAMES)
    tally.take_samples(
        [Sample(1, 42, listeners=(Listener("0.0.0.0", 80, 12, 16),), conntrack={}, counters={})]
    )
    found = Finding("serialized-connects", "critical", 0.9, {}, "")
    now = Now(
        in_flight=3, held=4, findings=(found, found), window_s=9.0,
        left_out={"sockets": 2}, info=("1", "fentry", "yes"),
    )  # fmt: skip
    for name, expected in (
        ("porttrace_in_flight", {(): 3}),
        ("porttrace_demand", {(): 7}),
        ("porttrace_accept_queue_use_ratio", {("80",): 0.75}),
        ("porttrace_accept_queue_worst_use_ratio", {(): 0.75}),
        ("porttrace_findings_window_seconds", {(): 9.0}),
        ("porttrace_left_out_total", {("sockets",): 2}),
        ("porttrace_info", {("1", "fentry", "yes"): 1}),
        ("porttrace_findings_active", {("serialized-connects", "critical"): 2}),
    ):
        assert nonzero(tally, name, now) == expected
    active = values(tally, "porttrace_findings_active", now)
    assert {rule for rule, _ in active} == set(RULE_NAMES), "a rule that finds nothing says 0"


def test_serialized_attempts_and_new_findings() -> None:
    tally = Tally(RULE_NAMES)
    tally.take_serialized([b"page-1", b"page-2", b"page-1"])
    tally.take_finding("serialized-connects")
    assert nonzero(tally, "porttrace_serialized_attempts_total") == {
        ("page-1",): 2, ("page-2",): 1,
    }  # fmt: skip
    assert nonzero(tally, "porttrace_findings_total") == {("serialized-connects",): 1}


def test_a_hold_that_goes_on_is_the_worst() -> None:
    tally = Tally(RULE_NAMES)
    tally.take_held("gate", 21 * S, 30 * S)
    tally.take_held("connect", 5 * MS, 30 * S)  # no hold yet
    now = Now(now_ns=30 * S)
    assert nonzero(tally, "porttrace_worst_hold_seconds", now) == {("gate",): 21.0}


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        (b"web", "web"),
        (b'"} 9\nup 1', '"} 9\\x0aup 1'),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202egod".encode(), "\\u202egod"),
        (b"", ""),
    ],
)
def test_names_are_written_out(comm: bytes, shown: str) -> None:
    assert label(comm) == shown


def test_many_names_have_few_series() -> None:
    story = events()
    for n in range(300):
        story.connect(tid=n + 1, comm=b"worker-%d" % n, sock=n + 1).syn_sent().established()
    tally = Tally(RULE_NAMES, most_names=5)
    tally.take_attempts(step(story.array(), Open(), NEVER)[0], S)
    series = nonzero(tally, "porttrace_attempts_total")
    assert len(series) == 6 and sum(series.values()) == 300
    assert series["other", "established"] == 295


def test_the_catalogue_is_whole() -> None:
    families = list(Tally(RULE_NAMES).families(Now()))
    assert tuple(family.metric for family in families) == METRICS
    for family in families:
        metric = family.metric
        assert metric.name.startswith("porttrace_") and metric.help.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert all(len(labels) == len(metric.labels) for labels, _ in family.samples)
        allowed = {"comm", "outcome", "place", "port", "errno", "holder", "rule", "severity",
                   "what", "version", "mode", "wire"}  # fmt: skip
        assert set(metric.labels) <= allowed, "never pid, source port or peer address"
