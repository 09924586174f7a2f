"""Breakers with several holds: how often ticks are called shows in nothing."""

from __future__ import annotations

from random import Random

import pytest

from fuseboard_schemas.records import Action, Override, OverrideKind
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, encode
from fuseboard_streams.core.breakers import Breakers
from tests.property.breakers.test_holds import KEYS, PARAMS, RESPONSES, SECOND, START, TARGETS


def clients(tenant: str, actor: str) -> int:
    return len(actor)


def run(seed: int, way: str) -> tuple[list[bytes], list[bytes | None]]:
    """A random history under one way of calling ticks: what it published, and what is left."""
    random, machine, log, now = Random(seed), Breakers(PARAMS), list[Breaker](), START
    for i in range(400):
        end = now + random.choice([0, 0, SECOND // 2, 2 * SECOND, 7 * SECOND, 30 * SECOND])
        if way == "each second":
            for second in range(now // SECOND + 1, end // SECOND + 1):
                log += machine.tick(second * SECOND, clients)
        elif way == "when due":
            while (due := machine.next_due()) is not None and due <= end:
                log += machine.tick(due, clients)
        else:
            log += machine.tick(end // SECOND * SECOND, clients)
        now = end
        key, rule, ok = random.choice(KEYS), random.choice(tuple(RESPONSES)), random.random() < 0.8
        moment, kind = Moment(now, "e", i), random.random()
        if kind < 0.4:
            log += machine.fire(
                TARGETS[key], moment, RESPONSES[rule], Evidence(6.0, 0.1, 9, 8, START), until_us=now + 9 * SECOND
            ).changed
        elif kind < 0.5:
            machine.burning(TARGETS[key], rule, moment)
        elif kind < 0.6:
            machine.cleared(TARGETS[key], rule, moment)
        elif kind < 0.9:
            breaker = machine.get(key)
            for _ in range(4):
                log += machine.probe(key, 0 if breaker is None else breaker.epoch, ok, moment)
        else:
            target, order = TARGETS[key], random.choice((OverrideKind.RESET, OverrideKind.TRIP, OverrideKind.BYPASS))
            end = now + random.randrange(1, 20 * SECOND)
            log += machine.order(
                target,
                Override(
                    override_id=str(i), ts=now, tenant=target.tenant, scope=target.scope, actor=target.actor,
                    tool=target.tool, trace_id=target.trace_id, kind=order, action=Action.HALT, person="p",
                    reason="r", expires_at=None if order is OverrideKind.RESET else end,
                ),
                moment,
            ).changed  # fmt: skip
    left = [None if (b := machine.get(key)) is None else encode(b) for key in KEYS]
    return [encode(breaker) for breaker in log], left


@pytest.mark.parametrize("seed", range(12))
def test_any_way_of_ticking_gives_the_same(seed: int) -> None:
    first = run(seed, "each second")
    assert len(first[0]) > 100
    assert run(seed, "when due") == first
    assert run(seed, "at the end") == first
