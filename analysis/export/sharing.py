"""The collision matrix as plain rows, for JSON and Parquet: one for each combination."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

from porttrace.analysis.sharing import why
from porttrace.analysis.sharing_matrix import Trial, options


def row(trial: Trial) -> dict[str, Any]:
    """Return a trial as plain values; `errno` is null where the second never came to listen."""
    return {
        "protocol": trial.first.protocol,
        "call": trial.call,
        "state": trial.state,
        "first_place": trial.first_place,
        "first_options": options(trial.first),
        "first_address": trial.first.address,
        "second_place": trial.second_place,
        "second_options": options(trial.second),
        "one_user": trial.one_user,
        "errno": trial.errno,
        "error": None if trial.errno is None else errno.errorcode.get(trial.errno, ""),
        "predicted": trial.predicted,
        "first_errno": trial.first_errno,
        "why": why(trial.first, trial.second, trial.call),
    }


def parquet_file(trials: Iterable[Trial]) -> Iterator[bytes]:
    """Yield a Parquet file with a row for each trial: all of `row` but `why`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{key: value for key, value in row(trial).items() if key != "why"} for trial in trials]
    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd")
    yield out.getvalue()
