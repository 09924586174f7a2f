"""What an order about a tenant hears of the guard's incident; a broker is played by a list of messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import breaker_id, home_partition
from fuseboard_schemas.records import OverrideKind, Scope, Signal, SignalLevel
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.cli import kafka, orders
from tests.cli.support import run
from tests.unit.core.test_guard import fleet_of, order

PARTITIONS = 4
HOME = home_partition(Scope.TENANT, "default", None, None, PARTITIONS)


class Broker:
    """Answers what a `Reader` is asked, with messages of one topic."""

    resolver = PackagedResolver()

    def __init__(self, topic: str, values: list[bytes]) -> None:
        self.messages = [
            SimpleNamespace(
                topic=lambda: topic, value=lambda value=value: value, offset=lambda: 0, partition=lambda: HOME
            )
            for value in values
        ]
        self.assigned: list[tuple[str, int]] = []

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def partitions(self, topic: str) -> list[int]:
        assert topic
        return list(range(PARTITIONS))

    def watermarks(self, topic: str, partition: int) -> Any:
        assert (bool(topic), partition) == (True, HOME)
        return SimpleNamespace(low=0, high=0)

    def assign_all(self, several: list[Any]) -> None:
        self.assigned = [(each.topic, each.partition) for each in several]

    def poll(self, _wait_s: float) -> tuple[list[Any], None]:
        messages = [each for each in self.messages if (each.topic(), HOME) in self.assigned]
        self.messages = []
        return messages, None


def ended(kind: OverrideKind) -> Signal:
    """The guard's own last word."""
    fleet = fleet_of(5, 5)
    fleet.run(80)
    fleet.order(order(kind))
    (signal,) = [each for each in fleet.signals(Scope.TENANT) if each.level is SignalLevel.INFO]
    return signal


def given(
    monkeypatch: pytest.MonkeyPatch, kind: OverrideKind, change: Callable[[Signal], Signal], wait: str, *more: str
) -> Any:
    signal = change(ended(kind))
    broker = Broker("fuseboard.signals", [Encoder("Signal").encode(signal)])
    monkeypatch.setattr(kafka, "Reader", lambda _connection: broker)
    monkeypatch.setattr(orders, "send_one", lambda *_: 7)
    name = {OverrideKind.RESET: "reset", OverrideKind.ACKNOWLEDGE: "ack"}[kind]
    about = breaker_id(Scope.TENANT, "default")
    return run(
        "breakers",
        name,
        about,
        "--reason",
        "seen",
        "--person",
        "kim",
        "--request-id",
        f"o-{kind}",
        "--wait",
        wait,
        *more,
    )


@pytest.mark.parametrize("kind", [OverrideKind.RESET, OverrideKind.ACKNOWLEDGE])
def test_an_incident_that_has_ended_is_an_answer(monkeypatch: pytest.MonkeyPatch, kind: OverrideKind) -> None:
    result = given(monkeypatch, kind, lambda signal: signal, "600")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("kim has ended the incident in which 4 actors were not tripped")
    found = json.loads(given(monkeypatch, kind, lambda signal: signal, "600", "--json").stdout)
    assert (found["command"], found["refused"]) == (None, None)
    assert (found["ended"]["rule"], found["ended"]["event_id"]) == ("blast-radius", f"o-{kind}")


@pytest.mark.parametrize(
    "change",
    [lambda signal: replace(signal, event_id="another"), lambda signal: replace(signal, source="judge")],
    ids=["of another order", "of somebody else"],
)
def test_what_others_say_is_none(monkeypatch: pytest.MonkeyPatch, change: Callable[[Signal], Signal]) -> None:
    result = given(monkeypatch, OverrideKind.RESET, change, "0.05")
    assert result.exit_code == 1
    assert "no answer came" in result.stdout
