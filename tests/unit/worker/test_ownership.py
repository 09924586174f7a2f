"""Where a shard stands: ends of inputs, lag, checkpoint rounds, and the clock of an idle shard."""

from __future__ import annotations

from fuseboard_streams.worker.clock import idle_advance_us
from fuseboard_streams.worker.ownership import OwnedShard
from tests.support.calls import T0, Call, make_shard, prepared


def owned() -> OwnedShard:
    return OwnedShard(0, make_shard(), {"tool-calls": 10, "enforcement-acks": 0})


def test_it_is_at_its_end_when_every_input_is() -> None:
    each = owned()
    each.saw_end("tool-calls", 9, now=1.0)
    assert each.ends == {}, "an end before the position says nothing"
    each.saw_end("tool-calls", 10, now=1.0)
    assert not each.at_end()
    each.saw_end("enforcement-acks", 0, now=2.0)
    assert each.at_end_since == 2.0
    each.saw_records("tool-calls")
    assert not each.at_end()


def test_being_at_the_end_counts_as_reaching_an_end_made_of_markers() -> None:
    each = owned()
    assert not each.reached({"tool-calls": 12, "enforcement-acks": 0})
    each.saw_end("tool-calls", 12, now=1.0)
    assert each.reached({"tool-calls": 12, "enforcement-acks": 0})


def test_lag_is_the_age_of_the_last_record_and_zero_at_the_end() -> None:
    each = owned()
    each.ready_at = 5.0
    assert each.lag_s(7.0, 0) == 2.0, "nothing processed yet: since it could have been"
    each.arrivals["tool-calls"] = 1_000_000
    assert each.lag_s(7.0, 4_500_000) == 3.5
    each.saw_end("enforcement-acks", 0, now=7.0)
    assert each.lag_s(7.0, 500_000) == 0.0, "the broker's clock may be ahead"
    each.saw_end("tool-calls", 10, now=7.0)
    assert each.lag_s(9.0, 9_000_000) == 0.0


def test_a_record_after_hours_without_any_does_not_make_the_shard_hours_late() -> None:
    each = owned()
    each.arrivals["tool-calls"] = 0
    each.saw_end("tool-calls", 10, now=1.0)
    each.saw_end("enforcement-acks", 0, now=1.0)
    assert each.lag_s(7_200.0, 7_200_000_000) == 0.0
    each.saw_records("tool-calls")
    assert each.lag_s(7_200.5, 7_200_500_000) == 0.5
    assert each.lag_s(7_260.0, 7_260_000_000) == 60.0, "it grows while nothing is processed"


def test_the_input_furthest_behind_tells_the_lag() -> None:
    each = owned()
    each.arrivals.update({"tool-calls": 1_000_000, "enforcement-acks": 100_000_000})
    assert each.lag_s(200.0, 101_000_000) == 100.0, "a record that arrived just now does not hide the others"
    each.saw_end("tool-calls", 10, now=201.0)
    assert each.lag_s(201.0, 102_000_000) == 2.0
    each.rewind()
    assert each.lag_s(201.5, 102_500_000) == 2.5, "where it ends must be found again, but nothing has waited there long"


def test_small_entries_save_up_for_a_slice() -> None:
    each = owned()
    each.slice_owed = 0
    assert each.slice_budget(100, enough=300) == 0
    each.slice_owed = 100
    assert each.slice_budget(199, enough=300) == 0
    assert each.slice_budget(200, enough=300) == 300
    assert each.slice_budget(5_000, enough=300) == 5_100


def test_processes_that_write_one_entry_each_still_end_a_round() -> None:
    shard, ended = make_shard(), 0
    calls = [Call(i * 0.01, actor=f"a{i}") for i in range(2_000)]
    for begin in range(0, len(calls), 20):
        process = OwnedShard(0, shard, {"tool-calls": begin})
        shard.begin()
        shard.fold_tool_calls(prepared(calls[begin : begin + 20], first_offset=begin))
        ended += shard.encode_changes(process.slice_budget(2_048, enough=16_384)).ends_round
        shard.commit()
    assert ended > 5


def test_restore_starts_at_the_last_complete_round() -> None:
    each = owned()
    each.entry_written(5, 5, starts=True, ends=False)
    assert (each.restore_from, each.left_at) == (0, 5)
    each.entry_written(7, 9, starts=False, ends=True)
    assert (each.restore_from, each.left_at) == (5, 9)
    each.entry_written(11, 12, starts=True, ends=True)
    assert each.restore_from == 11


def idle(since: float) -> OwnedShard:
    each = owned()
    each.shard.begin()
    each.shard.fold_tool_calls(prepared([Call(0.0)]))
    each.shard.commit()
    each.saw_end("tool-calls", 10, now=since)
    each.saw_end("enforcement-acks", 0, now=since)
    return each


def test_an_idle_shard_advances_by_the_time_that_passed() -> None:
    each = idle(since=100.0)
    assert each.shard.stream_time == T0
    assert idle_advance_us(each, 104.9, 5.0, 1.0) == 0
    assert idle_advance_us(each, 105.5, 5.0, 1.0) == 5_500_000
    each.clock_from = 105.5
    assert idle_advance_us(each, 106.0, 5.0, 1.0) == 0
    assert idle_advance_us(each, 106.75, 5.0, 1.0) == 1_250_000


def test_a_shard_without_events_or_not_at_its_end_stands_still() -> None:
    fresh = owned()
    fresh.saw_end("tool-calls", 10, now=0.0)
    fresh.saw_end("enforcement-acks", 0, now=0.0)
    assert idle_advance_us(fresh, 1e6, 5.0, 1.0) == 0
    each = idle(since=0.0)
    each.saw_records("tool-calls")
    assert idle_advance_us(each, 1e6, 5.0, 1.0) == 0
