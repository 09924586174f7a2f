"""A worker that takes a shard over knows other rules than the shard's, and others come into force: it does not show."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import Outcome, PaneKind
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Shard
from tests.support.calls import SEEDS, Call, prepared
from tests.support.oracle_rules import RULES

CALLS, PARTITIONS, NUMBER = 500, 4, 3
ACTORS = [
    name
    for name in (f"agent-{i}" for i in range(60))
    if partition_for(actor_key("default", name), PARTITIONS) == NUMBER
][:5]


def history(seed: int) -> list[Call]:
    rng, at, calls = random.Random(seed), 0.0, []
    for i in range(CALLS):
        at += rng.expovariate(5)
        outcome = Outcome.ERROR if 200 < i < 400 and rng.random() < 0.9 else Outcome.OK
        calls.append(Call(at, outcome, rng.choice(ACTORS), rng.choice(("t", "t", "u")), seq=i, cost=10_000))
    return calls


def run(seed: int, *, taken_over: bool) -> tuple[list[Any], list[Any]]:
    """What a shard decides and tells in transactions of some calls, whose rules change now and then."""
    rng, calls = random.Random(f"plan {seed}"), history(seed)
    shard, log = Shard(NUMBER, PARTITIONS, CoreSettings(), SEEDS, RULES[0].rules), list[bytes]()
    rules, outputs, panes = RULES[0], [], []
    for a, b in pairwise(sorted({0, CALLS, *(rng.randrange(CALLS) for _ in range(40))})):
        killed, known, change = rng.random() < 0.3, rng.choice(RULES), rng.random() < 0.3
        rules = rng.choice(RULES) if change else rules
        if taken_over and killed and log:
            shard = Shard(NUMBER, PARTITIONS, CoreSettings(), SEEDS, known.rules)
            for block in log:
                shard.apply(block)
            shard.finish_restore()
            noted = {each.text: each.rules for each in RULES}.get(shard.parts.state.rules_text or b"")
            if noted is not None:
                shard.go_on_under(noted)
        shard.begin()
        if not shard.runs(rules.rules.version):
            shard.change_rules(rules.rules, rules.text)
        shard.fold_tool_calls(prepared(calls[a:b], NUMBER, a))
        outputs += shard.take_outputs()
        panes += [each for each in shard.take_panes() if each.record.kind is not PaneKind.MARKER]
        log.append(shard.encode_changes(256).block)
        shard.commit()
    return outputs, panes


@pytest.mark.parametrize("seed", range(12))
def test_it_goes_on_as_if_nothing_had_happened(seed: int) -> None:
    expected = run(seed, taken_over=False)
    assert run(seed, taken_over=True) == expected
    assert expected[0]
    assert len(expected[1]) > 50
