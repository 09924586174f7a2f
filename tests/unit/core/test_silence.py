"""Silent actors against one event at a time, whatever the cuts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from fuseboard_schemas.records import Scope
from fuseboard_streams.core.ruleset import Match, SilenceTest
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.silence import Silence, requests_table
from fuseboard_streams.core.waiting import NEVER
from tests.unit.core.rules_support import actors, book_of, opened, rule

SETTINGS = CoreSettings()
AHEAD = SETTINGS.piece_us
T0 = 1_767_225_600 * SECOND
TESTS = {"quick": SilenceTest(2, 20 * SECOND), "slow": SilenceTest(4, 90 * SECOND + 300_000)}
OF_AGENT_1 = SilenceTest(1, 60 * SECOND)
RULES = tuple(
    rule(name, "events.silent", Scope.ACTOR, test, *([(Match(actor="agent-1"), OF_AGENT_1)] if name == "slow" else []))
    for name, test in TESTS.items()
)


@dataclass(frozen=True)
class Event:
    """Something of an actor, or a request that is accepted or not."""

    actor: int
    ts: int
    stream: int
    request: bool
    counted: bool = True


Found = tuple[str, str, int]
"""Rule, actor, stream time."""


def events(seed: int, n: int = 900) -> list[Event]:
    rng = random.Random(seed)
    now, made = T0, []
    quiet = dict.fromkeys(range(3), 0)
    for _ in range(n):
        now += int(rng.choice((0, 0.2, 1, 6, 30)) * rng.random() * SECOND)
        actor = rng.randrange(3)
        if rng.random() < 0.02:
            quiet[actor] = now + int(rng.uniform(5, 200) * SECOND)
        late = int(rng.choice((0, 0, 2, 25)) * rng.random() * SECOND)
        request = quiet[actor] > now or rng.random() < 0.4
        made.append(Event(actor, now - late, now, request, rng.random() < 0.9))
    return made


def subject() -> Silence:
    book = book_of(*RULES)
    return Silence(opened(requests_table(SETTINGS)), actors(book, 3), book, SETTINGS)


def fold(silence: Silence, part: list[Event]) -> None:
    actor = np.array([event.actor for event in part], dtype=np.int64)
    ts, stream = (np.array([getattr(event, name) for event in part], dtype=np.int64) for name in ("ts", "stream"))
    if part[0].request:
        silence.requested(actor, ts, stream, np.array([event.counted for event in part]))
    else:
        silence.heard(actor, ts)


def ticks(silence: Silence, until: int) -> list[Found]:
    found: list[Found] = []
    while (tick := silence.next_tick) is not None and tick <= until:
        assert tick % SECOND == 0
        found += [(f.view.rule.rule, f.target.actor or "", f.time_us) for f in silence.advance(tick)]
    return found


def run(made: list[Event], chance: float, rng: random.Random, until: int) -> list[Found]:
    """As a shard does it: pieces are of one topic and end where a tick is due."""
    silence, found, begin = subject(), [], 0
    while begin < len(made):
        found += ticks(silence, made[begin].stream)
        limit = min(made[begin].stream + AHEAD, silence.next_tick or 1 << 62)
        end = begin + 1
        while (
            end < len(made) and made[end].stream < limit and made[end].request == made[begin].request
            and rng.random() >= chance
        ):  # fmt: skip
            end += 1
        fold(silence, made[begin:end])
        begin = end
    return found + ticks(silence, until)


@dataclass
class Actor:
    heard: int = 0
    asked: list[int] = field(default_factory=list)
    due: int | None = None


def ceil(time: int) -> int:
    return -(-time // SECOND) * SECOND


def limits_of(actor: int) -> dict[str, SilenceTest]:
    return TESTS | {"slow": OF_AGENT_1} if actor == 1 else TESTS


def model(made: list[Event], until: int) -> list[Found]:
    found: list[Found] = []
    state = {actor: Actor() for actor in range(3)}

    def run_ticks(upto: int) -> None:
        for number, actor in state.items():
            while actor.due is not None and actor.due <= upto:
                now, actor.due = actor.due, None
                for name, test in limits_of(number).items():
                    if len(actor.asked) >= test.requests and min(actor.asked) + test.lasting_us <= now:
                        found.append((name, f"agent-{number}", now))
                    elif len(actor.asked) >= test.requests:
                        actor.due = min(actor.due or 1 << 62, ceil(min(actor.asked) + test.lasting_us))

    for event in made:
        run_ticks(event.stream)
        actor = state[event.actor]
        if not event.request:
            # Of whom nothing was requested yet it is not known when it was heard.
            actor.heard, actor.asked, actor.due = max(actor.heard, event.ts), [], None
        elif event.counted and event.ts > actor.heard:
            actor.asked.append(event.ts)
            for test in limits_of(event.actor).values():
                if len(actor.asked) >= test.requests:
                    when = ceil(max(min(actor.asked) + test.lasting_us, event.stream + AHEAD))
                    actor.due = min(actor.due or 1 << 62, when)
    run_ticks(until)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    # A request of each, and an answer: from then on it is known when each was heard.
    made = [Event(i % 3, T0, T0, request=i < 3) for i in range(6)] + events(seed)
    until = made[-1].stream + 300 * SECOND
    expected = sorted(model(made, until))
    assert {name for name, _, _ in expected} == {"quick", "slow"}
    rng = random.Random(seed)
    for chance in (0.0, 0.2, 1.0):
        assert sorted(run(made, chance, rng, until)) == expected


def test_whoever_answers_is_silent_no_more() -> None:
    silence = subject()
    view = silence.views[0]
    fold(silence, [Event(0, T0 + i, T0 + i, request=True) for i in range(3)])
    assert silence.still_on(view, np.array([0]), T0 + 10 * SECOND)[0].tolist() == [False]
    silence._actors.touch("hot", np.array([0]))
    silence._actors["last_seen"][0] = T0 // SECOND - 946_684_800
    assert [f.time_us for f in silence.advance(silence.next_tick or 0)] == [T0 + 20 * SECOND]
    on, until = silence.still_on(view, np.array([1, 0]), T0 + 20 * SECOND)
    assert on.tolist() == [False, True]
    # Nothing but an answer ends it, until the actor is forgotten.
    forgotten = T0 + CoreSettings().forget_after_us + SECOND
    assert until.tolist() == [NEVER, forgotten]
    assert silence.still_on(view, np.array([0]), forgotten - SECOND)[0].tolist() == [True]
    assert silence.still_on(view, np.array([0]), forgotten)[0].tolist() == [False]
    fold(silence, [Event(0, T0 + 21 * SECOND, T0 + 21 * SECOND, request=False)])
    assert silence.still_on(view, np.array([0]), T0 + 22 * SECOND)[0].tolist() == [False]
    assert silence.next_tick is None


def test_an_actor_of_which_nothing_is_requested_costs_nothing() -> None:
    silence = subject()
    fold(silence, [Event(0, T0 + i, T0 + i, request=False) for i in range(3)])
    fold(silence, [Event(0, T0 + i, T0 + i, request=True, counted=False) for i in range(3)])
    assert silence._table.size == 0
