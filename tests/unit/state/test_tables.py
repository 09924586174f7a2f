"""Tables: rows, undo, limits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fuseboard_schemas.errors import FuseboardError
from fuseboard_streams.core.tables import Column, Family, KeyLimitError, Table


def _table(limit: int = 100, capacity: int = 2) -> Table:
    hot = Family("hot", [Column("calls", np.int32), Column("last", np.int64, default=-1)])
    cold = Family("cold", [Column("odds", np.float64, width=3, default=0.5), Column("name", str)])
    return Table("actors", [hot, cold], capacity=capacity, limit=limit)


def _keyed() -> Table:
    return Table("clients", [Family("key", [Column("lo", "u8"), Column("hi", "u8")])], capacity=2, key=("lo", "hi"))


def _rows(*rows: int) -> np.ndarray:
    return np.array(rows, np.int32)


def _keys(*lo: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(lo, np.uint64), np.zeros(len(lo), np.uint64)


def test_rows_come_lowest_dead_first_and_hold_defaults() -> None:
    table = _table()
    table.begin()
    assert table.allocate(5).tolist() == [0, 1, 2, 3, 4]
    table.touch("hot", _rows(1, 3))
    table["calls"][[1, 3]] = 7
    table.free(_rows(3, 1))
    rows = table.allocate(3)
    assert rows.dtype == np.int32
    assert rows.tolist() == [1, 3, 5]
    assert table["calls"][rows].tolist() == [0, 0, 0]
    assert table["last"][rows].tolist() == [-1, -1, -1]
    assert table["odds"].shape == (table.capacity, 3)
    assert table["name"][5] == ""
    assert (table.size, table.high_water) == (6, 6)


def test_missing_keys_get_rows_in_their_order_as_far_as_there_is_room() -> None:
    table = Table("clients", [Family("key", [Column("lo", "u8"), Column("hi", "u8")])], limit=3, key=("lo", "hi"))
    table.begin()
    table.add(*_keys(9))
    rows, first = table.add_missing(*_keys(7, 5, 7, 8, 5, 6, 8))
    assert (rows.tolist(), first.tolist()) == ([1, 2, 1, -1, 2, -1, -1], [0, 1])
    assert table.find(*_keys(9, 7, 5, 8, 6)).tolist() == [0, 1, 2, -1, -1]
    rows, first = table.add_missing(*_keys(8))
    assert (rows.tolist(), first.tolist()) == ([-1], [])
    rows, first = table.add_missing(*_keys())
    assert (rows.tolist(), first.tolist()) == ([], [])


def test_a_column_has_numpys_own_type() -> None:
    """`np.add.at` takes forty times as long for one that is equal and not the same object."""
    for name in ("u1", "i4", "i8", "u8", "f8", "?", np.int64, "<i8"):
        assert Column("calls", name).empty(1).dtype is np.zeros(1, np.dtype(name)).dtype


def test_rollback_after_growth() -> None:
    table = _table()
    table.begin()
    table.allocate(2)
    table.touch("cold", _rows(0))
    table["odds"][0] = [1, 2, 3]
    table["name"][0] = "acme/bot"
    table.commit()
    table.begin()
    table.touch("cold", _rows(0, 0))
    table["odds"][0] = 9
    table["name"][0] = "other"
    table.allocate(60)
    table.touch("cold", _rows(1, 40))
    table["odds"][40] = 8
    table.rollback()
    assert (table.size, table.high_water) == (2, 2)
    assert table.capacity >= 62
    assert table["odds"][0].tolist() == [1, 2, 3]
    assert table["name"][0] == "acme/bot"
    assert (table["odds"][1:] == 0.5).all()
    assert np.flatnonzero(table.used("cold")).tolist() == [0]
    table.begin()
    assert table.allocate(1).tolist() == [2]


def test_what_a_transaction_allocated_freed_and_changed() -> None:
    table = _table()
    table.begin()
    table.allocate(4)
    table.touch("hot", _rows(0, 1, 2, 3))
    table.commit()
    assert table.allocated().tolist() == table.freed().tolist() == table.changed("hot").tolist() == []
    table.begin()
    table.touch("hot", _rows(3, 0, 3))
    table.touch("hot", _rows(2))
    table.free(_rows(0, 1))
    assert table.allocate(3).tolist() == [0, 1, 4]
    table.free(_rows(4, 1))
    table.touch("cold", _rows(0))
    # 0 was freed and given out again, 1 in the end freed, 4 never seen by anybody else.
    assert table.freed().tolist() == [0, 1]
    assert table.allocated().tolist() == [0]
    assert table.changed("hot").tolist() == [2, 3]
    assert table.changed("cold").tolist() == [0]


def test_a_freed_row_must_not_be_touched_or_freed() -> None:
    table = _table()
    table.begin()
    table.allocate(3)
    table.touch("hot", _rows(1))
    table.free(_rows(1))
    for call in (lambda: table.touch("hot", _rows(1)), lambda: table.free(_rows(2, 1))):
        with pytest.raises(ValueError, match="row 1 is not allocated"):
            call()
    assert table.live[2]
    with pytest.raises(ValueError, match="row -1"):
        table.touch("hot", _rows(0, -1))
    assert table.allocate(1).tolist() == [1]
    table.touch("hot", _rows(1))
    assert table.used("hot")[1]


def test_the_limit_is_refused_before_anything_changes() -> None:
    table = _table(limit=5)
    table.begin()
    table.allocate(4)
    with pytest.raises(KeyLimitError, match="4 of at most 5") as caught:
        table.allocate(2)
    assert isinstance(caught.value, FuseboardError)
    assert (table.size, table.high_water, table.allocated().size) == (4, 4, 4)
    assert table.allocate(1).tolist() == [4]
    assert table.capacity == 5


def test_nothing_is_written_outside_a_transaction_or_after_encoding() -> None:
    table = _table()
    for call in (lambda: table.allocate(1), table.commit, table.rollback):
        with pytest.raises(RuntimeError, match="begin\\(\\) first"):
            call()
    table.begin()
    with pytest.raises(RuntimeError, match="inside a transaction"):
        table.begin()
    table.allocate(1)
    table.seal()
    for call in (lambda: table.touch("hot", _rows(0)), lambda: table.free(_rows(0)), lambda: table.allocate(1)):
        with pytest.raises(RuntimeError, match="after its changes were encoded"):
            call()
    table.rollback()
    assert table.size == 0


def test_a_keyed_table_keeps_its_index_through_rollback() -> None:
    table = _keyed()
    table.begin()
    assert table.add(*_keys(10, 11, 12)).tolist() == [0, 1, 2]
    table.commit()
    table.begin()
    table.free(_rows(1))
    assert table.add(*_keys(20, 21)).tolist() == [1, 3]
    assert table.find(*_keys(10, 11, 20, 21)).tolist() == [0, -1, 1, 3]
    table.rollback()
    assert table.find(*_keys(10, 11, 12, 20, 21)).tolist() == [0, 1, 2, -1, -1]
    with pytest.raises(TypeError, match="add"):
        table.allocate(1)
    with pytest.raises(TypeError, match="no key"):
        _table().find(*_keys(1))


def test_add_over_the_limit_leaves_the_index_alone() -> None:
    table = Table("c", [Family("key", [Column("lo", "u8"), Column("hi", "u8")])], limit=2, key=("lo", "hi"))
    table.begin()
    table.add(*_keys(1, 2))
    with pytest.raises(KeyLimitError):
        table.add(*_keys(3))
    assert table.find(*_keys(1, 2, 3)).tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Column("Calls", "i4"),
        lambda: Column("a/b", "i4"),
        lambda: Column("a", "M8[us]"),
        lambda: Column("a", "i4", width=0),
        lambda: Column("a", str, width=2),
        lambda: Table("a b", []),
        lambda: Table("a", [Family("x", [Column("c", "i4")]), Family("y", [Column("c", "i4")])]),
    ],
)
def test_bad_definitions(build: object) -> None:
    with pytest.raises(ValueError, match=r"supported|lower_case|two columns"):
        build()  # type: ignore[operator]
