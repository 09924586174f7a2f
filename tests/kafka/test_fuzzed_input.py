"""A hundred thousand damaged records among as many good ones, through a whole worker.

What is bad is decided here by strict fastavro and by the field rules written down once more. Every bad record must be
in ``dead-letters``, and what is decided must be what a worker decides that is given the good ones alone.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.topics import by_name
from tests.support.damage import MUTATIONS, call, reference
from tests.support.first_stage import ALONE
from tests.support.oracle_input import InputRecord
from tests.support.oracle_kills import Writer, topics_for
from tests.support.workers import calls, read, run

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [pytest.mark.broker, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

GOOD = DAMAGED = 100_000
PARTITIONS = 4
COUNTERS = ("counted", "duplicates", "missing", "late", "clamped", "trips", "warnings", "probes")
YEAR_2000_US = 946_684_800_000_000


@dataclass(frozen=True)
class Written:
    """A record and what is to become of it."""

    record: InputRecord
    reasons: frozenset[str]
    """Why it may be refused; empty for a good one."""


DECODING = frozenset(
    {"UNDECODABLE", "NOT_WIRE_FORMAT", "UNKNOWN_SCHEMA", "WRONG_RECORD", "TOMBSTONE", "TOO_LARGE", "INVALID_FIELD"}
)
"""Of a value that fastavro refuses; one whose int does not fit has an invalid field."""


def verdict(value: bytes | None, partition: int) -> frozenset[str]:
    """Why a value is bad in a partition, by rules of this test's own."""
    found = reference("ToolCall", value)
    if found is None:
        return DECODING
    names = [found["tenant"], found["actor"], found["tool"]]
    ids = [found[name] or "" for name in ("event_id", "trace_id")]
    cost = found["cost_usd_micros"] or 0
    broken = {
        "INVALID_FIELD": any(not name or "\0" in name or len(name.encode()) > 256 for name in names)
        or any(len(each.encode()) > 256 for each in ids)
        or not 0 <= cost <= 10_000 * 1_000_000,
        "ANCIENT": found["ts"] < YEAR_2000_US,
        "MISPLACED": partition_for(actor_key(found["tenant"], found["actor"]), PARTITIONS) != partition,
    }
    return frozenset(reason for reason, applies in broken.items() if applies)


def history(rng: random.Random) -> Iterator[Written]:
    """Good calls in the order of their times; about each there is a damaged one."""
    encode = Encoder("ToolCall").encode
    for made in calls(GOOD, seed=3, actors=40, minutes=600.0):
        partition = partition_for(actor_key(made.tenant, made.actor), PARTITIONS)
        arrival_ms = made.ts // 1000 + 50
        value = encode(made)
        # Half of them damage the call itself, so that what still decodes is about the same actors and tools.
        victim = value if rng.random() < 0.5 else call(rng)
        for each in (value, rng.choice(MUTATIONS)(rng, victim)):
            yield Written(InputRecord("tool-calls", partition, b"key", each, arrival_ms), verdict(each, partition))


def told(bootstrap: str, prefix: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The records of an output, without what tells input offsets: they differ by the bad records in between."""
    topic = by_name(name)
    assert topic is not None
    rows = []
    for each in read(bootstrap, prefix + name, PARTITIONS):
        record = each.decoded(topic.record)
        said = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in ("signal_id", "source_offset")}
        rows.append((each.partition, said))
    return rows


def test_every_bad_record_is_put_aside_and_no_good_one_is_changed(apache_kafka: str, unique_prefix: str) -> None:
    everything = list(history(random.Random(11)))
    mixed, alone = f"{unique_prefix}mixed.", f"{unique_prefix}alone."
    for prefix, records in ((mixed, everything), (alone, [each for each in everything if not each.reasons])):
        topics_for(apache_kafka, prefix, PARTITIONS)
        writer = Writer(apache_kafka, prefix)
        for begin in range(0, len(records), 20_000):
            writer.write(each.record for each in records[begin : begin + 20_000])
    bad: dict[tuple[int, int], frozenset[str]] = {}
    offsets: Counter[int] = Counter()
    for each in everything:
        at = each.record.partition, offsets[each.record.partition]
        offsets[each.record.partition] += 1
        if each.reasons:
            bad[at] = each.reasons
    assert GOOD * 0.5 < len(bad) < DAMAGED
    assert len(everything) - len(bad) > GOOD, "some damage leaves a good record"

    stopped = [run(apache_kafka, prefix, **ALONE)[-1] for prefix in (mixed, alone)]

    letters = [each.decoded("DeadLetter") for each in read(apache_kafka, mixed + "dead-letters", PARTITIONS)]
    assert len(letters) == len(bad)
    assert {(each.partition, each.offset) for each in letters} == set(bad)
    assert [each for each in letters if each.reason.value not in bad[each.partition, each.offset]] == []
    assert read(apache_kafka, alone + "dead-letters", PARTITIONS) == []
    for name in ("signals", "breaker-commands"):
        found = told(apache_kafka, mixed, name)
        assert found == told(apache_kafka, alone, name)
        assert len(found) > 100
    counted, expected = ({name: each.get(name, 0) for name in COUNTERS} for each in stopped)
    assert counted == expected
    assert stopped[0]["events"] - stopped[0]["rejected"] == stopped[1]["events"] == len(everything) - len(bad)
