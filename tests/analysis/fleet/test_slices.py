"""The sum of a recording is small, and says what DuckDB finds in the same attempts."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fleets import made, read
from porttrace.analysis.export.parquet import attempts_file
from porttrace.analysis.fleet.model import Slice
from porttrace.analysis.fleet.reading import summed
from porttrace.analysis.fleet.sketch import ERROR
from porttrace.analysis.recording import load


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five hosts; the fourth has a throttle."""
    return made(tmp_path_factory.mktemp("fleet"), hosts=5)


@pytest.fixture(scope="module")
def sql(paths: list[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with all attempts, as export writes them, in the table `attempts`."""
    for path in paths:
        exported = b"".join(attempts_file(load(path).trace))
        path.with_suffix(".parquet").write_bytes(exported)
    with duckdb.connect() as connection:
        files = f"{paths[0].parent}/*.parquet"
        connection.execute(f"create table attempts as from read_parquet('{files}')")
        yield connection


_FAILED = (
    "('refused', 'timed_out', 'unreachable', 'denied', 'no_port', 'reset', 'failed', 'cancelled')"
)


@pytest.mark.parametrize(
    ("name", "column"), [("destinations", "destination"), ("programs", "comm")]
)
def test_tallies(paths: list[Path], sql: Any, name: str, column: str) -> None:
    # service-10 is the process, worker-N its thread: programs are told by process here
    by = "'service-' || (pid // 1000)" if name == "programs" else column
    rows = sql.execute(
        f"select {by}, count(*), count(*) filter (outcome in {_FAILED}), sum(held_ns), "
        "sum(total_ns), count(distinct host) from attempts group by 1"
    ).fetchall()
    wanted = {who: tuple(map(int, numbers)) for who, *numbers in rows}
    found = read(*paths).tally(name)
    exact = {who: each for who, each in found.entries.items() if not each.over_ns}
    assert len(exact) >= min(len(wanted), 100)
    for who, each in exact.items():
        numbers = each.attempts, each.failed, each.held_ns, each.total_ns
        assert (*numbers, each.hosts.bit_count()) == wanted[who], who


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize(
    ("name", "column", "where"),
    [
        ("held", "held_ns", "true"),
        ("total", "total_ns", "true"),
        ("answer", "wait_beyond_ns", "outcome = 'established' and syn_ns is not null"),
    ],
)
def test_percentiles(
    paths: list[Path], sql: Any, name: str, column: str, where: str, share: float
) -> None:
    select = f"select {column} from attempts where {where} order by 1"
    number = sql.execute(f"select count(*) from attempts where {where}").fetchone()[0]
    rank = int(share * (number - 1))
    (wanted,) = sql.execute(f"{select} limit 1 offset {rank}").fetchone()
    sketch = getattr(read(*paths), name)
    assert sketch.count == number
    assert abs(sketch.percentile(share) - wanted) <= (ERROR + 1e-9) * wanted


def test_outcomes(paths: list[Path], sql: Any) -> None:
    wanted = sql.execute("select outcome, count(*) from attempts group by 1").fetchall()
    assert dict(read(*paths).outcomes) == dict(wanted)


def test_parquet_says_the_same(paths: list[Path], sql: Any) -> None:
    for path in paths:
        one, other = summed(str(path)), summed(str(path.with_suffix(".parquet")))
        assert isinstance(one, Slice) and isinstance(other, Slice)
        assert (one.about.kind, other.about.kind) == ("trace", "parquet")
        for name in (
            "attempts", "failed", "outcomes", "held_ns", "total_ns", "destinations", "programs",
            "images", "places", "findings", "by_rule", "throttles", "facts", "census",
        ):  # fmt: skip
            assert getattr(one, name) == getattr(other, name), name


def test_it_is_small(paths: list[Path]) -> None:
    assert len(pickle.dumps(summed(str(paths[3])))) < 100_000


def test_the_throttle_and_its_facts(paths: list[Path]) -> None:
    found = summed(str(paths[3]))
    assert isinstance(found, Slice)
    assert {(each.rule, each.place, each.slots) for each in found.throttles} == {
        ("serialized-connects", "gate", 1)
    }
    assert ("suspect", "lsm-foreign") in found.facts
    assert ("kernel", "6.1.0-18-amd64") in found.facts
    # of the processes 10, 11 and 12
    assert set(found.images.entries) == {"shop/worker:2.0", "acme/agent:7", "shop/web:1.4"}
