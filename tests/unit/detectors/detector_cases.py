"""How every detector is fed for the conformance tests: streams of events with ticks between them, cut anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import (
    attribution,
    burn,
    caps,
    exceed,
    failure,
    first_use,
    guard,
    loops,
    lost,
    objectives,
    pooled,
    recent,
    seen,
    silence,
    ungated,
    violations,
)

Array = NDArray[Any]
SECOND = 1_000_000
KEYS = 5
SHORT = failure.FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01)
GOAL = objectives.ObjectiveParams((1, 20), 240 * SECOND, minimum=10, grace_us=20 * SECOND)
REFERENCE = exceed.ExceedParams(reference=100)
GUARD = guard.GuardParams()
PAIRS = (burn.BurnPair((1, 20), 300 * SECOND, 30 * SECOND),)
LOST_WITHIN = 60 * SECOND


class State(Protocol):
    """A dataclass of arrays."""

    __dataclass_fields__: dict[str, Any]


@dataclass(slots=True)
class Stream:
    """Events in their order, shape (n,) each; the key -1 is a tick at its time."""

    key: NDArray[np.int64]
    at: NDArray[np.int64]
    bad: NDArray[np.bool_]
    amount: NDArray[np.int64]
    thing: NDArray[np.uint64]
    """A trace, a call, a span."""

    def part(self, which: Any) -> Stream:
        return Stream(*(getattr(self, f.name)[which] for f in fields(Stream)))

    def __len__(self) -> int:
        return len(self.key)


Feed = Callable[[Any, Stream], list[Array]]


@dataclass(frozen=True, slots=True)
class Case:
    """A detector: its state, how it takes a piece without ticks (outputs by event), and what it says at a tick."""

    name: str
    fresh: Callable[[], Any]
    take: Callable[[Any, Stream], tuple[Array, ...]]
    at_tick: Callable[[Any, int], tuple[Array, ...]] | None = None
    state_bytes: int = 0
    """Of one key."""
    by_second: bool = False
    """It takes whole seconds: a tick's events are given together."""
    keyed: bool = True
    """Whether a key's outputs depend on its own events alone."""


def draw(seed: int, n: int = 600) -> Stream:
    """A stream over a few minutes; each key has good and bad times."""
    rng = np.random.default_rng(seed)
    step = rng.choice([0, 1_000, 300_000, 2 * SECOND, 20 * SECOND], n, p=[0.3, 0.3, 0.3, 0.08, 0.02])
    at = 86_400 * SECOND - 60 * SECOND + np.cumsum(step)
    key = rng.integers(0, KEYS, n)
    rate = rng.choice([0.02, 0.1, 0.6], (KEYS, 6))[key, np.arange(n) * 6 // n]
    stream = Stream(
        key, at, rng.random(n) < rate, rng.integers(0, 5_000, n) ** 2, rng.integers(1, 40, n).astype(np.uint64)
    )
    return with_ticks(stream)


def with_ticks(stream: Stream) -> Stream:
    """A tick before the first event of every later second."""
    second = stream.at // SECOND
    places = np.flatnonzero(np.diff(second)) + 1
    inserted = [np.insert(getattr(stream, f.name), places, getattr(stream, f.name)[places]) for f in fields(Stream)]
    ticked = Stream(*inserted)
    ticks = places + np.arange(len(places))
    ticked.key[ticks] = -1
    ticked.at[ticks] = second[places] * SECOND
    return ticked


def run(case: Case, state: Any, stream: Stream, cuts: list[int]) -> list[list[Any]]:
    """The outputs for every event and tick, as plain lists, with the stream given in pieces."""
    found: list[list[Any]] = []
    waiting: list[Stream] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece = stream.part(slice(begin, end))
        ticks = np.flatnonzero(piece.key < 0)
        for start, stop in zip([-1, *ticks], [*ticks, len(piece)], strict=True):
            calm = piece.part(slice(start + 1, stop))
            if case.by_second:
                waiting.append(calm)
                last = end == len(stream) and stop == len(piece)
                if not last and stop == len(piece):
                    continue
                calm, waiting = joined(waiting), []
            if len(calm):
                found += zip(*(out.tolist() for out in case.take(state, calm)), strict=True)
            if stop < len(piece) and case.at_tick is not None:
                found.append([out.tolist() for out in case.at_tick(state, int(piece.at[stop]))])
    return found


def joined(parts: list[Stream]) -> Stream:
    return Stream(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Stream)))


def rows_of(state: Any, rows: Array) -> Any:
    """A copy of some rows, as a piece works on them."""
    return type(state)(*(getattr(state, f.name)[rows] for f in fields(state)))


def put_back(state: Any, rows: Array, part: Any) -> None:
    for f in fields(state):
        getattr(state, f.name)[rows] = getattr(part, f.name)


def sorted_by_key(
    take: Callable[[Any, Array, Stream], tuple[Array, ...]],
) -> Callable[[Any, Stream], tuple[Array, ...]]:
    """A fold over events that are sorted by key, given events in any order."""

    def feed(state: Any, stream: Stream) -> tuple[Array, ...]:
        order = np.argsort(stream.key, kind="stable")
        ordered = stream.part(order)
        rows, starts = np.unique(ordered.key, return_index=True)
        part = rows_of(state, rows)
        outputs = take(part, starts, ordered)
        put_back(state, rows, part)
        unsorted = [np.empty_like(out) for out in outputs]
        for target, out in zip(unsorted, outputs, strict=True):
            target[order] = out
        return tuple(unsorted)

    return feed


def one_by_one(
    take: Callable[[Any, Array, Stream], tuple[Array, ...]],
) -> Callable[[Any, Array, Stream], tuple[Array, ...]]:
    """A step for one event of each key, given runs of them: the first of every key, then the second, and so on."""

    def feed(part: Any, starts: Array, stream: Stream) -> tuple[Array, ...]:
        turn = np.arange(len(stream)) - np.repeat(starts, np.diff(starts, append=len(stream)))
        own = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(stream)))
        outputs: list[Array] = []
        for number in range(int(turn.max()) + 1):
            now = np.flatnonzero(turn == number)
            some = rows_of(part, own[now])
            found = take(some, own[now], stream.part(now))
            put_back(part, own[now], some)
            outputs = outputs or [np.zeros(len(stream), out.dtype) for out in found]
            for target, out in zip(outputs, found, strict=True):
                target[now] = out
        return tuple(outputs)

    return feed


# --- the detectors


def _failures(state: failure.FailureState, _: Array, stream: Stream) -> tuple[Array, ...]:
    bad = np.flatnonzero(stream.bad)
    state.successes[~stream.bad] += 1
    tripped = np.zeros(len(stream), dtype=np.bool_)
    part = rows_of(state, bad)
    tripped[bad] = failure.count_failure(part, stream.at[bad], SHORT).tripped
    put_back(state, bad, part)
    again = np.flatnonzero(tripped)
    part = rows_of(state, again)
    failure.restart(part)
    put_back(state, again, part)
    return (tripped,)


def _ring(state: attribution.FailureRing, _: Array, stream: Stream) -> tuple[Array, ...]:
    none = np.full(len(stream), -1)
    attribution.remember(state, (stream.thing % 3).astype(np.int64), stream.amount % 9, state.base_p0, none, SHORT)
    return (state.size,)


def _recent(state: recent.RecentHits, _: Array, stream: Stream) -> tuple[Array, ...]:
    number = stream.at // 1_000
    recent.hit(state, stream.thing, number, stream.at)
    return (recent.distinct(state, number, stream.at, actions=60_000, max_age_us=30 * SECOND),)


def _loops(state: loops.LoopState, starts: Array, stream: Stream) -> tuple[Array, ...]:
    counts = loops.fold(state, starts, stream.bad, stream.thing % 3 + np.uint64(1), stream.amount % 5 == 0)
    return counts.failures, counts.identical


def _burn(state: burn.Spending, stream: Stream) -> tuple[Array, ...]:
    burn.roll(state, int(stream.at.max()))
    burn.spend(state, stream.key, stream.at, stream.amount)
    return (stream.key,)


def _burning(state: burn.Spending, now: int) -> tuple[Array, ...]:
    burn.roll(state, now)
    return (burn.burning(state, 4 * 10**9, PAIRS),)


def _caps(state: caps.DaySpending, starts: Array, stream: Stream) -> tuple[Array, ...]:
    late = np.where(stream.bad, stream.at - 30 * SECOND, stream.at)
    totals = caps.fold(state, starts, late, stream.at, stream.amount)
    return totals.spent, totals.counted, caps.over_day(totals, stream.amount, 10**8)


def _exceed(state: exceed.ReferenceState, starts: Array, stream: Stream) -> tuple[Array, ...]:
    found = exceed.observe(state, starts, stream.amount, REFERENCE)
    return found.judged, found.reached


def _silence(state: silence.Unanswered, starts: Array, stream: Stream) -> tuple[Array, ...]:
    silence.fold(state, starts, stream.at, ~stream.bad)
    return (stream.key,)


def _silent(state: silence.Unanswered, now: int) -> tuple[Array, ...]:
    return (silence.silent(state, now, requests=3, lasting_us=10 * SECOND),)


def _lost(state: lost.LostCounts, stream: Stream) -> tuple[Array, ...]:
    lost.roll(state, int(stream.at.max()), LOST_WITHIN)
    lost.count(state, stream.key, stream.at, stream.amount % 9, stream.bad.astype(np.int64), LOST_WITHIN)
    return (stream.key,)


def _losing(state: lost.LostCounts, now: int) -> tuple[Array, ...]:
    lost.roll(state, now, LOST_WITHIN)
    return (lost.losing(state, (1, 20), 20),)


def _ungated(state: ungated.Breaches, stream: Stream) -> tuple[Array, ...]:
    opened = stream.at - stream.amount
    found = ungated.ungated(stream.at, opened, ~stream.bad, stream.thing % 7 == 0, after_us=5 * SECOND)
    ungated.count(state, stream.key, stream.at, found)
    return (found,)


@dataclass(slots=True)
class Uses:
    """Both states of `first_use`: actors, and forty tools of each."""

    calls: Array
    used: Array


def _uses(state: Uses, stream: Stream) -> tuple[Array, ...]:
    order = np.argsort(stream.key, kind="stable")
    rows, starts = np.unique(stream.key[order], return_index=True)
    actors, tools = first_use.Experience(state.calls[rows]), first_use.Used(state.used.reshape(-1))
    tool = stream.key[order] * 40 + stream.thing[order].astype(np.int64)
    found = np.empty(len(stream), dtype=np.bool_)
    found[order] = first_use.fold(actors, tools, starts, tool, after=20)
    state.calls[rows] = actors.calls
    return (found,)


def _objective(state: objectives.ObjectiveCounts, stream: Stream) -> tuple[Array, ...]:
    objectives.roll(state, int(stream.at.max()), GOAL)
    objectives.count(state, stream.key, stream.at, stream.bad.astype(np.int64), np.ones(len(stream), np.int64), GOAL)
    return (stream.key,)


def _met(state: objectives.ObjectiveCounts, now: int) -> tuple[Array, ...]:
    objectives.roll(state, now, GOAL)
    return objectives.states(state, GOAL), *objectives.window(state, GOAL)


def _seen(state: seen.Seen, stream: Stream) -> tuple[Array, ...]:
    return (seen.first_times(state, stream.thing + stream.key.astype(np.uint64) * np.uint64(64)),)


def _violations(state: seen.Seen, stream: Stream) -> tuple[Array, ...]:
    found = violations.violations(state, stream.thing, stream.bad)
    return found.counted, found.critical


def _pooled(state: pooled.PooledState, stream: Stream) -> tuple[Array, ...]:
    second = stream.at // SECOND
    failed = stream.bad.astype(np.int64)
    sums = pooled.capped(second, stream.key, stream.thing.astype(np.int64) % 4, 1 - failed, failed, cap=3)
    tripped = np.zeros(len(stream), dtype=np.bool_)
    for now in np.unique(sums.second):
        this = sums.second == now
        rows = sums.tool[this]
        part = rows_of(state, rows)
        step = pooled.count_pane(part, sums.successes[this], sums.failures[this], sums.second[this], SHORT)
        pooled.restart(part, step.tripped)
        put_back(state, rows, part)
        tripped |= (second == now) & np.isin(stream.key, rows[step.tripped])
    return (tripped,)


def _guard(state: guard.GuardState, stream: Stream) -> tuple[Array, ...]:
    limit = guard.limits(np.full(KEYS, 40), GUARD)
    asked = np.flatnonzero(stream.bad)
    granted = np.zeros(len(stream), dtype=np.bool_)
    found = guard.decide(state, stream.key[asked], stream.at[asked], stream.thing[asked], limit, GUARD)
    granted[asked] = found.granted
    return (granted,)


def _guard_tick(state: guard.GuardState, now: int) -> tuple[Array, ...]:
    if now // SECOND % 7 == 0:
        guard.clear(state, np.arange(KEYS))
        guard.release(state, np.arange(KEYS), np.ones(KEYS, np.int64))
    return state.open, state.withheld


CASES = (
    Case("failure", lambda: failure.FailureState.fresh(KEYS, SHORT), sorted_by_key(one_by_one(_failures)), None, 144),
    Case(
        "attribution",
        lambda: attribution.FailureRing.fresh(KEYS, 5, np.full(KEYS, 0.02)),
        sorted_by_key(one_by_one(_ring)),
        None,
        1336,
    ),
    Case("recent", lambda: recent.RecentHits.fresh(KEYS), sorted_by_key(one_by_one(_recent)), None, 192),
    Case("loops", lambda: loops.LoopState.fresh(KEYS), sorted_by_key(_loops), None, 24),
    Case("burn", lambda: burn.Spending.fresh(KEYS), _burn, _burning, 520),
    Case("caps", lambda: caps.DaySpending.fresh(KEYS), sorted_by_key(_caps), None, 16),
    Case("exceed", lambda: exceed.ReferenceState.fresh(KEYS), sorted_by_key(_exceed), None, 280),
    Case("silence", lambda: silence.Unanswered.fresh(KEYS), sorted_by_key(_silence), _silent, 24),
    Case("lost", lambda: lost.LostCounts.fresh(KEYS), _lost, _losing, 488),
    Case("ungated", lambda: ungated.Breaches.fresh(KEYS), _ungated, None, 16),
    Case("first_use", lambda: Uses(np.zeros(KEYS, np.int64), np.zeros((KEYS, 40), np.bool_)), _uses, None, 48),
    Case("objectives", lambda: objectives.ObjectiveCounts.fresh(KEYS), _objective, _met, 520),
    Case("seen", lambda: seen.Seen.fresh(4), _seen, None, 65, keyed=False),
    Case("violations", lambda: seen.Seen.fresh(4), _violations, None, 65, keyed=False),
    Case("pooled", lambda: pooled.PooledState.fresh(KEYS, SHORT), _pooled, None, 120, by_second=True),
    Case("guard", lambda: guard.GuardState.fresh(KEYS), _guard, _guard_tick, 520, by_second=True),
)
