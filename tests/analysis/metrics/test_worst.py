"""The longest hold of the last minutes."""

from porttrace.analysis.metrics.worst import KEPT_NS, SLOT_NS, Worst

S = 1_000_000_000


def test_the_longest_counts_until_it_is_old() -> None:
    worst = Worst()
    worst.tell("gate", 21 * S, 100 * S)
    worst.tell("gate", 3 * S, 200 * S)
    worst.tell("connect", 4 * S, 200 * S)
    assert (worst.of("gate", 200 * S), worst.of("connect", 200 * S)) == (21 * S, 4 * S)
    later = 100 * S + KEPT_NS + 2 * SLOT_NS
    assert (worst.of("gate", later), worst.of("connect", later)) == (3 * S, 4 * S)
    assert worst.of("egress", later) == 0


def test_it_does_not_grow() -> None:
    worst = Worst()
    for second in range(2000):
        worst.tell("gate", second, second * S)
        assert len(worst._slots) <= KEPT_NS // SLOT_NS + 1
    assert worst.of("gate", 2000 * S) == 1999
