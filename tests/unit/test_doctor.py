"""Each judgement of the doctor, on what it could observe."""

from __future__ import annotations

import pytest

from fuseboard_schemas import catalogue
from fuseboard_schemas.records import Heartbeat
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams.admin import TopicState
from fuseboard_streams.doctor import (
    Check,
    Lag,
    check_clocks,
    check_heartbeats,
    check_lag,
    check_partitions,
    check_schemas,
    check_topics,
    exit_code,
    unchecked,
)
from fuseboard_streams.heartbeat_reader import Beat

NAMES = TopicNames("t.")
NOW = 1_800_000_000.0


def _beat(
    shard: int, *, age_s: float = 0.0, lag_s: float = 0.0, worker_ahead_s: float = 0.0, live: bool = True
) -> Beat:
    appended = NOW - age_s
    record = Heartbeat(
        worker_id="w1",
        group="g",
        shard=shard,
        ts=int((appended + worker_ahead_s) * 1e6),
        stream_time=0,
        lag_s=lag_s,
        version="1",
        rules_version="",
    )
    return Beat(record, appended_s=appended, received_s=appended + 0.05, live=live)


def _topics(partitions: int = 4) -> dict[str, TopicState]:
    return {NAMES.of(topic): TopicState(partitions, 1, topic.config) for topic in TOPICS}


def test_topics_as_declared_pass_every_check_of_them() -> None:
    assert [check.ok for check in check_topics(NAMES, _topics())] == [True, True, True]


def test_a_missing_topic_is_named() -> None:
    found = _topics()
    del found[NAMES.audit]
    there, partitions, config = check_topics(NAMES, found)
    assert not there.ok
    assert "t.audit" in there.detail
    assert "topics apply" in there.todo
    assert partitions.ok
    assert config.ok


def test_the_odd_partition_count_is_named_with_the_way_to_migrate() -> None:
    found = _topics() | {NAMES.signals: TopicState(6, 1, {})}
    check = check_partitions(found)
    assert check.detail == "Most topics have 4 partitions, but t.signals has 6."
    assert "migrate" in check.todo


def test_a_setting_that_differs_is_named_with_both_values() -> None:
    wrong = dict(TOPICS[-1].config) | {"retention.ms": "1000"}
    config = check_topics(NAMES, _topics() | {NAMES.state: TopicState(4, 1, wrong)})[2]
    assert config.detail == "t.state: retention.ms is 1000 instead of -1."


def test_schemas_that_equal_the_packaged_ones_pass_and_others_are_named() -> None:
    registered: dict[str, object | None] = {NAMES.subject(topic): catalogue.schema(topic.record) for topic in TOPICS}
    assert check_schemas(NAMES, registered).ok
    absent = check_schemas(NAMES, registered | {"t.audit-value": None})
    assert absent.detail == "Not in the registry: t.audit-value."
    other = check_schemas(NAMES, registered | {"t.audit-value": {"type": "string"}})
    assert other.detail == "Another schema in the registry: t.audit-value."
    assert not absent.ok
    assert not other.ok


@pytest.mark.parametrize(("ahead_s", "words"), [(5.0, "ahead of"), (-5.0, "behind")])
def test_this_machines_clock_is_compared_with_the_brokers(ahead_s: float, words: str) -> None:
    beat = _beat(0)
    skewed = Beat(beat.record, beat.appended_s, beat.received_s + ahead_s, live=True)
    check = check_clocks({0: skewed}, NOW + ahead_s)
    assert not check.ok
    assert check.detail.startswith("This machine is ")
    assert words in check.detail


def test_a_workers_clock_is_compared_with_the_brokers() -> None:
    check = check_clocks({0: _beat(0), 1: _beat(1, worker_ahead_s=-60)}, NOW)
    assert check.detail == "Worker w1 is 60.0 s behind the broker's clock."


def test_clocks_are_not_judged_without_a_live_heartbeat() -> None:
    assert check_clocks({0: _beat(0, age_s=3600, live=False)}, NOW).status == "unchecked"


def test_every_shard_needs_a_fresh_heartbeat() -> None:
    fresh, stale = _beat(0, age_s=1, live=False), _beat(1, age_s=60, live=False)
    assert check_heartbeats({0: fresh}, 1, NOW).ok
    assert check_heartbeats({0: fresh, 1: stale}, 3, NOW).detail == "2 of 3 shards have no live owner: 1, 2."
    assert "for 60 s" in check_heartbeats({1: stale}, 3, NOW).detail
    assert check_heartbeats({}, 3, NOW).detail.startswith("No worker has ever sent a heartbeat: ")


@pytest.mark.parametrize(
    ("lags", "beats", "ok"),
    [
        ([Lag("g", 4, 0)], {}, True),
        ([Lag("g", 4, 7)], {}, False),
        ([Lag("g", 4, 7)], {0: _beat(0, lag_s=1.5)}, True),
        ([Lag("g", 4, 7)], {0: _beat(0, lag_s=31), 1: _beat(1)}, False),
        ([Lag("g", 4, 7)], {0: _beat(0, lag_s=31, age_s=60, live=False), 1: _beat(1)}, True),
    ],
)
def test_lag_is_judged_in_seconds_by_live_owners(lags: list[Lag], beats: dict[int, Beat], ok: bool) -> None:
    check = check_lag(lags, beats, NOW)
    assert check.ok is ok
    assert bool(check.todo) is not ok


def test_nothing_is_said_about_the_lag_of_workers_that_never_ran() -> None:
    assert check_lag([Lag("g", 0, 0)], {}, NOW).status == "unchecked"


def test_topics_that_are_not_there_are_not_compared() -> None:
    there, partitions, config = check_topics(NAMES, {})
    assert (there.status, partitions.status, config.status) == ("failed", "unchecked", "unchecked")


def test_what_could_not_be_checked_is_neither_ok_nor_changes_the_exit_code() -> None:
    skipped = unchecked(("a", "b"), "there is no clock")
    assert [(check.status, check.ok, check.detail) for check in skipped] == [
        ("unchecked", None, "Not checked: there is no clock.")
    ] * 2
    assert exit_code(skipped) == 0
    assert exit_code([*skipped, Check("c", False, "", exit_code=2)]) == 2


def test_the_exit_code_is_the_worst_failed_checks() -> None:
    assert exit_code([Check("a", True, "", exit_code=3)]) == 0
    assert exit_code([Check("a", False, ""), Check("b", False, "", exit_code=3), Check("c", True, "")]) == 3
