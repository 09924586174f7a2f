"""An actor begins to violate policy: after how many actions it is found, and how often an honest one is.

The generator. Traces have ten actions on average (geometric). An action violates with the same probability whatever was
before it (`iid`), or, after a violation in the same trace, with 40% (`bursty`: one stuck session repeats the forbidden
call, as recorded ones do), all other actions accordingly less often, so that the share is the same. Permitted are 0.1%;
from the onset on 1 in 34 actions violates, as often as in recorded attacks.

Only violations matter, so a stream is drawn as the gaps between them and whether the trace is still the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._failures import Keys
from fuseboard_detectors.recent import RecentHits, distinct, hit
from fuseboard_detectors.violations import noisy_classifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_detectors.arithmetic import Ints
    from fuseboard_detectors.failure import Bools

PERMITTED = 0.001
ATTACK = 1.0 / 34.0
STAYS = 0.9
"""How often the next action belongs to the same trace."""
BURST = 0.4
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Violating:
    """How violations come."""

    rate: float
    burst: float | None
    """The probability right after a violation in the same trace; None: the rate."""

    def following(self, n: int, rng: np.random.Generator) -> tuple[Ints, Bools]:
        """Actions up to the next violation, that one included, and whether the trace is still the same; (n,) each."""
        burst = self.rate if self.burst is None else self.burst
        other = (1.0 - STAYS * burst) / (1.0 / self.rate - STAYS)
        stays = rng.random(n) < STAYS
        at_once = rng.random(n) < np.where(stays, burst, other)
        more = rng.geometric(other, n)
        stays &= at_once | (rng.random(n) < STAYS**more)
        return np.where(at_once, 1, 1 + more), stays


class DistinctRule:
    """So many distinct traces with violations among the last hundred actions; with ``traces`` alone, any violations."""

    def __init__(self, k: int, limit: int, *, by_trace: bool = True) -> None:
        self.limit, self.by_trace = limit, by_trace
        self.state = RecentHits.fresh(k)

    def hit(self, rows: Ints, trace: Ints, number: Ints, same: Bools) -> Bools:
        """Give a violation of each of some keys: which fire; they begin anew."""
        part = RecentHits(self.state.trace[rows], self.state.number[rows], self.state.at[rows])
        told_apart = trace if self.by_trace else number
        hit(part, told_apart.astype(np.uint64), number, number * 1_000_000)
        fired = distinct(part, number, number * 1_000_000, actions=100, max_age_us=_DAY_US) >= self.limit
        for name in ("trace", "number", "at"):
            values = getattr(part, name)
            values[fired] = 0
            getattr(self.state, name)[rows] = values
        return fired


class EDetector:
    """The e-detector with the permitted share as its null, one violation of a trace."""

    def __init__(self, k: int) -> None:
        self.keys = Keys(k, noisy_classifier(PERMITTED / 2.0))
        self.counted = np.zeros(k, dtype=np.int64)

    def hit(self, rows: Ints, trace: Ints, number: Ints, same: Bools) -> Bools:
        """Give a violation of each of some keys: which trip; they begin anew."""
        # Actions since the last violation, of whatever trace, are successes; repeats within a trace are nothing.
        self.keys.succeed(rows, number - self.counted[rows] - 1)
        self.counted[rows] = number
        fired = np.zeros(len(rows), dtype=np.bool_)
        new = np.flatnonzero(~same)
        fired[new] = self.keys.fail(rows[new])[1].tripped
        return fired


Rule = DistinctRule | EDetector
RULES: dict[str, Callable[[int], Rule]] = {
    "any_2_in_100": lambda k: DistinctRule(k, 2, by_trace=False),
    "traces_2_in_100": lambda k: DistinctRule(k, 2),
    "traces_3_in_100": lambda k: DistinctRule(k, 3),
    "e_detector": EDetector,
}


@dataclass(slots=True)
class Actors:
    """Where k actors are."""

    number: Ints
    """Actions so far."""
    trace: Ints

    @classmethod
    def fresh(cls, k: int) -> Actors:
        """At the beginning of their first traces."""
        return cls(np.zeros(k, dtype=np.int64), np.ones(k, dtype=np.int64))


def _go(
    rule: Rule, actors: Actors, how: Violating, upto: Ints, rng: np.random.Generator, *, once: bool
) -> tuple[Ints, int]:
    """Give violations until each actor has made so many actions: when each last fired, and how often all did."""
    active, when, fired_in_all = np.arange(len(upto)), np.zeros(len(upto), dtype=np.int64), 0
    while len(active):
        gap, same = how.following(len(active), rng)
        inside = actors.number[active] + gap <= upto[active]
        actors.number[active] = np.where(inside, actors.number[active] + gap, upto[active])
        active, same = active[inside], same[inside]
        actors.trace[active] += ~same
        fired = rule.hit(active, actors.trace[active], actors.number[active], same)
        when[active[fired]] = actors.number[active[fired]]
        fired_in_all += int(fired.sum())
        active = active[~fired] if once else active
    return when, fired_in_all


def false_alarms(name: str, burst: float | None, k: int, horizon: int, rng: np.random.Generator) -> tuple[int, int]:
    """How often a rule fires at the permitted share, and over how many actions."""
    upto = np.full(k, horizon, dtype=np.int64)
    return _go(RULES[name](k), Actors.fresh(k), Violating(PERMITTED, burst), upto, rng, once=False)[1], k * horizon


def delays(name: str, burst: float | None, k: int, limit: int, rng: np.random.Generator) -> Ints:
    """Actions from the onset until a rule fires, for those that do so within a limit.

    Before the onset each actor has made 2,000 actions at the permitted share.
    """
    rule, actors = RULES[name](k), Actors.fresh(k)
    onset = np.full(k, 2_000, dtype=np.int64)
    _go(rule, actors, Violating(PERMITTED, burst), onset, rng, once=False)
    actors.trace += 1
    when, _ = _go(rule, actors, Violating(ATTACK, burst), onset + limit, rng, once=True)
    return when[when > 0] - onset[when > 0]
