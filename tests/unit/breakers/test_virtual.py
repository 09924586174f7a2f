"""Rules that only watch: one trip at a time, and nothing published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuseboard_schemas.records import Action, Mode, Recovery
from fuseboard_streams.core.breakers import Breakers, Fired, Outcome
from fuseboard_streams.core.ruleset import RecoveryPlan, Response, Rung
from tests.unit.breakers.scenes import NOON, SECOND, at, clients, evidence
from tests.unit.breakers.test_holds import ACTOR, ID, PARAMS

PLAN = RecoveryPlan(cooldown_us=30 * SECOND, max_cooldown_us=300 * SECOND, quiet_us=60 * SECOND)
SHADOW = Response("r", (Rung(Action.HALT),), Mode.SHADOW, PLAN)


def by(recovery: Recovery, mode: Mode = Mode.SHADOW) -> Response:
    return replace(SHADOW, mode=mode, recovery=replace(PLAN, by=recovery))


def fired(machine: Breakers, response: Response, seconds: float) -> bool:
    made = machine.fire(ACTOR, at(seconds), response, evidence(), until_us=NOON + 100 * SECOND)
    assert made in (Fired(Outcome.TRIPPED), Fired(Outcome.NOTHING))
    return made.outcome is Outcome.TRIPPED


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.WARN])
@pytest.mark.parametrize(
    ("recovery", "open_s"),
    [(Recovery.PROBE, 30), (Recovery.CLEAR, 60), (Recovery.WINDOW, 100), (Recovery.PERSON, 300)],
)
def test_one_trip_while_it_would_hold(mode: Mode, recovery: Recovery, open_s: int) -> None:
    machine, response = Breakers(PARAMS), by(recovery, mode)
    assert fired(machine, response, 0)
    again = 0 if recovery is Recovery.CLEAR else open_s - 0.001
    assert not fired(machine, response, again)
    assert fired(machine, response, open_s)
    assert (machine.ids(), machine.next_due()) == ((), None)


def test_quiet_counts_from_the_last_firing() -> None:
    machine, response = Breakers(PARAMS), by(Recovery.CLEAR)
    assert [fired(machine, response, seconds) for seconds in (0, 50, 100, 160)] == [True, False, False, True]


def test_a_condition_that_is_on_keeps_it_open() -> None:
    machine, response = Breakers(PARAMS), by(Recovery.CLEAR)
    fired(machine, response, 0)
    machine.burning(ACTOR, "r", at(10))
    assert not fired(machine, response, 900)
    machine.cleared(ACTOR, "r", at(1000))
    assert not fired(machine, response, 1059)
    assert fired(machine, response, 1119)


def test_a_removed_rule_is_forgotten_and_one_that_is_over_is_removed() -> None:
    machine = Breakers(PARAMS)
    fired(machine, SHADOW, 0)
    machine.release_where(lambda _, rule, __: rule == "r", at(1))
    assert (len(machine.virtual), fired(machine, SHADOW, 2)) == (0, True)
    machine.tick(NOON + 31 * SECOND, clients(1))
    assert len(machine.virtual) == 1
    machine.tick(NOON + 32 * SECOND, clients(1))
    assert len(machine.virtual) == 0


def test_one_that_fires_at_every_call_is_remembered_once() -> None:
    machine, response = Breakers(PARAMS), by(Recovery.CLEAR)
    for i in range(1000):
        fired(machine, response, i / 1000)
    assert len(machine.virtual._ends) == 1
    machine.tick(NOON + 60 * SECOND, clients(1))
    assert len(machine.virtual) == 1
    machine.tick(NOON + 61 * SECOND, clients(1))
    assert len(machine.virtual) == 0


def test_undo_and_restore() -> None:
    machine = Breakers(PARAMS)
    machine.begin()
    fired(machine, SHADOW, 0)
    machine.rollback()
    machine.begin()
    assert list(machine.virtual.changes()) == []
    assert fired(machine, SHADOW, 1)
    (change,) = machine.virtual.changes()
    machine.commit()
    successor = Breakers(PARAMS)
    assert change[1] is not None
    successor.virtual.restore(change[0], change[1])
    assert successor.virtual.get(ID, "r") == machine.virtual.get(ID, "r")
    assert not fired(successor, SHADOW, 30.5)
    assert fired(successor, SHADOW, 31)
    machine.begin()
    machine.tick(NOON + 40 * SECOND, clients(1))
    assert list(machine.virtual.changes()) == [(change[0], None)]
