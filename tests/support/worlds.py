"""What agents try in tests of several shards: functions of time, the same for every fleet that is given them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from fuseboard_schemas.records import Effect, Outcome
from tests.support.calls import Call

World = Callable[[float, float], Iterator[Call]]


def _call(rng: random.Random, a: float, b: float, actor: str, tool: str, rate: float) -> Call:
    outcome = Outcome.ERROR if rng.random() < rate else Outcome.OK
    return Call(round(rng.uniform(a, b), 3), outcome, actor, tool, effect=Effect.WRITE)


def outage(
    seed: int, actors: int, begins: float, ends: float, *, busy: int = 0, noise: float = 0.01, every: float = 2.0
) -> World:
    """Actors that share three tools, the first of which is down for a while, and else never fails.

    The first ``busy`` actors call ten times as often.
    """

    def calls(a: float, b: float) -> Iterator[Call]:
        rng = random.Random(f"{seed} {a}")
        for i in range(actors):
            for _ in range(10 if i < busy else 1):
                if rng.random() < (b - a) / every:
                    tool = f"tool-{rng.randrange(3)}"
                    down = tool == "tool-0" and begins <= a < ends
                    yield _call(rng, a, b, f"agent-{i}", tool, 1.0 if down else 0.0 if tool == "tool-0" else noise)

    return calls


def ailing(seed: int, actors: int, begins: float, rate: float, every: float = 2.0) -> World:
    """One tool that everybody calls, and that never failed until some of all calls do."""

    def calls(a: float, b: float) -> Iterator[Call]:
        rng = random.Random(f"{seed} {a}")
        for i in range(actors):
            if rng.random() < (b - a) / every:
                yield _call(rng, a, b, f"agent-{i}", "tool-0", rate if a >= begins else 0.0)

    return calls


def hog(seed: int, actors: int, begins: float, share: float = 0.6) -> World:
    """One tool that everybody calls once a second, until one actor makes a share of all calls, and all of them fail."""

    def calls(a: float, b: float) -> Iterator[Call]:
        rng = random.Random(f"{seed} {a}")
        for i in range(actors):
            if rng.random() < b - a:
                yield _call(rng, a, b, f"agent-{i}", "tool-0", 0.01)
        if a >= begins:
            for _ in range(round(actors * share / (1 - share) * (b - a))):
                yield _call(rng, a, b, "hog", "tool-0", 1.0)

    return calls


def sick(
    seed: int, actors: int, broken: int, begins: float, ends: float = 1e9, *, rate: float = 0.45, tools: int = 3
) -> World:
    """Actors with tools of their own; for some time many calls of the first ones fail, whatever the tool."""

    def calls(a: float, b: float) -> Iterator[Call]:
        rng = random.Random(f"{seed} {a}")
        for i in range(actors):
            for _ in range(3 if i < broken else 1):
                if rng.random() < (b - a) * (1.0 if i < broken else 0.3):
                    bad = i < broken and begins <= a < ends
                    yield _call(rng, a, b, f"agent-{i}", f"own-{i}-{rng.randrange(tools)}", rate if bad else 0.01)

    return calls
