"""Orders between calls: however the calls are cut, whatever is aborted or restored, the same is decided."""

from __future__ import annotations

import itertools
import random

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Action, BreakerCommand, BreakerState, Cause, Override, OverrideKind, Scope
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import T0, Call, make_shard, prepared
from tests.support.random_calls import cuts_of, random_calls, with_probes

# With this null four failures trip.
SENSITIVE = CoreSettings(failure=FailureParams(trip=1e3, warn=1e2, known_null=0.01))
SIZE = 300


def orders_of(seed: int, calls: list[Call]) -> dict[int, Override]:
    """Orders, by the position of the call before which they come."""
    rng = random.Random(seed)
    orders = {}
    for at in sorted(rng.sample(range(1, len(calls)), 25)):
        call, kind = rng.choice(calls), rng.choice([OverrideKind.RESET] * 3 + [OverrideKind.BYPASS, OverrideKind.TRIP])
        whole = rng.random() < 0.3
        now = T0 + round(calls[at].at * SECOND)
        actions = {OverrideKind.TRIP: Action.HALT if whole else Action.DISABLE_TOOL}
        orders[at] = Override(
            override_id=f"o{at}", ts=now, tenant="default", scope=Scope.ACTOR if whole else Scope.ACTOR_TOOL,
            actor=call.actor, tool=None if whole else call.tool, kind=kind, action=actions.get(kind, Action.NONE),
            person="p", reason="r",
            expires_at=None if kind is OverrideKind.RESET else now + rng.randrange(5, 90) * SECOND,
        )  # fmt: skip
    return orders


def run(shard: Shard, calls: list[Call], orders: dict[int, Override], cuts: list[int], abort: bool) -> list[Output]:
    """Transactions that end at the cuts; an order comes alone between two folds of one."""
    outputs: list[Output] = []
    edges = sorted({0, *cuts, *orders, len(calls)})
    for a, b in itertools.pairwise(edges):
        for again in (True, False) if abort else (False,):
            shard.begin()
            if a in orders:
                shard.fold_overrides([Received(a, orders[a].ts, orders[a])])
            shard.fold_tool_calls(prepared(calls[a:b], 0, a))
            if again:
                shard.rollback()
        outputs += shard.take_outputs()
        shard.encode_changes(300)
        shard.commit()
    return outputs


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cuts_and_aborts_show_in_nothing(seed: int) -> None:
    calls = with_probes(make_shard(SENSITIVE), random_calls(seed, SIZE, tools=3), seed)
    orders = orders_of(seed, calls)
    expected = run(make_shard(SENSITIVE), calls, orders, [], abort=False)
    commands = [o.record for o in expected if isinstance(o.record, BreakerCommand)]
    assert Cause.OVERRIDE in {c.cause for c in commands}
    assert {BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED} & {c.state for c in commands}
    cuts = cuts_of(random.Random(seed), len(calls), 40)
    assert run(make_shard(SENSITIVE), calls, orders, cuts, abort=False) == expected
    assert run(make_shard(SENSITIVE), calls, orders, cuts, abort=True) == expected


def test_the_histories_have_trips_under_orders() -> None:
    """Otherwise the tests here would prove little."""
    seen = set()
    for seed in (1, 2, 3):
        calls = with_probes(make_shard(SENSITIVE), random_calls(seed, SIZE, tools=3), seed)
        outputs = run(make_shard(SENSITIVE), calls, orders_of(seed, calls), [], abort=False)
        seen |= {o.record.cause for o in outputs if isinstance(o.record, BreakerCommand)}
    assert {Cause.OVERRIDE, Cause.TRIP, Cause.EXPIRED} <= seen


@pytest.mark.parametrize("seed", range(2))
def test_a_restored_shard_goes_on_alike(seed: int) -> None:
    calls = with_probes(make_shard(SENSITIVE), random_calls(seed, SIZE, tools=3), seed)
    orders = orders_of(seed, calls)
    live, blocks = make_shard(SENSITIVE), []
    half = SIZE // 2
    for a in range(half):
        live.begin()
        if a in orders:
            live.fold_overrides([Received(a, orders[a].ts, orders[a])])
        live.fold_tool_calls(prepared(calls[a : a + 1], 0, a))
        blocks.append(live.encode_changes(300).block)
        live.commit()
    live.take_outputs()
    restored = make_shard(SENSITIVE)
    for block in blocks:
        restored.apply(block)
    restored.finish_restore()
    rest = {at - half: order for at, order in orders.items() if at >= half}
    # Those of before once more, which both know.
    rest |= {at + 1: order for at, order in list(orders.items())[:3] if at + 1 not in rest}
    assert run(restored, calls[half:], rest, [], abort=False) == run(live, calls[half:], rest, [], abort=False)
