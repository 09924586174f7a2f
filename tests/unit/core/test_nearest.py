"""Which targets are nearest to a trip: against a plain model, and what is left out."""

from __future__ import annotations

import math
import random

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Outcome, Pane, PaneKind
from fuseboard_streams.core import nearest
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.nearest import nearest_to_trip
from fuseboard_streams.core.nearing import Nearing
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Shard
from tests.support.calls import T0, Call, fold, make_shard
from tests.support.fleet import rules

KNOWN = FailureParams(known_null=0.05)


def targets(found: list[Nearing]) -> list[tuple[str | None, str | None]]:
    return [(each.actor, each.tool) for each in found]


def shown(shard: Shard, most: int = 5) -> list[Nearing]:
    return nearest_to_trip(shard.parts, most)


def mixed(seed: int, tools: int = 120, calls: int = 4_000) -> Shard:
    """Tools that fail more or less often, each of an actor of its own."""
    rng = random.Random(seed)
    rates = [rng.choice((0.0, 0.02, 0.1, 0.3)) for _ in range(tools)]
    made = []
    for i in range(calls):
        of = rng.randrange(tools)
        failed = rng.random() < rates[of]
        made.append(Call(i * 0.1, Outcome.ERROR if failed else Outcome.OK, actor=f"a{of}", tool="t"))
    shard = make_shard(CoreSettings(failure=KNOWN), rules=rules(KNOWN))
    fold(shard, made)
    return shard


@pytest.mark.parametrize("seed", range(4))
def test_they_are_those_with_the_strongest_evidence(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Runs of two rows, so that many are needed.
    monkeypatch.setattr(nearest, "_FIRST", 2)
    shard = mixed(seed)
    state = shard.parts.state
    owner = [str(state.actors["actor"][row]) for row in state.tools["actor"][:120]]
    frozen = {owner[row] for row in range(120) if state.tools["frozen"][row]}
    single = {owner[row] for row in range(120) if state.tools["run_failures"][row] == 1}
    above = [
        (-round(math.log10(each.mean), 6), each.actor)
        for each in shard.tool_evidence()
        if each.mean > 1 / each.null_p0 and each.actor not in frozen
    ]
    tools = [each for each in shown(shard, 1_000) if each.tool is not None]
    # A single failure may bring one above rest by a little.
    assert [each.actor for each in tools] == [name for _, name in sorted(above) if name not in single]
    assert len(tools) > 8
    assert shown(shard, 3) == shown(shard, 1_000)[:3]


def test_what_is_said_of_one() -> None:
    shard = make_shard(CoreSettings(failure=KNOWN), rules=rules(KNOWN))
    made = [Call(i) for i in range(50)]
    made += [Call(50 + i, Outcome.ERROR) for i in range(3)]
    fold(shard, [*made, Call(60)])
    of_tool, of_actor = shown(shard)
    mean = shard.tool_evidence()[0].mean
    assert of_tool == Nearing("default", "a", "t", round(math.log10(mean), 6), 6.0, 4, 3)
    # All of it is the tool's: the actor has the same evidence, and comes after it by name.
    assert (of_actor.actor, of_actor.tool, of_actor.evidence_log10) == ("a", None, of_tool.evidence_log10)


def test_whoever_has_tripped_or_is_at_rest_is_left_out() -> None:
    shard = make_shard(CoreSettings(failure=KNOWN), rules=rules(KNOWN))
    broken = [Call(i, Outcome.ERROR, actor="broken", tool=f"t{i % 2}") for i in range(20)]
    fold(shard, [*broken, *(Call(20 + i, actor="well") for i in range(50)), Call(80, Outcome.ERROR, actor="well")])
    assert shard.open_breakers()
    assert "well" not in {each.actor for each in shown(shard)}
    assert ("broken", "t0") not in targets(shown(shard))
    # Successes bring a target back to rest.
    fold(shard, [Call(100 + i, Outcome.ERROR, actor="ill") for i in range(3)], first_offset=1_000)
    assert ("ill", "t") in targets(shown(shard))
    fold(shard, [Call(110 + i, actor="ill") for i in range(200)], first_offset=1_100)
    assert ("ill", "t") not in targets(shown(shard))


def test_an_hour_without_a_call_is_left_out_and_so_are_other_rules_until_the_next_call() -> None:
    shard = make_shard(CoreSettings(failure=KNOWN), rules=rules(KNOWN))
    fold(shard, [Call(i, Outcome.ERROR) for i in range(3)])
    fold(shard, [Call(nearest.RECENT_S + 2, actor="other")], first_offset=10)
    assert ("a", "t") in targets(shown(shard))
    fold(shard, [Call(nearest.RECENT_S + 3, actor="other")], first_offset=20)
    assert shown(shard) == []
    fold(shard, [Call(nearest.RECENT_S + 4)], first_offset=30)
    assert ("a", "t") in targets(shown(shard))
    shard.begin()
    shard.change_rules(rules(KNOWN, version="other"), b"")
    shard.encode_changes(256)
    shard.commit()
    assert shown(shard) == []
    fold(shard, [Call(nearest.RECENT_S + 5)], first_offset=40)
    assert ("a", "t") in targets(shown(shard))


def test_a_tool_as_a_whole_is_shown_by_its_owner() -> None:
    """It fails for too few actors to trip, whatever its evidence."""
    shard = make_shard(CoreSettings(failure=KNOWN), rules=rules(KNOWN))
    fold(shard, [Call(0.5)])
    shard.begin()
    pane = Pane(
        tenant="default", tool="pay", kind=PaneKind.SUMS, ts=T0 + 1_000_000, source_shard=0, from_offset=0,
        next_offset=1, calls=30, failures=30, actors=50, actors_failing=(1, 1, 2, 2), rules_version="test", sequence=1,
    )  # fmt: skip
    marker = Pane(
        tenant="", kind=PaneKind.MARKER, ts=T0 + 2_000_000, source_shard=0, from_offset=0, next_offset=0,
        rules_version="test", sequence=1,
    )  # fmt: skip
    shard.fold_panes([Received(0, T0, pane), Received(1, T0, marker)])
    shard.advance(T0 + 5_000_000)
    shard.encode_changes(256)
    shard.commit()
    (found,) = shown(shard)
    assert (found.actor, found.tool, found.calls, found.failures, found.trip_log10) == (None, "pay", 30, 30, 6.0)
    assert found.evidence_log10 > 6.0


def test_nothing_is_changed_by_looking() -> None:
    shard, same = mixed(1), mixed(1)
    shown(shard)
    for each in (shard, same):
        each.begin()
    assert shard.encode_changes(1 << 20) == same.encode_changes(1 << 20)
