"""The collision matrix of a file as tables of pandas, for notebooks.

`porttrace lab binds -o FILE` writes the file: a row for each combination of two sockets, with the
columns of `export.sharing.row`. `errno` is missing where the second socket never came to listen.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from porttrace.analysis.sharing_matrix import MIXED, NO, NOT_REACHED, ONE_USER, YES

_OPTIONS = ["none", "REUSEADDR", "REUSEPORT", "both"]
_PLACES = ["protocol", "state", "first_place", "second_place"]
_WORDS = {(True, True): YES, (True, False): ONE_USER, (False, False): NO}


def load(path: str | Path) -> pd.DataFrame:
    """Return all combinations of a file, one row each."""
    return pd.read_parquet(path, dtype_backend="numpy_nullable")


def by_options(frame: pd.DataFrame, protocol: str, call: str, state: str) -> pd.DataFrame:
    """Return what options do where addresses collide: rows the first socket, columns the second.

    A cell is "yes", "no", "one user", "mixed" (addresses fare differently), or "." (not reached).
    """
    told = frame.merge(_colliding(frame), on=_PLACES)
    told = told.query("protocol == @protocol and call == @call and state == @state")
    cells = told.groupby(["first_options", "second_options"])[["errno", "one_user"]].apply(_word)
    return cells.unstack().reindex(index=_OPTIONS, columns=_OPTIONS)


def by_addresses(frame: pd.DataFrame, protocol: str, state: str) -> pd.DataFrame:
    """Return which addresses stand side by side with no option set ("yes"), and which do not."""
    plain = _plain(frame).query("protocol == @protocol and state == @state and one_user")
    words = plain.assign(works=(plain["errno"] == 0).map({True: YES, False: NO}))
    grid = words.pivot(index="first_place", columns="second_place", values="works")
    return grid.reindex(index=plain["first_place"].unique(), columns=plain["second_place"].unique())


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.query("call == 'bind' and first_options == 'none' and second_options == 'none'")


def _colliding(frame: pd.DataFrame) -> pd.DataFrame:
    plain = _plain(frame)
    return plain[plain["errno"] != 0][_PLACES].drop_duplicates()


def _word(cell: pd.DataFrame) -> str:
    if cell["errno"].isna().all():
        return NOT_REACHED
    works = (cell["errno"] == 0).fillna(False)
    same, other = set(works[cell["one_user"]]), set(works[~cell["one_user"]])
    if len(same) > 1 or len(other) > 1:
        return MIXED
    return _WORDS.get((bool(same.pop()), bool(other.pop())), MIXED)
