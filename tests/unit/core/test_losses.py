"""Lost events against a plain list of all numbers, whatever the cuts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from fuseboard_schemas.records import Scope
from fuseboard_streams.core.losses import Losses, losses_table
from fuseboard_streams.core.ruleset import LostTest, Match
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.waiting import NEVER
from tests.unit.core.rules_support import actors, book_of, opened, rule

SETTINGS = CoreSettings()
AHEAD = SETTINGS.piece_us
T0 = 1_767_225_600 * SECOND
HOUR = 3_600 * SECOND
BASE, OF_AGENT_1 = LostTest((1, 50), HOUR // 6, 40), LostTest((1, 20), HOUR // 12, 20)
RULES = (rule("lossy", "events.lost", Scope.ACTOR, BASE, (Match(actor="agent-1"), OF_AGENT_1)),)
Event = tuple[int, int, int, int]
"""Actor, expected, gap, stream time."""
Found = tuple[str, int, int, int]
"""Actor, missing, expected, stream time."""


def events(seed: int, n: int = 3_000) -> list[Event]:
    rng = random.Random(seed)
    now, made = T0, []
    for _ in range(n):
        now += int(rng.choice((0, 0.1, 1, 4, 60)) * rng.random() * SECOND)
        gap = rng.choice((1, 1, 3, -1, -1)) if rng.random() < 0.04 else 0
        expected = 0 if gap < 0 else gap + 1
        made.append((rng.randrange(3), expected if rng.random() < 0.97 else 0, gap, now))
    return [(actor, expected, gap if expected or gap < 0 else 0, at) for actor, expected, gap, at in made]


def subject() -> Losses:
    book = book_of(*RULES)
    return Losses(opened(losses_table(SETTINGS)), actors(book, 3), book, SETTINGS, lambda rows, change: None)


def ticks(losses: Losses, until: int) -> list[Found]:
    found: list[Found] = []
    while (tick := losses.next_tick) is not None and tick <= until:
        assert tick % SECOND == 0
        found += [
            (f.target.actor or "", f.facts.failures or 0, f.facts.calls or 0, f.time_us) for f in losses.advance(tick)
        ]
    return found


def fold(losses: Losses, part: list[Event]) -> None:
    losses.fold(*(np.array(column, dtype=np.int64) for column in zip(*part, strict=True)))


def run(made: list[Event], chance: float, rng: random.Random, until: int) -> list[Found]:
    """As a shard does it: pieces end where a tick is due."""
    losses, found, begin = subject(), [], 0
    while begin < len(made):
        found += ticks(losses, made[begin][3])
        limit = min(made[begin][3] + AHEAD, losses.next_tick or 1 << 62)
        end = begin + 1
        while end < len(made) and made[end][3] < limit and rng.random() >= chance:
            end += 1
        fold(losses, made[begin:end])
        begin = end
    return found + ticks(losses, until)


@dataclass
class Actor:
    seen: list[tuple[int, int, int]] = field(default_factory=list)
    lossy: dict[int, bool] = field(default_factory=dict)
    due: dict[int, int] = field(default_factory=dict)

    def within(self, now: int, within: int) -> tuple[int, int]:
        width = within // 30
        inside = [(e, g) for e, g, at in self.seen if now // width - at // width < 30]
        return sum(g for _, g in inside), sum(e for e, _ in inside)


def model(made: list[Event], until: int) -> list[Found]:
    found: list[Found] = []
    state = {number: Actor() for number in range(3)}

    def run_ticks(upto: int) -> None:
        for number, actor in state.items():
            test = OF_AGENT_1 if number == 1 else BASE
            for within, tick in list(actor.due.items()):
                if tick > upto:
                    continue
                del actor.due[within]
                missing, expected = actor.within(tick, within)
                actor.lossy[within] = missing > 0
                enough = expected >= test.minimum and missing * test.share[1] >= expected * test.share[0]
                if enough and within == test.within_us:
                    found.append((f"agent-{number}", missing, expected, tick))

    for number, expected, gap, now in made:
        run_ticks(now)
        actor = state[number]
        if expected == gap == 0:
            continue
        last = actor.seen[-1][2] if actor.seen else 0
        actor.seen.append((expected, gap, now))
        for within in (BASE.within_us, OF_AGENT_1.within_us):
            if now // (within // 30) - last // (within // 30) > 30:
                actor.lossy[within] = False
            actor.lossy[within] = actor.lossy.get(within, False) or gap > 0
            if actor.lossy[within]:
                actor.due.setdefault(within, -(-(now + AHEAD) // SECOND) * SECOND)
    run_ticks(until)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = events(seed)
    until = made[-1][3] + HOUR
    expected = sorted(model(made, until))
    assert {"agent-0", "agent-1"} <= {actor for actor, *_ in expected}
    rng = random.Random(seed)
    for chance in (0.0, 0.1, 1.0):
        assert sorted(run(made, chance, rng, until)) == expected


def test_a_window_that_has_passed_is_lossy_no_more() -> None:
    losses = subject()
    view = losses.views[0]
    fold(losses, [(0, 2, 1, T0 + i * SECOND) for i in range(30)])
    on, until = losses.still_on(view, np.array([2, 0]), T0 + 60 * SECOND)
    assert on.tolist() == [False, True]
    assert until[0] == NEVER
    # It is as it was until the next cell begins.
    assert T0 + 60 * SECOND < until[1] <= T0 + 60 * SECOND + HOUR
    assert losses.still_on(view, np.array([0]), int(until[1]) - 1)[0].tolist() == [True]
    on, until = losses.still_on(view, np.array([0]), T0 + HOUR // 3)
    assert (on.tolist(), until.tolist()) == ([False], [NEVER])


def test_a_client_that_lost_its_count_is_no_endless_loss() -> None:
    losses = subject()
    fold(losses, [(0, 1 << 60, (1 << 60) - 1, T0)])
    assert int(losses._table["missing"].max()) == 1_000_000


def test_actors_beyond_the_limit_are_not_followed_and_are_counted() -> None:
    losses = subject()
    losses._table.limit = 2
    fold(losses, [(0, 1, 0, T0), (1, 1, 0, T0), (0, 1, 0, T0)])
    # Each actor has a row for each of the two windows.
    assert losses.untracked == 3
