"""The store against a dictionary: any interleaving of work, aborts and restores."""

from __future__ import annotations

import struct
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fuseboard_streams.core.store import Store
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


floats = st.one_of(
    st.floats(width=64), st.builds(lambda b: struct.unpack("<d", b)[0], st.binary(min_size=8, max_size=8))
)
small_floats = st.floats(width=32)
kinds = st.sampled_from(["breaker", "tool"])
names = st.one_of(st.text(max_size=4), st.text("ab/\0é", max_size=3))
VALUES: dict[str, dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    "pairs": {
        "names": st.fixed_dictionaries({"name": names}),
        "hot": st.fixed_dictionaries({"calls": st.integers(-(2**31), 2**31 - 1), "failures": st.integers(0, 300)}),
        "stat": st.fixed_dictionaries(
            {"r": floats, "p0": small_floats, "window": st.tuples(*[st.integers(0, 2**16 - 1)] * 3)}
        ),
    },
    "plain": {
        "hot": st.fixed_dictionaries(
            {"seen": st.integers(-(2**63), 2**63 - 1), "mask": st.integers(0, 2**64 - 1), "on": st.booleans()}
        )
    },
}


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = make_store()
        self.models = {name: Model(name) for name in self.store.tables}
        self.log: list[Any] = []
        self.delta: Any = None
        self.next_key = 1
        self.before: Any = None
        self.doomed: set[int] = set()
        self._watch(self.store)

    def _watch(self, store: Store) -> None:
        store.expire("plain", self._expired)

    def _expired(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        mask = np.array([int(row) in self.doomed for row in rows], bool)
        for row in rows[mask].tolist():
            del self.models["plain"].rows[row]
            self.doomed.discard(row)
        return mask

    @initialize()
    def start(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.store.begin()
        self.before = (
            picture(self.store),
            {name: model.copy() for name, model in self.models.items()},
            {name: self._keys(model) for name, model in self.models.items()},
            set(self.doomed),
        )
        self.delta = None

    def _keys(self, model: Model) -> dict[tuple[int, int], int]:
        return {(f["key"]["lo"], f["key"]["hi"]): row for row, f in model.rows.items() if "key" in f}

    def writable(self) -> bool:
        return self.delta is None

    @precondition(writable)
    @rule(n=st.integers(0, 12))
    def allocate(self, n: int) -> None:
        table, model = self.store.tables["plain"], self.models["plain"]
        if len(model.rows) + n > LIMIT:
            state = picture(self.store)
            try:
                table.allocate(n)
            except KeyLimitError:
                assert picture(self.store) == state
                return
            raise AssertionError("over the limit")
        assert table.allocate(n).tolist() == model.allocate(n)

    @precondition(writable)
    @rule(n=st.integers(0, 12), again=st.booleans())
    def add(self, n: int, again: bool) -> None:
        table, model = self.store.tables["pairs"], self.models["pairs"]
        n = min(n, LIMIT - len(model.rows))
        # Keys that were freed or rolled back come again; the high half alone may tell two keys apart.
        first = 1 if again else self.next_key
        keys = [key for key in ((k // 3, k % 3) for k in range(first, first + 60)) if key not in self._keys(model)][:n]
        self.next_key += n
        lo = np.array([key[0] for key in keys], np.uint64)
        hi = np.array([key[1] for key in keys], np.uint64)
        assert (table.find(lo, hi) == -1).all()
        rows = table.add(lo, hi).tolist()
        assert rows == model.allocate(len(keys))
        for row, (low, high) in zip(rows, keys, strict=True):
            model.rows[row]["key"] = {"lo": low, "hi": high}

    @precondition(writable)
    @rule(data=st.data(), name=st.sampled_from(["pairs", "plain"]))
    def write(self, data: st.DataObject, name: str) -> None:
        model, table = self.models[name], self.store.tables[name]
        if not model.rows:
            return
        family = data.draw(st.sampled_from(sorted(VALUES[name])))
        rows = data.draw(st.lists(st.sampled_from(sorted(model.rows)), max_size=8))
        table.touch(family, np.array(rows, np.int32))
        for row in rows:
            values = data.draw(VALUES[name][family])
            model.rows[row][family] = values
            for column, value in values.items():
                table[column][row] = value

    @precondition(writable)
    @rule(data=st.data(), name=st.sampled_from(["pairs", "plain"]))
    def free(self, data: st.DataObject, name: str) -> None:
        model, table = self.models[name], self.store.tables[name]
        if not model.rows:
            return
        rows = data.draw(st.lists(st.sampled_from(sorted(model.rows)), max_size=6))
        table.free(np.array(rows, np.int32))
        for row in set(rows):
            del model.rows[row]
            if name == "plain":
                self.doomed.discard(row)

    @precondition(writable)
    @rule(data=st.data())
    def doom(self, data: st.DataObject) -> None:
        rows = sorted(self.models["plain"].rows)
        if rows:
            self.doomed.add(data.draw(st.sampled_from(rows)))

    @precondition(writable)
    @rule(kind=kinds, key=names, value=st.binary(max_size=6))
    def put(self, kind: str, key: str, value: bytes) -> None:
        self.store.objects.put(kind, key, value)
        assert self.store.objects.get(kind, key) == value
        assert dict(self.store.objects.items(kind))[key] == value

    @precondition(writable)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        keys = list(self.store.objects.after(None))
        if keys:
            kind, key = data.draw(st.sampled_from(keys))
            self.store.objects.delete(kind, key)
            assert self.store.objects.get(kind, key) is None

    @precondition(writable)
    @rule(name=names, value=st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), names))
    def scalar(self, name: str, value: Any) -> None:
        self.store.scalars[name] = value

    @precondition(writable)
    @rule(budget=st.sampled_from([0, 1, 40, 200, 100_000]))
    def encode(self, budget: int) -> None:
        self.delta = self.store.encode_changes(budget)

    @precondition(lambda self: self.delta is not None)
    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.log.append(self.delta)
        self.begin()

    @rule()
    def rollback(self) -> None:
        self.store.rollback()
        before, self.models, keys, self.doomed = self.before
        assert picture(self.store) == before
        self._index_agrees(keys["pairs"])
        self.begin()

    @precondition(lambda self: self.log and self.delta is None)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        """Another worker restores, from any round's start that a whole round follows, and goes on."""
        self.rollback()
        starts = [at for at, delta in enumerate(self.log) if delta.starts_round]
        whole = [at for at in starts if at == 0 or any(delta.ends_round for delta in self.log[at:])]
        for at in whole:
            store = make_store()
            for delta in self.log[at:]:
                store.apply(delta.block)
            store.finish_restore()
            assert picture(store) == self.before[0], at
        chosen = data.draw(st.sampled_from(whole))
        store = make_store()
        for delta in self.log[chosen:]:
            store.apply(delta.block)
        store.finish_restore()
        self._watch(store)
        self.store = store
        self._index_agrees(self._keys(self.models["pairs"]))
        self.begin()

    def _index_agrees(self, keys: dict[tuple[int, int], int]) -> None:
        every = [(k // 3, k % 3) for k in range(self.next_key + 60)]
        lo = np.array([key[0] for key in every], np.uint64)
        hi = np.array([key[1] for key in every], np.uint64)
        assert self.store.tables["pairs"].find(lo, hi).tolist() == [keys.get(key, -1) for key in every]

    @invariant()
    def agrees(self) -> None:
        for name, model in self.models.items():
            model.agrees(self.store.tables[name])
        self._index_agrees(self._keys(self.models["pairs"]))


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestStore = StoreMachine.TestCase
