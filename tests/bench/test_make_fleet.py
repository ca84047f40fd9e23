"""A synthetic fleet is the same for a seed; a copied host differs in its name and kernel alone."""

from pathlib import Path

from fleets import made, script
from porttrace.analysis.recording import load


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    one, other = (made(tmp_path / name, hosts=2, attempts=50) for name in ("a", "b"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert one[0].read_bytes() != one[1].read_bytes()


def test_copies(tmp_path: Path) -> None:
    base, *copies = made(tmp_path, hosts=3, attempts=50, bases=1)
    first = load(base)
    for path in copies:
        copy = load(path)
        assert copy.complete
        assert copy.trace.host.name == path.stem != first.trace.host.name
        assert copy.trace.rows.tobytes() == first.trace.rows.tobytes()
    assert load(copies[1]).trace.host.kernel != first.trace.host.kernel


def test_hosts_are_of_three_kinds() -> None:
    script("make_trace")
    module = script("make_fleet")
    kinds = [module.kind_of(number) for number in range(100)]
    assert sum(kind.throttled for kind in kinds) == 10
    assert sum(kind.slow for kind in kinds) == 4
