"""Looking up which breakers can be probed takes no longer than it may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fuseboard_schemas.errors import UnreachableError
from fuseboard_streams.cli.probeable import Probeable
from tests.cli import samples


class SlowReader:
    """Every call takes a second to read; the one at ``broken`` cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.now = 100.0
        self.looked_up: list[int] = []
        self._broken = broken

    def partitions(self, topic: str) -> list[int]:
        return [0]

    def record_at(self, topic: str, partition: int, offset: int, **_: Any) -> None:
        self.now += 1.0
        self.looked_up.append(offset)
        if offset == self._broken:
            raise UnreachableError("no leader")


def tripped(count: int) -> list[Any]:
    return [
        replace(samples.command(), breaker_id=f"{samples.BREAKER}{i}", event_id=f"e{i}", source_offset=i)
        for i in range(count)
    ]


def looked_up(reader: SlowReader, seconds: float) -> Probeable:
    probeable, commands = Probeable("t."), tripped(5)
    for command in commands:
        probeable.note(command)
    found = probeable.of(commands, reader, seconds, lambda: reader.now)  # type: ignore[arg-type]
    assert found == dict.fromkeys((command.breaker_id for command in commands), None)
    return probeable


def test_it_stops_when_the_time_is_up_and_goes_on_the_next_time() -> None:
    reader = SlowReader()
    probeable = looked_up(reader, 2.5)
    assert reader.looked_up == [0, 1, 2]
    probeable.of(tripped(5), reader, 60.0, lambda: reader.now)  # type: ignore[arg-type]
    assert reader.looked_up == [0, 1, 2, 3, 4]


def test_after_one_that_cannot_be_read_no_more_are_tried() -> None:
    reader = SlowReader(broken=1)
    looked_up(reader, 60.0)
    assert reader.looked_up == [0, 1]
