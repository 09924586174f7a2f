"""Exactly once, whatever happens: runs under kills, freezes and broker restarts against one that nobody disturbs.

The workers' session timeout is 3 s here instead of 6 s, so that a dead worker's shards move sooner and more kills fit
into the time; nothing else depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import KafkaServer, new_kafka, started
from tests.support.oracle_input import Row
from tests.support.oracle_kills import Plan, Result, oracle
from tests.support.oracle_others import TOPICS as OTHERS
from tests.support.oracle_outputs import Outputs, compare

pytestmark = [pytest.mark.broker, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1500)]

REASONS = {
    "UNDECODABLE", "NOT_WIRE_FORMAT", "UNKNOWN_SCHEMA", "WRONG_RECORD", "TOMBSTONE", "INVALID_FIELD", "ANCIENT",
    "MISPLACED",
}  # fmt: skip


@pytest.fixture
def quick_kafka() -> Iterator[KafkaServer]:
    """An Apache Kafka of this test's own that allows short sessions."""
    with started(new_kafka(group__min__session__timeout__ms="1000")) as server:
        yield server


def assert_same(result: Result) -> None:
    """Not one record differs: neither from the uninterrupted run, nor that one's decisions from the core's."""
    assert result.core.differences == 0, result.core.first
    assert result.comparison.differences == 0, result.comparison.first
    assert all(count > 0 for count in result.core.compared.values())


def test_workers_killed_and_frozen_at_random_write_what_an_undisturbed_one_writes(
    quick_kafka: KafkaServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = oracle(quick_kafka.bootstrap, "oracle.", Plan(kills=50, stops=10, seed=1), tmp_path)

    with capsys.disabled():
        print("\n" + json.dumps(result.as_dict(), indent=1))
    assert_same(result)
    assert (result.kills, result.stops) == (50, 10)
    transitions = result.tally["transitions"]
    reopened = sum(transitions[cause] for cause in ("PROBES_FAILED", "PROBES_UNDECIDED", "NO_PROBES"))
    for name, count in (
        ("trip", transitions["TRIP"]),
        ("half-open", transitions["COOLDOWN_OVER"]),
        ("close", transitions["PROBES_PASSED"]),
        ("reopen", reopened),
    ):
        assert count >= 100, f"{name}: {count}"
    assert min(transitions["FORGOTTEN"], transitions["NEXT_WAVE"], result.tally["trips"]["ACTOR"]) > 0
    assert set(result.tally["dead letters"]) == REASONS
    for counter in ("duplicates", "late", "clamped", "missing", "traces_evicted"):
        assert result.counters[counter] > 0, counter
    # The kills hit transactions at different steps, and some were left open and had to be settled.
    assert len(result.killed_at) >= 4
    assert result.events["fenced"] > 0


def test_workers_with_several_inputs_write_what_their_journals_give(
    quick_kafka: KafkaServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How topics interleave, and when which rules held, is in the journal alone: a run is compared with its replay."""
    plan = Plan(kills=10, stops=3, seed=3, several=True, rules=150)

    result = oracle(quick_kafka.bootstrap, "several.", plan, tmp_path)

    with capsys.disabled():
        print("\n" + json.dumps(result.as_dict(), indent=1))
    assert (result.kills, result.stops) == (10, 3)
    for name, comparison in result.replayed.items():
        assert comparison.differences == 0, f"{name}: {comparison.first}"
        assert all(count > 0 for count in comparison.compared.values())
    # What one record is, and where it lies, decides alone whether it can be used.
    assert result.comparison.differences == 0, result.comparison.first
    # What shards decide together is in it.
    assert (
        min(result.tally["trips"]["TOOL"], result.tally["trips"]["ACTOR"], result.tally["signals"]["TENANT WARN"]) > 0
    )
    whole, torn = result.journals.values()
    assert all(
        whole.records[topic] == torn.records[topic] > 0 for topic in (*OTHERS, "tool-calls") if topic != "signals"
    )
    # Whoever reads a backlog alone may well get one topic at a time.
    assert min(torn.mixed, torn.advances, torn.records["signals"]) > 0
    assert torn.entries > whole.entries
    # The uninterrupted run has the packaged rules throughout: one change at each shard's first entry.
    assert result.rules_applied >= 100
    assert whole.changes == plan.partitions
    assert torn.changes >= 30
    assert set(result.tally["dead letters"]) == REASONS
    assert min(result.tally["transitions"][cause] for cause in ("TRIP", "COOLDOWN_OVER")) >= 50
    for counter in ("duplicates", "late", "clamped", "signals"):
        assert result.counters[counter] > 0, counter


def test_workers_outlast_a_broker_that_is_restarted_and_killed_under_load(
    quick_kafka: KafkaServer, tmp_path: Path
) -> None:
    plan = Plan(kills=2, stops=0, restarts=2, crashes=2, seed=2)

    result = oracle(quick_kafka.bootstrap, "restarts.", plan, tmp_path, broker=quick_kafka)

    assert_same(result)
    assert (result.kills, result.restarts, result.crashes) == (2, 2, 2)
    # Workers that had started went on by themselves or said why not: they did not find the broker again, or the group
    # gave up on them while it was away and another took over.
    assert result.alone <= result.restarts + result.crashes
    assert result.shut_out_quietly == 0
    ended = result.unreachable + result.alone + result.shut_out
    replaced = result.kills + result.young_kills + ended - result.last_ones
    assert result.workers == plan.workers + replaced


def test_the_comparison_finds_what_is_lost_doubled_swapped_or_changed() -> None:
    rows: list[Row] = [(b"k", bytes([number]), (("ce_id", b"%d" % number),)) for number in range(4)]
    whole: Outputs = {"state": [rows, []]}

    def differences(*found: Row) -> int:
        return compare(whole, {"state": [list(found), []]}).differences

    assert differences(*rows) == 0
    assert differences(*rows[:3]) == 1
    assert differences(*rows, rows[3]) == 1
    assert differences(rows[0], rows[0], *rows[1:]) == 4
    assert differences(rows[0], rows[2], rows[1], rows[3]) == 2
    assert differences(*rows[:3], (b"k", rows[3][1], (("ce_id", b"4"),))) == 1
    assert compare(whole, {"state": [[], rows]}).differences == 8
