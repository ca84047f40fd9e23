"""Rows moved as bytes are the rows that numpy would have moved field by field."""

import numpy as np
import pytest

from porttrace.analysis.model import ATTEMPT, Attempts, Columns
from porttrace.analysis.rows import copied, in_order, joined, select, take


@pytest.fixture
def rows() -> Attempts:
    raw = np.random.default_rng(1).bytes(50 * ATTEMPT.itemsize)
    table = np.frombuffer(raw, ATTEMPT).copy()
    table["complete"] = table["attempt_id"] % 2 == 0
    return table


def test_rows_at_positions_and_where_a_mask_is_true(rows: Attempts) -> None:
    index = np.array([7, 3, 3, 49])
    assert take(rows, index).tobytes() == rows[index].tobytes()
    assert select(rows, rows["complete"]).tobytes() == rows[rows["complete"]].tobytes()
    assert take(rows[::2], index // 3).tobytes() == rows[::2][index // 3].tobytes()


def test_a_copy_is_not_the_rows_themselves(rows: Attempts) -> None:
    copy = copied(rows)
    copy["pid"] = 0
    assert copied(rows).tobytes() == rows.tobytes() != copy.tobytes()


def test_parts_joined_and_put_in_order(rows: Attempts) -> None:
    parts = [rows[:20], rows[20:20], rows[20:]]
    assert joined(parts, ATTEMPT).tobytes() == rows.tobytes()
    order = np.random.default_rng(2).permutation(50)
    assert in_order(parts, order, ATTEMPT).tobytes() == rows[order].tobytes()
    assert not parts
    assert len(joined([], ATTEMPT)) == len(in_order([], order[:0], ATTEMPT)) == 0


def test_columns_are_those_of_the_rows_and_nobody_may_change_them(rows: Attempts) -> None:
    columns = Columns(rows)
    assert len(columns) == len(rows)
    for name in ATTEMPT.names or ():
        assert columns[name].tobytes() == rows[name].tobytes()
    assert columns["pid"] is columns["pid"]
    with pytest.raises(ValueError, match="read-only"):
        columns["pid"][0] = 1


def test_columns_alone_are_rows_whose_other_fields_are_zero(rows: Attempts) -> None:
    packed = Columns.packed(len(rows), {name: rows[name].copy() for name in ("pid", "daddr")})
    wanted = np.zeros(len(rows), ATTEMPT)
    wanted["pid"], wanted["daddr"] = rows["pid"], rows["daddr"]
    assert np.asarray(packed).tobytes() == wanted.tobytes()
    assert packed["syn_ns"].tolist() == [0] * 50 and set(packed.there()) == {"pid", "daddr"}
    index, mask = np.array([7, 3, 3, 49]), rows["complete"]
    for which in (index, mask, slice(2, 40, 3), [1, 2]):
        assert packed[which].tobytes() == wanted[which].tobytes()
    assert packed[-1] == wanted[-1] and take(packed, index).tobytes() == wanted[index].tobytes()
    assert set(Columns(rows).there()) == set(ATTEMPT.names or ())
