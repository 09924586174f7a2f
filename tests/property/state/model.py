"""A store and a dictionary that must agree, whatever is done to both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseboard_streams.core.store import Delta, Store
from fuseboard_streams.core.tables import Column, Family, KeyLimitError, Table

LIMIT = 40
DEFAULTS = {
    "pairs": {
        "key": {"lo": 0, "hi": 0},
        "names": {"name": ""},
        "hot": {"calls": 0, "failures": 0},
        "stat": {"r": 0.0, "p0": 0.005, "window": (0, 0, 0)},
    },
    "plain": {"hot": {"seen": -1, "mask": 0, "on": True}},
}


def make_store() -> Store:
    pairs = Table(
        "pairs",
        [
            Family("key", [Column("lo", np.uint64), Column("hi", np.uint64)]),
            Family("names", [Column("name", str)]),
            Family("hot", [Column("calls", np.int32), Column("failures", np.int32)]),
            Family(
                "stat", [Column("r", np.float64), Column("p0", np.float32, default=0.005), Column("window", "u2", 3)]
            ),
        ],
        capacity=2,
        limit=LIMIT,
        key=("lo", "hi"),
    )
    plain = Table(
        "plain",
        [Family("hot", [Column("seen", "i8", default=-1), Column("mask", "u8"), Column("on", "?", default=True)])],
        capacity=3,
        limit=LIMIT,
    )
    return Store([pairs, plain])


def raw(array: np.ndarray[Any, Any]) -> list[Any]:
    return array.tolist() if array.dtype == object else [item.tobytes() for item in array]


def picture(store: Store) -> dict[str, Any]:
    """Everything observable, floats by their bytes."""
    found: dict[str, Any] = {
        "scalars": dict(store.scalars),
        "objects": {key: store.objects.value(key) for key in store.objects.after(None)},
    }
    for table in store.tables.values():
        high = table.high_water
        assert not table.live[high:].any()
        found[table.name] = {
            "size": table.size,
            "high_water": high,
            "live": np.flatnonzero(table.live).tolist(),
            "used": {f.name: np.flatnonzero(table.used(f.name)).tolist() for f in table.families},
            "columns": {c.name: raw(table[c.name][:high]) for f in table.families for c in f.columns},
        }
    return found


class Model:
    """One table as a dictionary: row -> family -> column -> value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[int, dict[str, dict[str, Any]]] = {}
        self.high_water = 0

    def allocate(self, n: int) -> list[int]:
        dead = [row for row in range(self.high_water) if row not in self.rows]
        rows = (dead + list(range(self.high_water, self.high_water + n)))[:n]
        for row in rows:
            self.rows[row] = {}
        self.high_water = max([self.high_water, *(row + 1 for row in rows)])
        return rows

    def copy(self) -> Model:
        other = Model(self.name)
        other.high_water = self.high_water
        other.rows = {row: {f: dict(v) for f, v in families.items()} for row, families in self.rows.items()}
        return other

    def agrees(self, table: Table) -> None:
        assert table.high_water == self.high_water
        assert table.size == len(self.rows)
        assert np.flatnonzero(table.live).tolist() == sorted(self.rows)
        for family in table.families:
            used = [row for row in sorted(self.rows) if family.name in self.rows[row]]
            assert np.flatnonzero(table.used(family.name)).tolist() == used
            for column in family.columns:
                default = DEFAULTS[self.name][family.name][column.name]
                for row in range(table.high_water):
                    expected = self.rows.get(row, {}).get(family.name, {}).get(column.name, default)
                    got = table[column.name][row]
                    if column.is_text:
                        assert got == expected
                    else:
                        assert got.tobytes() == np.array(expected, column.dtype).tobytes(), (
                            self.name,
                            row,
                            column.name,
                        )


def keys_of(model: Model) -> dict[tuple[int, int], int]:
    return {(f["key"]["lo"], f["key"]["hi"]): row for row, f in model.rows.items() if "key" in f}


def nth_key(n: int) -> tuple[int, int]:
    """The high half alone may tell two keys apart, and so may the low half."""
    return n // 3, n % 3


class Harness:
    """Does everything to a store and to its model, and compares."""

    def __init__(self) -> None:
        self.store = make_store()
        self.models = {name: Model(name) for name in self.store.tables}
        self.log: list[Delta] = []
        self.whole: list[int] = []
        self.most_keys = 60
        self.doomed: set[int] = set()
        self.store.expire("plain", self._expired)
        self.begin()

    def _expired(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        mask = np.array([int(row) in self.doomed for row in rows], bool)
        for row in rows[mask].tolist():
            del self.models["plain"].rows[row]
            self.doomed.discard(row)
        return mask

    def begin(self) -> None:
        self.store.begin()
        self.before = picture(self.store)
        self.models_before = {name: model.copy() for name, model in self.models.items()}
        self.doomed_before = set(self.doomed)

    def allocate(self, n: int) -> None:
        table, model = self.store.tables["plain"], self.models["plain"]
        if len(model.rows) + n <= LIMIT:
            assert table.allocate(n).tolist() == model.allocate(n)
            return
        state = picture(self.store)
        with pytest.raises(KeyLimitError):
            table.allocate(n)
        assert picture(self.store) == state

    def add(self, n: int, first: int) -> None:
        """Adds ``n`` absent keys from the ``first`` one on: those that were freed or rolled back come again."""
        table, model = self.store.tables["pairs"], self.models["pairs"]
        present = keys_of(model)
        n = min(n, LIMIT - len(model.rows))
        keys = [key for key in map(nth_key, range(first, first + LIMIT + n)) if key not in present][:n]
        self.most_keys = max(self.most_keys, first + LIMIT + n)
        lo = np.array([key[0] for key in keys], np.uint64)
        hi = np.array([key[1] for key in keys], np.uint64)
        rows = table.add(lo, hi).tolist()
        assert rows == model.allocate(n)
        for row, (low, high) in zip(rows, keys, strict=True):
            model.rows[row]["key"] = {"lo": low, "hi": high}

    def write(self, name: str, family: str, rows: list[int], values: list[dict[str, Any]]) -> None:
        model, table = self.models[name], self.store.tables[name]
        table.touch(family, np.array(rows, np.int32))
        for row, written in zip(rows, values, strict=True):
            model.rows[row][family] = written
            for column, value in written.items():
                table[column][row] = value

    def free(self, name: str, rows: list[int]) -> None:
        self.store.tables[name].free(np.array(rows, np.int32))
        for row in set(rows):
            del self.models[name].rows[row]
            if name == "plain":
                self.doomed.discard(row)

    def doom(self, row: int) -> None:
        """The next slice that sees this row of ``plain`` forgets it."""
        self.doomed.add(row)

    def encode(self, budget: int, commits: bool) -> None:
        delta = self.store.encode_changes(budget)
        if not commits:
            self.rollback()
            return
        self.store.commit()
        self.log.append(delta)
        self.begin()
        self.restores()

    def rollback(self) -> None:
        self.store.rollback()
        self.models, self.doomed = self.models_before, self.doomed_before
        assert picture(self.store) == self.before
        self.index_agrees()
        self.begin()

    def restores(self) -> None:
        """Every start of a round that a whole round follows gives the live state."""
        starts = [at for at, delta in enumerate(self.log) if delta.starts_round]
        self.whole = [at for at in starts if at == 0 or any(delta.ends_round for delta in self.log[at:])]
        for at in self.whole:
            assert picture(self.restored(at)) == self.before, at

    def restored(self, at: int) -> Store:
        store = make_store()
        for delta in self.log[at:]:
            store.apply(delta.block)
        store.finish_restore()
        return store

    def take_over(self, at: int) -> None:
        """Another worker restores from this block, and goes on."""
        self.rollback()
        self.store = self.restored(at)
        self.store.expire("plain", self._expired)
        self.index_agrees()
        self.begin()

    def index_agrees(self) -> None:
        keys = keys_of(self.models["pairs"])
        every = [nth_key(n) for n in range(self.most_keys)]
        lo = np.array([key[0] for key in every], np.uint64)
        hi = np.array([key[1] for key in every], np.uint64)
        assert self.store.tables["pairs"].find(lo, hi).tolist() == [keys.get(key, -1) for key in every]

    def agrees(self) -> None:
        for name, model in self.models.items():
            model.agrees(self.store.tables[name])
        self.index_agrees()
        after = {key: self.store.objects.value(key) for key in self.store.objects.after(None)}
        for kind in ("breaker", "tool"):
            of_kind = [(key, value) for (k, key), value in after.items() if k == kind]
            assert list(self.store.objects.items(kind)) == of_kind
