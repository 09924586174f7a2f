"""The store against a dictionary: any interleaving of work, aborts and restores."""

from __future__ import annotations

import random
import struct
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.property.state.model import Harness

BUDGETS = [0, 1, 40, 200, 100_000]
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


tables = st.sampled_from(sorted(VALUES))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness()

    @rule(n=st.integers(0, 12))
    def allocate(self, n: int) -> None:
        self.harness.allocate(n)

    @rule(n=st.integers(0, 12), first=st.integers(0, 90))
    def add(self, n: int, first: int) -> None:
        self.harness.add(n, first)

    @rule(data=st.data(), name=tables)
    def write(self, data: st.DataObject, name: str) -> None:
        family = data.draw(st.sampled_from(sorted(VALUES[name])))
        rows = self._rows(data, name)
        self.harness.write(name, family, rows, [data.draw(VALUES[name][family]) for _ in rows])

    @rule(data=st.data(), name=tables)
    def free(self, data: st.DataObject, name: str) -> None:
        self.harness.free(name, self._rows(data, name))

    @rule(data=st.data())
    def doom(self, data: st.DataObject) -> None:
        for row in self._rows(data, "plain"):
            self.harness.doom(row)

    @rule(kind=kinds, key=names, value=st.binary(max_size=6))
    def put(self, kind: str, key: str, value: bytes) -> None:
        self.harness.store.objects.put(kind, key, value)
        assert self.harness.store.objects.get(kind, key) == value

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        keys = list(self.harness.store.objects.after(None))
        if keys:
            kind, key = data.draw(st.sampled_from(keys))
            self.harness.store.objects.delete(kind, key)
            assert self.harness.store.objects.get(kind, key) is None

    @rule(name=names, value=st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), names))
    def scalar(self, name: str, value: Any) -> None:
        self.harness.store.scalars[name] = value

    @rule(budget=st.sampled_from(BUDGETS), commits=st.sampled_from([True, True, True, False]))
    def encode(self, budget: int, commits: bool) -> None:
        self.harness.encode(budget, commits)

    @rule()
    def rollback(self) -> None:
        self.harness.rollback()

    @precondition(lambda self: self.harness.whole)
    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        self.harness.take_over(data.draw(st.sampled_from(self.harness.whole)))

    @invariant()
    def agrees(self) -> None:
        self.harness.agrees()

    def _rows(self, data: st.DataObject, name: str) -> list[int]:
        rows = sorted(self.harness.models[name].rows)
        return data.draw(st.lists(st.sampled_from(rows), max_size=8)) if rows else []


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestStore = StoreMachine.TestCase


def _value(rng: random.Random, name: str, family: str) -> dict[str, Any]:
    if name == "plain":
        seen = 1_700_000_000_000_000 + rng.randrange(10 ** rng.randrange(1, 12))
        return {"seen": seen, "mask": rng.getrandbits(64) | 1 << 63, "on": rng.random() < 0.5}
    if family == "names":
        return {"name": rng.choice(["", "a/b", "t\0actor", "ü", "日本"]) + str(rng.randrange(9))}
    if family == "hot":
        return {"calls": rng.randrange(-(2**31), 2**31), "failures": rng.randrange(300)}
    return {"r": rng.random() ** -3, "p0": 0.25 * rng.randrange(8), "window": tuple(rng.choices(range(65536), k=3))}


def _work(harness: Harness, rng: random.Random) -> None:
    name = rng.choice(["pairs", "plain"])
    rows = sorted(harness.models[name].rows)
    some = rng.choices(rows, k=rng.randrange(8)) if rows else []
    match rng.randrange(9):
        case 0:
            harness.allocate(rng.randrange(3))
        case 1:
            harness.add(rng.randrange(6), rng.randrange(100))
        case 2:
            harness.free(name, some[:3])
        case 3 if name == "plain" and some:
            harness.doom(some[0])
        case 4:
            harness.store.objects.put(rng.choice(["breaker", "tool"]), str(rng.randrange(12)), rng.randbytes(3))
        case 5:
            harness.store.objects.delete(rng.choice(["breaker", "tool"]), str(rng.randrange(12)))
        case 6:
            harness.store.scalars["clock"] = rng.randrange(2**62)
        case _:
            family = rng.choice(sorted(VALUES[name]))
            harness.write(name, family, some, [_value(rng, name, family) for _ in some])
    harness.agrees()


@pytest.mark.parametrize("seed", range(3))
def test_long_histories(seed: int) -> None:
    rng = random.Random(seed)
    harness = Harness()
    for _ in range(60):
        for _ in range(rng.randrange(12)):
            _work(harness, rng)
        if rng.random() < 0.15:
            harness.rollback()
        else:
            harness.encode(rng.choice(BUDGETS), rng.random() < 0.8)
        if harness.whole and rng.random() < 0.1:
            harness.take_over(rng.choice(harness.whole))
        # A long log costs a restore from each of its rounds at every commit: trim it, as the worker does.
        del harness.log[: harness.whole[-4] if len(harness.whole) > 8 else 0]
        harness.restores()
    assert harness.whole
