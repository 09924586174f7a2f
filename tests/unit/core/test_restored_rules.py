"""A shard that is restored by a worker which had not heard of the shard's rules when it began to."""

from __future__ import annotations

import pytest

from fuseboard_schemas.records import Outcome
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import Call, fold, make_shard

OLD = "version: 1\n"
NEW = """
version: 1
blast_radius: {tenant_actors: 100%}
breakers:
  newer: {metric: calls.failed, scope: ACTOR_TOOL, test: {kind: e-detector}, action: DISABLE_TOOL, mode: enforce}
"""
RULES = {text: compile_rules(text.encode(), "f").rules for text in (OLD, NEW)}
FAILING = [Call(i, Outcome.ERROR) for i in range(30)]
LATER = [Call(600 + i, Outcome.ERROR, tool="another") for i in range(30)]


def put(shard: Shard, text: str, offset: int | None) -> None:
    """Put rules in force, in a transaction that tells nobody anything."""
    shard.begin()
    shard.change_rules(RULES[text], text.encode(), offset)
    assert shard.take_outputs() == []
    shard.encode_changes(100)
    shard.commit()


def restored(text: str, known: str) -> tuple[Shard, Shard]:
    """A shard that runs some rules and holds a breaker, and what another worker restores, which knows other rules."""
    live = make_shard(rules=RULES[text])
    live.begin()
    live.change_rules(RULES[text], text.encode(), 7)
    block = live.encode_changes(1 << 20).block
    live.commit()
    copy = make_shard(rules=RULES[known])
    copy.apply(block)
    copy.finish_restore()
    return live, copy


@pytest.mark.parametrize("known", [OLD, NEW])
def test_it_goes_on_with_the_rules_it_had(known: str) -> None:
    # State of the newer rules was folded under the older ones for good: both had the same version.
    live, copy = restored(NEW, known)
    assert (copy.rules_version, copy.rules_offset) == (RULES[NEW].version, 7)
    assert copy.runs(RULES[NEW].version) == (known == NEW)
    put(copy, NEW, 9)
    assert copy.runs(RULES[NEW].version)
    found = fold(copy, FAILING)
    assert found
    assert found == fold(live, FAILING)
    assert fold(copy, LATER, first_offset=30) == fold(live, LATER, first_offset=30)


def test_an_abort_takes_back_what_it_goes_on_with() -> None:
    _, copy = restored(NEW, OLD)
    copy.begin()
    copy.change_rules(RULES[NEW], NEW.encode(), 9)
    copy.rollback()
    assert copy.rules_in_force == RULES[OLD].version
    assert not copy.runs(RULES[NEW].version)


def test_where_rules_were_found_is_remembered() -> None:
    shard = make_shard(rules=RULES[OLD])
    assert shard.rules_offset is None
    put(shard, OLD, 3)
    assert shard.rules_offset == 3
    put(shard, NEW, None)
    assert shard.rules_offset is None
