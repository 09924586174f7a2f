"""What workers wrote, read committed, and whether two runs wrote the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.topics import TOPICS, Topic, by_name
from tests.support.oracle_input import Row
from tests.support.workers import read

COMPARED: tuple[Topic, ...] = tuple(
    topic for topic in TOPICS if (topic.is_output or not topic.is_input) and topic.name not in ("state", "heartbeats")
)
"""Every topic that a worker may write, but for the two that batches shape."""

Outputs = dict[str, list[list[Row]]]
"""Topic without prefix to partition to records in order."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two runs differ; None is a record that only the other one has."""

    topic: str
    partition: int
    index: int
    expected: Row | None
    found: Row | None

    def __str__(self) -> str:
        where = f"{self.topic} [{self.partition}], record {self.index} of the partition"
        return f"{where}\n  expected: {_shown(self.topic, self.expected)}\n  found:    {_shown(self.topic, self.found)}"


@dataclass(slots=True)
class Comparison:
    """What comparing two runs gave."""

    compared: dict[str, int] = field(default_factory=dict)
    """Records of each topic that were compared."""
    differences: int = 0
    """Places of a partition where the runs do not have the same record."""
    first: Difference | None = None


def outputs(bootstrap: str, prefix: str, partitions: int) -> Outputs:
    """Everything but state and heartbeats that is committed under a prefix."""
    found: Outputs = {}
    for topic in COMPARED:
        rows: list[list[Row]] = [[] for _ in range(partitions)]
        for each in read(bootstrap, prefix + topic.name, partitions):
            rows[each.partition].append((each.key, each.value, each.headers))
        found[topic.name] = rows
    return found


def compare(expected: Outputs, found: Outputs) -> Comparison:
    """Compare record by record, in order per partition: key, value bytes and headers."""
    result = Comparison()
    for topic in expected:
        result.compared[topic] = sum(map(len, expected[topic]))
        for partition, (left, right) in enumerate(zip(expected[topic], found[topic], strict=True)):
            for index in range(max(len(left), len(right))):
                pair = _at(left, index), _at(right, index)
                if pair[0] != pair[1]:
                    result.differences += 1
                    result.first = result.first or Difference(topic, partition, index, *pair)
    return result


def tally(found: Outputs) -> dict[str, Counter[str]]:
    """How many of each kind there are: transitions by cause, breakers by scope, signals, dead letters by reason."""
    decode = Decoder().decode
    result: dict[str, Counter[str]] = {name: Counter() for name in ("transitions", "trips", "signals", "dead letters")}
    for _, value, _ in _flat(found["breaker-commands"]):
        command = decode(value, "BreakerCommand") if value is not None else None
        result["transitions"][command.cause.value if command is not None else "FORGOTTEN"] += 1
        if command is not None and command.cause.value == "TRIP":
            result["trips"][command.scope.value] += 1
    for _, value, _ in _flat(found["signals"]):
        signal = decode(value, "Signal")
        result["signals"][f"{signal.scope.value} {signal.level.value}"] += 1
    for _, value, _ in _flat(found["dead-letters"]):
        result["dead letters"][decode(value, "DeadLetter").reason.value] += 1
    return result


def _flat(partitions: list[list[Row]]) -> list[Row]:
    return [row for rows in partitions for row in rows]


def _at(rows: list[Row], index: int) -> Row | None:
    return rows[index] if index < len(rows) else None


def _shown(topic: str, row: Row | None) -> str:
    if row is None:
        return "nothing"
    key, value, headers = row
    declared = by_name(topic)
    assert declared is not None
    record = Decoder().decode(value, declared.record) if value is not None else None
    return f"key {key!r}, {record!r}, headers {headers!r}, bytes {value.hex() if value is not None else None}"
