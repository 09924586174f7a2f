"""Actors that are known to burn are not fired on again: a shard that fires every second decides the same."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Action, Override, OverrideKind, Scope, Signal
from fuseboard_streams.core.engine import Engine
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Output, Shard
from fuseboard_streams.core.spending import Spending
from fuseboard_streams.rules.compile import compile_rules
from tests.property.core.test_events import inputs_of
from tests.property.core.test_rules import SHORT, history
from tests.support.calls import SEEDS, T0

TEXT = b"""
version: 1
defaults: {mode: enforce, runbook: "docs/runbooks/{id}.md"}
breakers:
  by-time:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 4.00, per: 24h}, windows: [5%/5m/30s, 10%/30m/3m]}
    ladder: [{action: REQUIRE_APPROVAL}, {action: READ_ONLY, after: 20s}, {action: HALT, after: 40s}]
    recovery: {by: clear, quiet: 30s}
  by-calls:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 3.00, per: 24h}, windows: [5%/5m/30s, 10%/30m/3m]}
    ladder: [{action: REQUIRE_APPROVAL}, {action: READ_ONLY}, {action: HALT, after: 40s}]
    recovery: {by: clear, quiet: 30s}
  by-person:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 6.00, per: 24h}, windows: [5%/5m/30s]}
    ladder: [{action: REQUIRE_APPROVAL}, {action: READ_ONLY, after: 30s}]
    recovery: {by: person}
  warning:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 2.00, per: 24h}, windows: [5%/5m/30s]}
    action: READ_ONLY
    mode: warn
    recovery: {by: clear, quiet: 20s}
  watching:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 5.00, per: 24h}, windows: [5%/5m/30s]}
    action: READ_ONLY
    mode: shadow
    recovery: {by: person}
"""
RULES = replace(compile_rules(TEXT, "test", FailureParams()).rules, blast_radius=None)


def never(*_: Any) -> bool:
    return False


class Tireless(Spending):
    """Fires at every tick."""

    def __init__(self, *args: Any) -> None:
        *others, _ = args
        super().__init__(*others, never)


def order(rng: random.Random, number: int, at: int) -> Received[Override]:
    """A person releases, lifts or trips somebody."""
    kind = rng.choice([OverrideKind.RESET, OverrideKind.RESET, OverrideKind.BYPASS, OverrideKind.TRIP])
    action = Action.HALT if kind is OverrideKind.TRIP else Action.NONE
    expires = None if kind is OverrideKind.RESET else at + rng.choice([30, 90]) * SECOND
    actor = f"actor-{rng.randrange(3)}"
    return Received(
        number,
        at,
        Override(
            override_id=f"order-{number}",
            ts=at,
            tenant="default",
            scope=Scope.ACTOR,
            actor=actor,
            kind=kind,
            action=action,
            person="alice",
            reason="incident",
            expires_at=expires,
        ),
    )


def play(seed: int) -> list[Output]:
    """All that is decided about a history with people's orders in it."""
    shard, rng, outputs = Shard(0, 1, SHORT, SEEDS, RULES), random.Random(seed), list[Output]()
    for number, (topic, records, offset) in enumerate(history(seed)):
        shard.begin()
        shard.fold(inputs_of(topic, records, offset))
        if rng.random() < 0.25:
            shard.fold_overrides([order(rng, number, max(shard.stream_time, T0))])
        outputs += shard.take_outputs()
        shard.encode_changes(600)
        shard.commit()
    shard.begin()
    shard.advance(shard.stream_time + 4_000 * SECOND)
    outputs += shard.take_outputs()
    shard.encode_changes(600)
    shard.commit()
    return outputs


@pytest.mark.parametrize("seed", range(6))
def test_whether_known_burns_are_passed_over_does_not_show(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    passed_over = 0
    settled = Engine._settled

    def counted(self: Engine, *args: Any) -> bool:
        nonlocal passed_over
        found = settled(self, *args)
        passed_over += found
        return found

    with monkeypatch.context() as patch:
        patch.setattr("fuseboard_streams.core.engine.Engine._settled", counted)
        found = play(seed)
    monkeypatch.setattr("fuseboard_streams.core.engine.Spending", Tireless)
    assert found == play(seed)
    assert passed_over > 0


def test_every_rule_of_the_histories_fires() -> None:
    fired = {each.record.rule for seed in range(6) for each in play(seed) if isinstance(each.record, Signal)}
    assert fired == {rule.rule for rule in RULES.rules}
