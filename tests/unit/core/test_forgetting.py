"""Idle keys are forgotten by their own last-seen time: that a checkpoint has removed a row never shows."""

from __future__ import annotations

import random

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import BreakerCommand, BreakerState, Outcome, Signal
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import Call, fold, make_shard, prepared

DAY = 86_400.0
# A breaker that opens stays open for longer than the test: otherwise it would be tried again all the time.
OPEN = BreakerParams(base_cooldown_us=10**15, max_cooldown_us=10**15)
SETTINGS = CoreSettings(failure=FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01), breaker=OPEN)


def history(seed: int) -> list[Call]:
    """Visits of a few actors, days apart; some fail often, some trip and are left open."""
    rng = random.Random(seed)
    calls: list[Call] = []
    at = 0.0
    for visit in range(40):
        at += rng.choice([60.0, 3000.0, 4000.0, 3 * DAY, 6.9 * DAY, 7.1 * DAY, 9 * DAY])
        actor = f"a{rng.randrange(5)}"
        rate = rng.choice([0.02, 0.02, 0.3, 0.7])
        for i in range(rng.randrange(5, 60)):
            at += rng.uniform(0, 4)
            failed = rng.random() < rate
            calls.append(
                Call(
                    at,
                    Outcome.ERROR if failed else Outcome.OK,
                    actor=actor,
                    tool=f"t{rng.randrange(2)}",
                    trace=f"{visit}-{i // 4}",
                    client=rng.randrange(2),
                    seq=i,
                )
            )
    return calls


def replay(shard: Shard, calls: list[Call], slice_bytes: int) -> tuple[list[Output], list[int]]:
    """The outputs, and how many rows there were after each batch."""
    outputs: list[Output] = []
    sizes = []
    for offset in range(0, len(calls), 25):
        shard.begin()
        shard.fold_tool_calls(prepared(calls[offset : offset + 25], 0, offset))
        outputs += shard.take_outputs()
        shard.encode_changes(slice_bytes)
        shard.commit()
        sizes.append(sum(shard.keys.values()))
    return outputs, sizes


@pytest.mark.parametrize("seed", range(6))
def test_removal_never_shows(seed: int) -> None:
    """A shard whose checkpoints go round at every batch, and one whose checkpoints hardly move."""
    calls = history(seed)
    removing, keeping = make_shard(SETTINGS), make_shard(SETTINGS)
    removed, sizes = replay(removing, calls, 1 << 20)
    kept, larger = replay(keeping, calls, 1)
    assert removed == kept
    assert removing.counters == keeping.counters
    assert min(b - a for a, b in zip(sizes, larger, strict=True)) >= 0
    assert max(b - a for a, b in zip(sizes, larger, strict=True)) > 3, "rows were removed in one of them only"
    assert any(isinstance(o.record, BreakerCommand) for o in removed)


def test_a_forgotten_key_begins_from_the_prior() -> None:
    """One second more than seven days; at seven days it goes on where it was."""

    def null_after(days: float) -> float:
        calls = [Call(i, Outcome.OK) for i in range(400)]
        calls += [Call(400 + days * DAY + i, Outcome.ERROR) for i in range(20)]
        outputs = fold(make_shard(CoreSettings(breaker=OPEN)), calls)
        return next(o.record.null_p0 or 0.0 for o in outputs if isinstance(o.record, Signal))

    cold = null_after(7.01)
    assert cold == pytest.approx(0.268443085, rel=1e-6)
    assert null_after(6.99) < 0.02


def test_an_open_breakers_key_is_not_forgotten() -> None:
    shard = make_shard(SETTINGS)
    failing = [Call(i, Outcome.ERROR) for i in range(30)]
    replay(shard, failing, 1 << 20)
    assert shard.open_breakers()
    replay(shard, [Call(30 * DAY + i, actor="other") for i in range(100)], 1 << 20)
    assert "ACTOR_TOOL:default/a/t" in shard.open_breakers()
    assert shard.keys["tools"] == 2


def test_a_closed_breaker_is_forgotten_with_a_tombstone() -> None:
    settings = CoreSettings(failure=FailureParams(known_null=0.005))
    shard = make_shard(settings)
    commands = [o for o in fold(shard, [Call(i, Outcome.ERROR) for i in range(5)]) if o.topic == "breaker_commands"]
    (half_open,) = fold(shard, [Call(40, actor="other")], first_offset=5)
    assert isinstance(half_open.record, BreakerCommand)
    gate = half_open.record.breaker_id, half_open.record.epoch
    closed = fold(shard, [Call(41 + i, probe=True, gate=gate) for i in range(14)], first_offset=6)[-1]
    assert isinstance(closed.record, BreakerCommand)
    assert closed.record.state is BreakerState.CLOSED
    outputs = fold(shard, [Call(60 + 7 * DAY, actor="other")], first_offset=20)
    assert [(o.topic, o.key, o.record) for o in outputs] == [("breaker_commands", commands[0].key, None)]
