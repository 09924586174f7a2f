"""Several topics at once: other cuts, aborts and restores of the same interleaving tell the same."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_streams.core.inputs import TOOL_CALLS, Inputs
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import SEEDS, T0, Call, prepared
from tests.support.events import TOPICS, Remembering, made, signals
from tests.support.events import prepared as prepared_events
from tests.support.random_calls import random_calls

SIGNAL = "signals"
SHORT = CoreSettings(forget_after_us=300 * SECOND, client_idle_us=100 * SECOND)
Step = tuple[str, list[Any], int]
"""Topic, some of its records, and the offset of the first."""


@cache
def history(seed: int) -> list[Step]:
    """Runs of records of one topic at a time, with repeats, late and bad ones."""
    rng = random.Random(seed)
    calls = random_calls(seed, 240)
    sent: dict[str, list[Any]] = {}
    steps: list[Step] = []
    position = 0
    while position < len(calls):
        topic = rng.choice((TOOL_CALLS, *TOPICS, SIGNAL))
        n, log = rng.randrange(1, 25), sent.setdefault(topic, [])
        at = calls[position].at
        if topic == TOOL_CALLS:
            records: list[Any] = list(calls[position : position + n])
            position += len(records)
        else:
            records = [_record(rng, topic, at + rng.uniform(-2, 2), len(log) + i) for i in range(n)]
            records = [rng.choice(log) if log and rng.random() < 0.1 else each for each in records]
        steps.append((topic, records, len(log)))
        log += records
    return steps


def _record(rng: random.Random, topic: str, at: float, number: int) -> Any:
    late = 400 if rng.random() < 0.05 else 0
    fields: dict[str, Any] = {"actor": f"actor-{rng.randrange(4)}", "client_id": rng.randrange(3), "seq": number}
    if rng.random() < 0.05:
        fields["actor"] = ""
    if topic != SIGNAL:
        return made(topic, at - late, **fields)
    return Signal(
        signal_id=f"s{number}", ts=T0 + round((at - late) * SECOND), source="judge", tenant="default",
        scope=Scope.ACTOR, level=SignalLevel.WARN, metric="tone", **fields,
    )  # fmt: skip


def inputs_of(topic: str, records: list[Any], offset: int) -> Inputs:
    if topic == TOOL_CALLS:
        return Inputs(calls=prepared(records, 0, offset))
    if topic == SIGNAL:
        return signals(*records, first_offset=offset)
    return prepared_events(topic, records, offset)


def cut(steps: list[Step], seed: int, parts: int) -> list[Step]:
    """The same records in the same order, in smaller pieces."""
    rng = random.Random(seed)
    result: list[Step] = []
    for topic, records, offset in steps:
        edges = sorted({0, len(records), *(rng.randrange(len(records)) for _ in range(parts))})
        result += [(topic, records[a:b], offset + a) for a, b in pairwise(edges)]
    return result


def play(shard: Shard, steps: list[Step], aborts: random.Random | None = None) -> tuple[list[Output], list[bytes]]:
    outputs: list[Output] = []
    blocks: list[bytes] = []
    told = shard._follower
    assert isinstance(told, Remembering)
    for step in steps:
        while aborts is not None and aborts.random() < 0.3:
            before = len(told.events), len(told.signals)
            shard.begin()
            shard.fold(inputs_of(*step))
            shard.rollback()
            del told.events[before[0] :], told.signals[before[1] :]
        shard.begin()
        shard.fold(inputs_of(*step))
        outputs += shard.take_outputs()
        blocks.append(shard.encode_changes(400).block)
        shard.commit()
    return outputs, blocks


def watched() -> tuple[Shard, Remembering]:
    told = Remembering()
    return Shard(0, 1, SHORT, SEEDS, follower=told), told


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(0, 6))
def test_split_invariance(seed: int, parts: int) -> None:
    """Any way of cutting the same interleaving tells and decides the same."""
    (whole, told), (torn, also_told) = watched(), watched()
    outputs, _ = play(whole, history(seed))
    assert play(torn, cut(history(seed), seed, parts))[0] == outputs
    assert also_told.events == told.events
    assert also_told.signals == told.signals
    assert torn.counters == whole.counters
    assert torn.take_rejected() == whole.take_rejected()
    assert min(whole.counters.duplicates, whole.counters.late, whole.counters.rejected, len(told.signals)) > 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_rolled_back_transaction_leaves_no_trace(seed: int) -> None:
    (calm, told), (shaken, also_told) = watched(), watched()
    assert play(shaken, history(seed), random.Random(seed)) == play(calm, history(seed))
    assert also_told.events == told.events
    assert also_told.signals == told.signals
    assert shaken.counters == calm.counters


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_restore_continues_as_if_nothing_had_happened(seed: int, data: st.DataObject) -> None:
    """Windows, times and last-seen times of every topic come back."""
    steps = history(seed)
    crash = data.draw(st.integers(1, len(steps)))
    (live, told), (restored, also_told) = watched(), watched()
    _, blocks = play(live, steps[:crash])
    for block in blocks:
        restored.apply(block)
    restored.finish_restore()
    assert restored._times == live._times
    told.events.clear()
    told.signals.clear()
    live.counters.__init__()  # type: ignore[misc]
    assert play(restored, steps[crash:]) == play(live, steps[crash:])
    assert also_told.events == told.events
    assert also_told.signals == told.signals
    assert restored.counters == live.counters


def test_a_signal_that_is_repeated_under_another_id_is_still_one() -> None:
    """The replay window goes by the client's number, not by ids."""
    shard, told = watched()
    one = _record(random.Random(1), SIGNAL, 0, 5)
    play(shard, [(TOOL_CALLS, [Call(-1, actor=one.actor)], 0), (SIGNAL, [one, replace(one, signal_id="again")], 0)])
    assert len(told.signals) == 1
