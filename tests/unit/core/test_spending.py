"""Budgets and caps against a plain model that keeps every amount, whatever the cuts."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fuseboard_detectors.burn import NEVER, BurnPair
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Settled
from fuseboard_streams.core.hard_caps import DAY_US, Costs, HardCaps, capped_table, next_day, over, usd
from fuseboard_streams.core.objects import Objects
from fuseboard_streams.core.ruleset import BurnTest, CapTest, Match, Rule, Test
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.spending import Spending, spends_table
from tests.unit.core.rules_support import actors, book_of, opened
from tests.unit.core.rules_support import rule as any_rule

PAIRS = (BurnPair((1, 20), 300 * SECOND, 30 * SECOND), BurnPair((1, 10), 1_800 * SECOND, 180 * SECOND))
BUDGET = 5_000_000
T0 = 1_767_225_600 * SECOND + DAY_US - 900 * SECOND
"""A quarter of an hour before midnight."""


def rule(name: str, test: Test, *changed: tuple[Match, Test]) -> Rule:
    return any_rule(name, "spend.usd", Scope.ACTOR, test, *changed)


RULES = (
    rule("burn", BurnTest(BUDGET, PAIRS), (Match(actor="agent-2"), BurnTest(2 * BUDGET, PAIRS))),
    rule("event", CapTest(400_000, daily=False)),
    rule("day", CapTest(1_500_000, daily=True), (Match(actor="agent-1"), CapTest(900_000, daily=True))),
)
Event = tuple[int, int, int, int]
"""Actor, micro-dollars, event time, stream time."""
Found = tuple[str, int, int]
"""Rule, actor, stream time."""


def spending(rules: tuple[Rule, ...] = RULES, settled: Settled = lambda *_: False, limit: int = 100) -> Spending:
    book = book_of(*rules)
    table, objects = actors(book, 4), Objects()
    objects.begin()
    capped = opened(capped_table(CoreSettings(max_actors=limit)))
    caps = HardCaps(capped, table, book, lambda rows, change: None, settled)
    return Spending(opened(spends_table(CoreSettings())), table, book, caps, objects, settled)


def events(seed: int, n: int = 1_500) -> list[Event]:
    """Amounts of four actors around midnight, in quick and in slow stretches, some late, some refused by the caps."""
    rng = random.Random(seed)
    made: list[Event] = []
    stream = T0
    for _ in range(n):
        stream += int(rng.choice((0, 0.02, 0.3, 1, 4, 40)) * rng.random() * SECOND)
        late = rng.choice((0, 0, 0, 2, 8, 31, 200)) * rng.random() * SECOND
        amount = rng.choice((0, 500, 4_000, 20_000, 90_000))
        made.append((rng.randrange(4), 500_000 if rng.random() < 0.003 else amount, int(stream - late), stream))
    return made


def costs(part: list[Event]) -> Costs:
    actor, amount, ts, stream = (np.array(column, dtype=np.int64) for column in zip(*part, strict=True))
    return Costs(actor, amount, ts, stream, np.ones(len(part), dtype=np.bool_))


def run(made: list[Event], cuts: list[int], until: int) -> list[Found]:
    subject = spending()
    found: list[Found] = []
    for a, b in zip([0, *cuts], [*cuts, len(made)], strict=True):
        if a < b:
            firings = sorted(subject.fold(costs(made[a:b])), key=lambda f: f.order)
            found += [(f.view.rule.rule, int((f.target.actor or "")[-1]), f.time_us) for f in firings]
    found += [(f.view.rule.rule, int((f.target.actor or "")[-1]), f.time_us) for f in subject.advance(until)]
    return found


def model(made: list[Event], until: int) -> list[Found]:
    """Every amount kept; each tick asked for whoever has spent since the one before."""
    found: list[Found] = []
    spent: dict[int, list[tuple[int, int]]] = {}
    waiting: dict[int, int] = {}
    days: dict[tuple[int, int], int] = {}

    def within(actor: int, now: int, length: int) -> int:
        width = next(w for w, n in ((5, 6), (30, 10), (180, 12), (900, 12), (3_600, 24)) if length <= w * n)
        cells = length // width
        return sum(
            amount
            for ts, amount in spent[actor]
            if now // (width * SECOND) - ts // (width * SECOND) < cells
        )  # fmt: skip

    def ask(upto: int) -> None:
        for actor, tick in sorted(waiting.items(), key=lambda item: item[1]):
            if tick > upto:
                continue
            del waiting[actor]
            budget = 2 * BUDGET if actor == 2 else BUDGET
            for long, short, share in ((300, 30, Fraction(1, 20)), (1_800, 180, Fraction(1, 10))):
                recent = budget * share * short / long
                if within(actor, tick, long) >= budget * share and within(actor, tick, short) >= recent:
                    found.append(("burn", actor, tick))
                    break

    for actor, amount, ts, stream in made:
        ask(stream)
        if amount == 0:
            continue
        if amount > 400_000:
            found.append(("event", actor, stream))
        day = (actor, stream // DAY_US)
        if ts // DAY_US == stream // DAY_US:
            days[day] = days.get(day, 0) + amount
            if days[day] > (900_000 if actor == 1 else 1_500_000):
                found.append(("day", actor, stream))
        spent.setdefault(actor, []).append((ts, amount))
        waiting[actor] = (stream // SECOND + 1) * SECOND
    ask(until)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = events(seed)
    until = made[-1][3] + 10 * SECOND
    expected = sorted(model(made, until))
    assert {name for name, _, _ in expected} == {"burn", "event", "day"}
    rng = random.Random(seed)
    for pieces in (0, 1, 30, len(made) - 1):
        cuts = sorted(rng.sample(range(1, len(made)), pieces))
        assert sorted(run(made, cuts, until)) == expected


def test_a_budget_of_one_and_a_half_times_the_mean_burns_after_the_stated_time() -> None:
    pairs = (*PAIRS, BurnPair((1, 4), 10_800 * SECOND, 900 * SECOND))
    a_second = 1_000  # a day of it is 86.4 dollars
    budget = 86_400 * a_second * 3 // 2
    for factor, expected in ((100, 65), (20, 648), (5, 6_480)):
        subject = spending((rule("burn", BurnTest(budget, pairs)),))
        at = np.arange(8_000, dtype=np.int64) * SECOND + T0
        n = len(at)
        one = Costs(np.zeros(n, np.int64), np.full(n, factor * a_second), at, at, np.ones(n, np.bool_))
        found = (min(f.time_us for f in subject.fold(one)) - T0) / SECOND
        assert abs(found - expected) <= max(0.02 * expected, 5), (factor, found)


def test_a_window_that_has_emptied_burns_no_more() -> None:
    subject = spending((rule("burn", BurnTest(BUDGET, PAIRS)),))
    made = [(0, 300_000, T0 + i * SECOND, T0 + i * SECOND) for i in range(3)]
    assert [f.view.rule.rule for f in subject.fold(costs(made))] == ["burn", "burn"]
    view = subject.burns[0]
    now, asked = T0 + 3 * SECOND, 0
    on, until = subject.still_on(view, np.array([0, 3]), now)
    assert (on.tolist(), int(until[1])) == ([True, False], NEVER)
    while on[0]:
        # Until then nothing changes: it need not be asked in between.
        now, asked = int(until[0]), asked + 1
        assert subject.still_on(view, np.array([0]), now - 1)[0].tolist() == [True]
        on, until = subject.still_on(view, np.array([0]), now)
    assert T0 + 25 * SECOND <= now <= T0 + 300 * SECOND
    assert asked <= 10
    assert int(until[0]) == NEVER


def test_who_is_waiting_is_found_again_after_a_restore() -> None:
    made = [(0, 300_000, T0 + i * 100, T0 + i * 100) for i in range(3)]
    subject = spending((rule("burn", BurnTest(BUDGET, PAIRS)),))
    assert subject.fold(costs(made)) == []
    assert subject.next_tick == T0 + SECOND
    subject.rebuild(T0 + 200)
    assert subject.next_tick == T0 + SECOND
    assert [f.time_us for f in subject.advance(T0 + 5 * SECOND)] == [T0 + SECOND]
    assert subject.next_tick is None


def test_late_events_and_refunds_change_nothing() -> None:
    subject = spending()
    part = costs([(0, 500_000, T0, T0), (1, 0, T0, T0), (2, -5, T0, T0)])
    assert subject.fold(replace(part, counted=np.zeros(3, np.bool_))) == []
    assert subject.next_tick is None


def test_amounts_and_midnights_in_words() -> None:
    assert [usd(0), usd(1), usd(1_230_000), usd(5_000_000)] == ["$0.00", "$0.000001", "$1.23", "$5.00"]
    assert next_day(T0) == next_day(next_day(T0) - 1) == T0 + 900 * SECOND
    assert next_day(T0 + 900 * SECOND) == T0 + 900 * SECOND + DAY_US


def fold(subject: Spending, *made: Event) -> list[Found]:
    firings = sorted(subject.fold(costs(list(made))), key=lambda f: f.order)
    return [(f.view.rule.rule, int((f.target.actor or "")[-1]), f.time_us) for f in firings]


def test_what_is_late_from_yesterday_does_not_use_up_today() -> None:
    subject = spending((rule("day", CapTest(1_000, daily=True)),))
    midnight = next_day(T0)
    assert (
        fold(
            subject, (0, 600, midnight, midnight), (0, 900, midnight - 1, midnight), (1, 2_000, midnight - 1, midnight)
        )
        == []
    )
    assert fold(subject, (0, 401, midnight, midnight + 5)) == [("day", 0, midnight + 5)]


def test_an_actor_that_is_held_is_not_looked_at_event_by_event() -> None:
    asked = []

    def settled(view: object, number: int, target: Target, now: int, until: int | None) -> bool:
        asked.append((target.actor, now, until))
        return target.actor == "agent-0"

    subject = spending((rule("day", CapTest(10, daily=True)),), settled)
    made = [(i % 2, 11, T0 + i, T0 + i) for i in range(20)]
    assert fold(subject, *made) == [("day", 1, T0 + i) for i in range(1, 20, 2)]
    assert asked == [("agent-0", T0 + 18, next_day(T0)), ("agent-1", T0 + 19, next_day(T0))]
    # Whoever keeps to its limits is never asked about.
    assert fold(subject, (2, 10, T0 + 20, T0 + 20)) == []
    assert len(asked) == 2


def test_every_daily_cap_counts_for_itself_and_those_without_room_are_told() -> None:
    rules = tuple(rule(f"day-{i}", CapTest(10, daily=True)) for i in range(2))
    subject = spending(rules, limit=1)
    subject.caps._table.limit = 3
    assert fold(subject, (0, 11, T0, T0), (1, 11, T0, T0)) == [("day-0", 0, T0), ("day-1", 0, T0), ("day-0", 1, T0)]
    assert subject.caps.untracked == 1


def test_a_row_of_a_day_that_is_over_says_nothing_any_more() -> None:
    subject = spending((rule("day", CapTest(10, daily=True)),))
    fold(subject, (0, 9, T0, T0))
    table, midnight = subject.caps._table, next_day(T0)
    assert over(table, np.array([0], dtype=np.int32), midnight - 1).tolist() == [False]
    assert over(table, np.array([0], dtype=np.int32), midnight).tolist() == [True]
    assert fold(subject, (0, 9, midnight, midnight)) == []


def test_a_rule_that_has_just_come_into_force_counts_from_then_on() -> None:
    burns = rule("burn", BurnTest(BUDGET, PAIRS))
    subject = spending((burns,))
    spent = [(0, 150_000, T0 + i * SECOND, T0 + i * SECOND) for i in range(2)]
    assert fold(subject, *spent) == []
    subject.change(frozenset(), T0 + SECOND)
    # With what was spent before it would burn.
    assert fold(subject, (0, 10, T0 + 2 * SECOND, T0 + 2 * SECOND), (0, 10, T0 + 9 * SECOND, T0 + 9 * SECOND)) == []
    subject.change(subject.bases, T0 + 9 * SECOND)
    # The cells that were under way when it came into force do not count.
    more = [(0, 150_000, T0 + i * SECOND, T0 + i * SECOND) for i in (29, 30, 31, 32)]
    assert fold(subject, *more) == [("burn", 0, T0 + 32 * SECOND)]
