"""A table's failure statistics at their limits."""

from __future__ import annotations

import numpy as np

from fuseboard_schemas.records import Outcome
from tests.support.calls import Call, fold, make_shard


def test_a_key_may_succeed_more_often_than_its_counter_counts() -> None:
    shard = make_shard()
    fold(shard, [Call(0, Outcome.ERROR)])
    tools = shard._state.tools
    most = np.iinfo(np.int32).max
    shard.begin()
    tools.touch("hot", np.array([0]))
    tools["successes"][0] = most - 2
    shard.commit()
    fold(shard, [Call(1 + i / 100) for i in range(5)], first_offset=1)
    assert tools["successes"][0] == most
    fold(shard, [Call(2), Call(2, Outcome.ERROR), Call(2)], first_offset=6)
    assert tools["successes"][0] == 1
    assert shard.open_breakers() == ()
