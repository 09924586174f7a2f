"""Whatever comes in, what goes out stays small: a record that no topic takes would stop its worker for good."""

from __future__ import annotations

from typing import Any

import pytest

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.records import Action, BreakerCommand, Override, OverrideKind, Scope, Signal, SignalLevel
from fuseboard_schemas.rules import check_override, check_signal
from fuseboard_streams.core.inputs import Inputs, Received
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.rules.compile import compile_rules
from tests.support.calls import SEEDS, T0, Call, fold
from tests.support.events import signals

MOST = 16_384
"""Bytes; a topic takes a megabyte."""
RULES = b"""
version: 1
breakers:
  loud: {metric: signals.tone, scope: [ACTOR, ACTOR_TOOL, SESSION], test: {kind: signal}, mode: MODE,
         severity: critical, action: REQUIRE_APPROVAL}
"""
NAME = "%" * 256
"""As long as it may be; each of its characters becomes three in a key."""
WORDS = "é" * 2_048


def judged(mode: str) -> Shard:
    """A shard that has seen the longest names, and what a judge may say of them."""
    shard = Shard(0, 1, CoreSettings(), SEEDS, compile_rules(RULES.replace(b"MODE", mode.encode()), "a.yaml").rules)
    fold(shard, [Call(0, tenant=NAME, actor=NAME, tool=NAME, trace=NAME)])
    return shard


def published(shard: Shard, inputs: Inputs) -> list[Signal | BreakerCommand]:
    shard.begin()
    shard.fold(inputs)
    outputs = [each.record for each in shard.take_outputs() if each.record is not None]
    shard.encode_changes(0)
    shard.commit()
    return outputs


def longest(scope: Scope, **target: Any) -> Signal:
    return Signal(
        signal_id=NAME, ts=T0, source=NAME, tenant=NAME, scope=scope, level=SignalLevel.TRIP,
        metric="tone", rule=NAME, rules_version=NAME, event_id=NAME, reason=WORDS, value=1.0, **target,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["enforce", "warn", "shadow"])
@pytest.mark.parametrize(
    ("scope", "target"),
    [
        (Scope.ACTOR, {"actor": NAME}),
        (Scope.ACTOR_TOOL, {"actor": NAME, "tool": NAME}),
        (Scope.SESSION, {"actor": NAME, "trace_id": NAME}),
    ],
)
def test_what_follows_from_the_longest_signal_is_small(mode: str, scope: Scope, target: dict[str, str]) -> None:
    shard, signal = judged(mode), longest(scope, **target)
    assert check_signal(signal) is None
    outputs = published(shard, signals(signal))
    assert len(outputs) == (2 if mode == "enforce" else 1)
    for each in outputs:
        assert len(Encoder(type(each).__name__).encode(each)) < MOST
    (said,) = (each for each in outputs if isinstance(each, Signal))
    assert said.reason is not None
    assert len(said.reason) <= 600
    assert said.reason.startswith("é" * 499 + "…")
    for identity in shard.open_breakers():
        breaker = shard._breakers.get(identity)
        assert breaker is not None
        assert all(len(hold.reason) <= 500 for hold in breaker.holds)


def test_a_signal_says_of_its_target_only_what_names_it() -> None:
    shard = judged("enforce")
    outputs = published(shard, signals(longest(Scope.ACTOR, actor=NAME, tool="t", trace_id="1" * 32)))
    assert [(each.actor, each.tool, each.trace_id) for each in outputs] == [(NAME, None, None)] * 2


def test_what_follows_from_the_longest_order_is_small() -> None:
    shard = judged("enforce")
    order = Override(
        override_id=NAME, ts=T0, tenant=NAME, scope=Scope.SESSION, actor=NAME, trace_id=NAME, person=NAME,
        kind=OverrideKind.TRIP, action=Action.HALT, reason=WORDS,
    )  # fmt: skip
    assert check_override(order, T0) is None
    (command,) = published(shard, Inputs(overrides=[Received(0, T0, order)]))
    assert isinstance(command, BreakerCommand)
    assert len(Encoder("BreakerCommand").encode(command)) < MOST
