"""The shard against an independent model, against other cuts of the same events, and against its own state log."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import BreakerCommand, BreakerState, Signal
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import Call, fold, make_shard, prepared
from tests.support.random_calls import cuts_of, random_calls, states, with_probes
from tests.support.reference import Model

# Low levels and short blocks, so that a short history goes through everything.
SENSITIVE = CoreSettings(failure=FailureParams(trip=1e4, warn=1e2, period=20, floor=0.01))


@cache
def history(seed: int, n: int = 700) -> list[Call]:
    calls = random_calls(seed, n, tools=3 + seed % 9)
    return with_probes(make_shard(SENSITIVE), calls, seed)


def name_of(record: Signal | BreakerCommand) -> str:
    return record.actor + (f"/{record.tool}" if record.tool else "") if record.actor else ""


@pytest.mark.parametrize("seed", range(8))
def test_finds_what_the_model_finds(seed: int) -> None:
    """The vectorised closed form decides at the same calls as one step at a time."""
    shard, model = make_shard(SENSITIVE), Model(SENSITIVE)
    found = []
    for i, call in enumerate(history(seed)):
        outputs = fold(shard, [call], first_offset=i)
        model.fold(i, call)
        for output in outputs:
            record = output.record
            if isinstance(record, Signal):
                found.append((i, name_of(record), record.level.value))
            elif record is not None and record.state is BreakerState.CLOSED:
                model.close(name_of(record), record.ts)
    expected = [(f.at, f.key, "TRIP" if "trip" in f.level else "WARN") for f in model.findings]
    assert found == expected


def test_the_histories_make_every_transition() -> None:
    """Otherwise the tests here would prove little."""
    seen: Counter[str] = Counter()
    for seed in range(8):
        outputs = fold(make_shard(SENSITIVE), history(seed))
        seen.update(state.value for state in states(outputs))
        seen.update(f"{o.record.level}:{o.record.scope}" for o in outputs if isinstance(o.record, Signal))
    assert {"OPEN", "HALF_OPEN", "CLOSED", "TRIP:ACTOR", "TRIP:ACTOR_TOOL", "WARN:ACTOR", "WARN:ACTOR_TOOL"} <= set(
        seen
    )


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), parts=st.integers(0, 60))
def test_split_invariance(seed: int, parts: int) -> None:
    """Any way of cutting the same calls into batches gives the same outputs and the same state."""
    calls = history(seed, 400)
    whole, cut = make_shard(SENSITIVE), make_shard(SENSITIVE)
    expected = fold(whole, calls)
    assert fold(cut, calls, cuts_of(random.Random(seed), len(calls), parts)) == expected
    assert cut.counters == whole.counters
    more = [Call(2000 + i, actor=f"actor-{i % 4}", seq=10_000 + i) for i in range(40)]
    assert fold(cut, more, first_offset=len(calls)) == fold(whole, more, first_offset=len(calls))


def transact(shard: Shard, calls: list[Call], offset: int) -> tuple[list[Output], bytes, bool]:
    shard.begin()
    shard.fold_tool_calls(prepared(calls, shard.number, offset))
    outputs = shard.take_outputs()
    delta = shard.encode_changes(400)
    return outputs, delta.block, delta.starts_round


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_restore_continues_as_if_nothing_had_happened(seed: int, data: st.DataObject) -> None:
    """A shard restored from its log, from any start of a round that is complete, decides the same from there on."""
    calls = history(seed, 400)
    size = data.draw(st.integers(5, 60))
    crash = data.draw(st.integers(1, max(1, len(calls) // size)))
    live = make_shard(SENSITIVE)
    blocks: list[tuple[bytes, bool, bool]] = []
    for i in range(crash):
        part = calls[i * size : (i + 1) * size]
        live.begin()
        live.fold_tool_calls(prepared(part, 0, i * size))
        live.take_outputs()
        delta = live.encode_changes(400)
        live.commit()
        blocks.append((delta.block, delta.starts_round, delta.ends_round))
    ends = [i for i, (_, _, end) in enumerate(blocks) if end]
    starts = [i for i, (_, start, _) in enumerate(blocks) if start and any(end >= i for end in ends)] or [0]
    restored = make_shard(SENSITIVE)
    for block, _, _ in blocks[data.draw(st.sampled_from(starts)) :]:
        restored.apply(block)
    restored.finish_restore()
    assert restored.stream_time == live.stream_time
    assert restored.open_breakers() == live.open_breakers()
    assert restored.keys == live.keys
    rest, offset = calls[crash * size :], crash * size
    if rest:
        assert fold(restored, rest, first_offset=offset) == fold(live, rest, first_offset=offset)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_a_rolled_back_transaction_leaves_no_trace(seed: int, data: st.DataObject) -> None:
    """Aborts at any place, repeated any number of times, change nothing that follows, not even the log's bytes."""
    calls = history(seed, 300)
    calm, shaken = make_shard(SENSITIVE), make_shard(SENSITIVE)
    for offset in range(0, len(calls), 37):
        part = calls[offset : offset + 37]
        for _ in range(data.draw(st.integers(0, 2))):
            transact(shaken, part, offset)
            shaken.rollback()
        assert transact(shaken, part, offset) == transact(calm, part, offset)
        shaken.commit()
        calm.commit()
    assert shaken.counters == calm.counters
