"""What is refused, set back or left out of statistics, and that nothing else suffers from it."""

from __future__ import annotations

import pytest

from fuseboard_schemas.records import DeadLetterReason, Outcome
from fuseboard_streams.core.identity import Rejected
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Shard
from tests.support.calls import T0, Call, home, make_shard, prepared

_2000 = (946_684_800_000_000 - T0) / 1e6
"""2000-01-01T00:00:00Z in seconds after T0."""


def rejected(shard: Shard, calls: list[Call], offset: int = 0) -> list[Rejected]:
    shard.begin()
    shard.fold_tool_calls(prepared(calls, shard.number, offset))
    shard.encode_changes(100)
    shard.commit()
    return shard.take_rejected()


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (Call(1, actor=""), DeadLetterReason.INVALID_FIELD, "actor is empty"),
        (Call(1, tool=""), DeadLetterReason.INVALID_FIELD, "tool is empty"),
        (Call(1, tenant=""), DeadLetterReason.INVALID_FIELD, "tenant is empty"),
        (Call(1, actor="a\0b"), DeadLetterReason.INVALID_FIELD, "NUL"),
        (Call(1, tool="t\0"), DeadLetterReason.INVALID_FIELD, "NUL"),
        (Call(1, tool="t" * 257), DeadLetterReason.INVALID_FIELD, "longer than 256 bytes"),
        (Call(1, actor="é" * 129), DeadLetterReason.INVALID_FIELD, "longer than 256 bytes"),
        (Call(1, tool="x" * 900_000), DeadLetterReason.INVALID_FIELD, "longer than 256 bytes"),
        (Call(_2000 - 1, arrival=1), DeadLetterReason.ANCIENT, "before 2000"),
        (Call(1, trace="t" * 257), DeadLetterReason.INVALID_FIELD, "trace_id is longer than 256 bytes"),
        (Call(1, trace="é" * 129), DeadLetterReason.INVALID_FIELD, "trace_id is longer than 256 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_call_is_refused_alone(bad: Call, reason: DeadLetterReason, detail: str) -> None:
    """With its offset and a reason; its neighbours count, and it leaves no key behind."""
    shard = make_shard()
    (refusal,) = rejected(shard, [Call(0), bad, Call(2)], offset=41)
    assert (refusal.offset, refusal.reason) == (42, reason)
    assert detail in refusal.detail
    assert (shard.counters.counted, shard.counters.rejected, shard.counters.events) == (2, 1, 3)
    assert (shard.keys["actors"], shard.keys["tools"]) == (1, 1)
    assert shard.stream_time == T0 + 2_000_000


def test_every_call_of_a_bad_key_is_refused_in_order() -> None:
    calls = [Call(0, actor=""), Call(1), Call(2, tool="\0"), Call(_2000 - 5, arrival=3), Call(4, actor="")]
    shard = make_shard()
    assert sorted(r.offset for r in rejected(shard, calls)) == [0, 2, 3, 4]
    assert sorted(r.offset for r in rejected(shard, calls, offset=5)) == [5, 7, 8, 9]


def test_names_may_be_of_256_bytes() -> None:
    shard = make_shard()
    assert rejected(shard, [Call(0, actor="é" * 128, tool="t" * 256, trace="é" * 128)]) == []


def test_an_actor_in_a_foreign_partition_is_misplaced() -> None:
    """Each new key is looked at once, known or not it says where the record belongs."""
    at_home = next(f"a{i}" for i in range(100) if home(f"a{i}", 4) == 2)
    foreign = next(f"a{i}" for i in range(100) if home(f"a{i}", 4) == 3)
    shard = make_shard(number=2, partitions=4)
    (refusal,) = rejected(shard, [Call(0, actor=at_home), Call(1, actor=foreign)])
    assert (refusal.offset, refusal.reason) == (1, DeadLetterReason.MISPLACED)
    assert f"default/{foreign} belong to partition 3 of 4, not 2" in refusal.detail


def test_the_future_is_set_back_to_the_arrival() -> None:
    """More than five seconds ahead; stream time does not run away with a wrong clock."""
    shard = make_shard()
    rejected(shard, [Call(5, arrival=0), Call(7200, arrival=1)])
    assert (shard.counters.clamped, shard.counters.counted) == (1, 2)
    assert shard.stream_time == T0 + 5_000_000


def test_stream_time_never_falls() -> None:
    shard = make_shard()
    rejected(shard, [Call(100), Call(50), Call(70)])
    assert shard.stream_time == T0 + 100_000_000


def test_late_calls_are_counted_as_late_only() -> None:
    """More than five minutes behind stream time."""
    shard = make_shard()
    rejected(shard, [Call(1000), Call(700, Outcome.ERROR), Call(699, Outcome.ERROR)])
    assert (shard.counters.late, shard.counters.counted) == (1, 2)


def test_refused_and_cancelled_calls_are_neither_failures_nor_successes() -> None:
    shard = make_shard()
    rejected(shard, [Call(i, outcome) for i, outcome in enumerate(Outcome)])
    assert shard.counters.counted == 3


@pytest.mark.parametrize("cuts", [[], list(range(1, 20)), [3, 9]])
def test_new_keys_beyond_the_limit_are_refused(cuts: list[int]) -> None:
    """Those that fit are taken in the order of the log, whatever the batches; a client too many is only not known."""
    calls = [Call(i, actor=f"a{i % 5}", tool=f"t{i % 2}", client=i % 4, seq=i) for i in range(20)]
    shard = make_shard(CoreSettings(max_actors=3, max_tools=4, max_clients=2))
    refused: list[Rejected] = []
    for a, b in zip([0, *cuts], [*cuts, 20], strict=True):
        refused += rejected(shard, calls[a:b], offset=a)
    assert {r.reason for r in refused} == {DeadLetterReason.KEY_LIMIT}
    tools = {(0, 0), (1, 1), (2, 0), (0, 1)}
    assert [r.offset for r in refused] == [i for i in range(20) if (i % 5, i % 2) not in tools]
    assert (shard.keys["actors"], shard.keys["tools"], shard.keys["clients"]) == (3, 4, 2)
    assert (shard.counters.counted, shard.counters.clients_unknown) == (8, 6)


@pytest.mark.parametrize("cuts", [[], list(range(1, 12)), [5]])
def test_new_names_of_tools_beyond_the_limit_are_refused(cuts: list[int]) -> None:
    """Names are never forgotten, so somebody who makes them up must not fill the memory; known ones go on."""
    calls = [Call(i, actor=f"a{i % 2}", tool=f"t{i % 4}", seq=i) for i in range(12)]
    shard = make_shard(CoreSettings(max_tool_names=3))
    refused: list[Rejected] = []
    for a, b in zip([0, *cuts], [*cuts, 12], strict=True):
        refused += rejected(shard, calls[a:b], offset=a)
    assert [(r.offset, r.reason) for r in refused] == [(i, DeadLetterReason.KEY_LIMIT) for i in (3, 7, 11)]
    assert shard.counters.counted == 9
