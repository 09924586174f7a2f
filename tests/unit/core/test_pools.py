"""Numbers of tools: only rows of the table make them, whatever agents and other shards write."""

from __future__ import annotations

import numpy as np
import pytest

from fuseboard_schemas.records import Pane, PaneKind
from fuseboard_streams.core import pools
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.pools import Pools
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.shard import Shard
from tests.support.calls import T0, Call, fold, make_shard
from tests.support.calls import prepared as prepared_calls
from tests.support.fleet import rules

RULES = rules()


def shard_with(*tools: str) -> tuple[Shard, Pools]:
    shard = make_shard(rules=RULES)
    fold(shard, [Call(i, tool=tool) for i, tool in enumerate(tools)])
    return shard, shard._second.pools


def named(found: Pools) -> set[str]:
    return {tool for _, tool in found.names if tool}


def test_gates_that_agents_name_make_no_numbers() -> None:
    shard, found = shard_with("t")
    fold(shard, [Call(1 + i / 10, probe=True, gate=(f"TOOL:default/x{i}", 1)) for i in range(50)], first_offset=1)
    assert found.names == [("default", "t")]
    assert found.number("default", "x1") == NONE
    assert found.number("default", "t") == 0
    assert len(found.rows("default", "x1")) == 0
    assert found.names == [("default", "t")]


def test_tools_that_only_others_call_are_owned_without_a_number() -> None:
    """What other shards tell of them counts, as before."""
    shard, found = shard_with("t")
    pane = Pane(
        tenant="default", tool="theirs", kind=PaneKind.SUMS, ts=T0, source_shard=0, sequence=1, from_offset=0,
        next_offset=5, calls=5, rules_version="test",
    )  # fmt: skip
    shard.fold_panes([Received(0, T0, pane)])
    assert found.follows("default", "theirs")
    assert shard._second._owner.seconds(T0 // 1_000_000 + 1)
    assert named(found) == {"t"}


def test_tools_without_a_row_lose_their_numbers_and_others_keep_theirs() -> None:
    shard, found = shard_with("t0", "t1", "t2")
    numbers = {tool: found.number("default", tool) for tool in ("t0", "t1", "t2")}
    shard.begin()
    shard.fold_tool_calls(prepared_calls([Call(5, tool=f"new-{i}") for i in range(40)], 0, 3))
    assert len(named(found)) == 43
    shard.rollback()
    assert named(found) == set(numbers)
    assert {tool: found.number("default", tool) for tool in numbers} == numbers
    fold(shard, [Call(6, tool=f"late-{i}") for i in range(40)], first_offset=3)
    # Numbers that are free are used again.
    assert len(found.names) == len(found.homes) == 43
    assert {tool: found.number("default", tool) for tool in numbers} == numbers
    rows = np.flatnonzero(shard._state.tools.live)
    tools = [shard._identities.tool_names[each] for each in shard._state.tools["tool"][rows].tolist()]
    assert [found.names[each] for each in found.of(rows).tolist()] == [("default", tool) for tool in tools]
    assert min(found.homes) == 0


def test_many_tools_are_numbered_in_steps_that_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making room copies all there is: it may not be done for each."""
    grown: list[int] = []
    concatenate = np.concatenate

    class Numpy:
        def __getattr__(self, name: str) -> object:
            return getattr(np, name)

        @staticmethod
        def concatenate(parts: tuple[np.ndarray, ...]) -> np.ndarray:  # type: ignore[type-arg]
            grown.append(sum(map(len, parts)))
            return concatenate(parts)

        @staticmethod
        def append(*parts: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
            return Numpy.concatenate(tuple(np.atleast_1d(part) for part in parts))

    monkeypatch.setattr(pools, "np", Numpy())
    _, found = shard_with(*(f"t{i}" for i in range(2_000)))
    assert len(found.names) == 2_000
    assert len(grown) < 40
