"""Tables from a file say the same as those made from the trials themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from porttrace.analysis import sharing_frame
from porttrace.analysis.export.sharing import parquet_file
from porttrace.analysis.sharing_matrix import Trial, address_grids, option_grids
from sharing_trials import obedient

TRIALS = (*obedient("tcp"), *obedient("udp"))


def written(tmp_path: Path, trials: tuple[Trial, ...]) -> pd.DataFrame:
    path = tmp_path / "binds.parquet"
    path.write_bytes(b"".join(parquet_file(trials)))
    return sharing_frame.load(path)


def rows(grid: pd.DataFrame) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((str(name), tuple(words)) for name, words in grid.iterrows())


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return written(tmp_path_factory.mktemp("sharing"), TRIALS)


def test_a_row_for_each_trial(frame: pd.DataFrame) -> None:
    assert len(frame) == len(TRIALS)
    assert frame["errno"].isna().sum() == sum(trial.errno is None for trial in TRIALS)
    assert frame["errno"].equals(frame["predicted"])


@pytest.mark.parametrize(
    ("protocol", "call", "state"),
    [
        *(("tcp", "bind", "accepted"), ("tcp", "bind", "listening"), ("tcp", "bind", "time_wait")),
        *(("tcp", "listen", "bound"), ("tcp", "listen", "listening"), ("udp", "bind", "client")),
    ],
)
def test_options_as_the_trials_have_them(
    frame: pd.DataFrame, protocol: str, call: str, state: str
) -> None:
    grid = next(
        grid
        for grid in option_grids(TRIALS)
        if grid.title.startswith(f"{protocol.upper()}, the second calls {call},")
        and state in grid.title
    )
    assert rows(sharing_frame.by_options(frame, protocol, call, state)) == grid.rows


@pytest.mark.parametrize("state", ["listening", "connected", "client"])
def test_addresses_as_the_trials_have_them(frame: pd.DataFrame, state: str) -> None:
    grid = next(grid for grid in address_grids(TRIALS) if f"{state} (TCP)" in grid.title)
    assert rows(sharing_frame.by_addresses(frame, "tcp", state)) == grid.rows


def test_a_cell_that_depends_on_more_is_mixed(tmp_path: Path) -> None:
    trials = list(obedient("udp"))
    at = next(n for n, t in enumerate(trials) if t.first.reuseaddr and t.second.reuseaddr)
    trials[at] = replace(trials[at], errno=98)
    grid = sharing_frame.by_options(written(tmp_path, tuple(trials)), "udp", "bind", "bound")
    assert grid.loc["REUSEADDR", "REUSEADDR"] == "mixed"
