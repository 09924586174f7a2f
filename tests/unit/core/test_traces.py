"""The cap on the failures of one trace: at most three in five minutes, in a table of limited size."""

from __future__ import annotations

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Outcome
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import ShardCounters
from tests.support.calls import Call, fold, make_shard, prepared


def folded(calls: list[Call], limit: int = 1_000_000, cuts: list[int] | None = None) -> ShardCounters:
    # A high null: no evidence, so that nothing but the cap leaves a failure out.
    shard = make_shard(CoreSettings(max_traces=limit, failure=FailureParams(known_null=0.5)))
    fold(shard, calls, cuts)
    return shard.counters


def failure(at: float, trace: str | None = "x", **other: str) -> Call:
    return Call(at, Outcome.ERROR, trace=trace, **other)  # type: ignore[arg-type]


def test_three_failures_of_a_trace_are_counted() -> None:
    assert folded([failure(i) for i in range(10)]).capped == 7


def test_successes_and_other_traces_are_not_capped() -> None:
    assert folded([Call(i, trace="x") for i in range(10)]).capped == 0
    assert folded([failure(i, trace=f"x{i}") for i in range(10)]).capped == 0


def test_a_call_without_a_trace_is_its_own() -> None:
    counters = folded([failure(i, trace=None) for i in range(3)])
    assert (counters.capped, counters.counted) == (0, 3)


def test_another_tool_has_its_own_cap() -> None:
    assert folded([failure(i, tool=f"t{i % 2}") for i in range(8)]).capped == 2


def test_five_minutes_after_the_first_failure_the_cap_is_armed_again() -> None:
    """Of stream time, from the first counted failure on, not from the last."""
    early = [failure(0), failure(100), failure(200), failure(299)]
    assert folded(early).capped == 1
    assert folded([*early, failure(300), failure(301), failure(302), failure(303)]).capped == 2


def test_a_full_table_forgets_its_oldest_trace_only() -> None:
    """Which arms the cap of that trace again; counted."""
    first = [failure(i, trace="old") for i in range(3)] + [failure(3 + i, trace="new") for i in range(3)]
    for cuts in ([], list(range(9))):
        counters = folded([*first, failure(6, "third"), failure(7, "new"), failure(8, "old")], limit=2, cuts=cuts)
        # The two statistics, tool and actor, have a table each; both forget "old", then "new".
        assert counters.traces_evicted == 4
        assert (counters.capped, counters.counted) == (1, 8)


def test_an_entry_whose_time_is_over_is_not_evicted() -> None:
    assert folded([failure(0, "a"), failure(1, "b"), failure(400, "c")], limit=2).traces_evicted == 0


def test_the_cap_survives_batches() -> None:
    calls = [failure(i / 2, trace=f"x{i % 3}") for i in range(30)]
    assert folded(calls).capped == folded(calls, cuts=list(range(0, 30, 4))).capped == 21


def test_evictions_of_an_aborted_transaction_are_not_counted() -> None:
    calls = [failure(i, trace=f"x{i}") for i in range(5)]
    shard = make_shard(CoreSettings(max_traces=2))
    shard.begin()
    shard.fold_tool_calls(prepared(calls))
    shard.rollback()
    assert shard.counters.traces_evicted == 0
    fold(shard, calls)
    assert shard.counters.traces_evicted == 6
