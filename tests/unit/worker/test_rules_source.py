"""Where rules come from: of the topic the newest record that can be used, whatever is away."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import CapturingLogger

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.errors import UnreachableError
from fuseboard_schemas.records import Rules
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.rules.compile import PACKAGED, version_of
from fuseboard_streams.worker import rules_source
from fuseboard_streams.worker.rules_source import RULES_KEY, RulesSource

PACKAGED_VERSION = version_of(PACKAGED.read_bytes())


def text(number: int) -> str:
    return f"version: 1\nblast_radius: {{at_least: {number}}}\n"


def version(number: int) -> str:
    return version_of(text(number).encode())


@dataclass
class Message:
    """A record of the topic."""

    at: int
    body: bytes | None
    number: int = 0
    name: bytes = RULES_KEY.encode()
    problem: Any = None

    def value(self) -> bytes | None:
        return self.body

    def key(self) -> bytes:
        return self.name

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000 + self.at

    def error(self) -> Any:
        return self.problem


def record(at: int, number: int = 0, *, body: str | None = None) -> Message:
    """The rules of a number, applied at a time."""
    said = text(number) if body is None else body
    rules = Rules(tenant="default", ts=at, version=version_of(said.encode()), text=said, applied_by="anna")
    return Message(at, Encoder("Rules").encode(rules))


@dataclass
class Broker:
    """Clients of a broker with the topic ``rules``, of one partition, or without it."""

    records: list[Message] = field(default_factory=list)
    exists: bool = True
    assigned: bool = False

    def reader(self, *, committed: bool) -> Broker:
        assert committed
        return self

    def list_topics(self, topic: str, timeout: float) -> Any:
        partitions = {0: None} if self.exists else {}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=partitions)})

    def assign(self, partitions: list[Any]) -> None:
        assert len(partitions) == 1
        self.assigned = True

    def poll(self, timeout: float) -> Message:
        if self.records:
            return self.records.pop(0)
        return Message(0, None, problem=SimpleNamespace(code=lambda: KafkaError._PARTITION_EOF))

    def consume(self, count: int, timeout: float) -> list[Message]:
        found, self.records = self.records[:count], self.records[count:]
        return found


class Registry:
    """A registry that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self._packaged = PackagedResolver()

    def __getattr__(self, name: str) -> Any:
        def ask(*given: Any) -> Any:
            self.asked += 1
            if self.away:
                raise UnreachableError("the registry is away")
            return getattr(self._packaged, name)(*given)

        return ask


@dataclass
class Subject:
    """A source, and what it was told and tells."""

    broker: Broker = field(default_factory=Broker)
    registry: Registry = field(default_factory=Registry)
    log: CapturingLogger = field(default_factory=CapturingLogger)
    refused: int = 0

    def __post_init__(self) -> None:
        self.source = RulesSource(
            self.broker, "rules", None, FailureParams(), self.registry, self.log, self._count,  # type: ignore[arg-type]
        )  # fmt: skip

    def _count(self) -> None:
        self.refused += 1

    @property
    def wanted(self) -> str:
        return self.source.wanted.rules.version

    def said(self, event: str) -> list[dict[str, Any]]:
        return [call.kwargs for call in self.log.calls if call.args == (event,)]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The texts that were compiled."""
    found: list[bytes] = []

    def counted(given: bytes, source: str, base: FailureParams) -> Any:
        found.append(given)
        return before(given, source, base)

    before = rules_source.compiled
    monkeypatch.setattr(rules_source, "compiled", counted)
    return found


def test_only_the_newest_record_is_compiled(compiled: list[bytes]) -> None:
    subject = Subject()
    compiled.clear()
    subject.broker.records = [record(i, i) for i in range(1, 300)]
    subject.source.start(1)
    assert (subject.wanted, compiled) == (version(299), [text(299).encode()])
    subject.broker.records = [record(300 + i, 300 + i) for i in range(9)]
    subject.source.look(1.0)
    assert (subject.wanted, compiled[1:]) == (version(308), [text(308).encode()])


def test_what_cannot_be_used_leaves_the_newest_before_it() -> None:
    subject = Subject()
    wrong = [record(3, body="version: 2"), Message(4, b"junk"), Message(5, b"x", name=b"other")]
    subject.broker.records = [record(1, 1), record(2, 2), *wrong]
    subject.source.start(1)
    assert (subject.wanted, subject.refused) == (version(2), 3)
    subject.broker.records = [record(6, body="version: 2")]
    subject.source.look(1.0)
    assert (subject.wanted, subject.refused) == (version(2), 4)


def test_a_tombstone_brings_the_packaged_rules_back() -> None:
    subject = Subject()
    subject.broker.records = [record(1, 1), Message(2, None)]
    subject.source.start(1)
    assert subject.wanted == PACKAGED_VERSION


def test_a_registry_that_is_away_leaves_the_rules_as_they_are() -> None:
    # It ended the worker.
    subject = Subject()
    subject.broker.records = [record(1, 1)]
    subject.source.start(1)
    subject.registry.away = True
    subject.source._decoder = type(subject.source._decoder)(subject.registry)  # type: ignore[arg-type]
    unknown = Message(2, b"\0\0\0\0\x07" + b"x" * 40)
    subject.broker.records = [unknown]
    subject.source.look(1.0)
    assert subject.wanted == version(1)
    (told,) = subject.said("rules_wait_for_registry")
    assert told["running"] == version(1)
    asked = subject.registry.asked
    subject.source.look(10.0)
    assert subject.registry.asked == asked
    subject.source.look(32.0)
    assert subject.registry.asked > asked
    # It answers again, and the record is what the packaged schemas know.
    subject.registry.away = False
    unknown.body = record(2, 2).body
    subject.source.look(63.0)
    assert (subject.wanted, subject.refused) == (version(2), 0)


def test_at_the_start_a_registry_that_is_away_is_told() -> None:
    subject = Subject()
    subject.registry.away = True
    subject.broker.records = [Message(2, b"\0\0\0\0\x07" + b"x" * 40)]
    with pytest.raises(UnreachableError):
        subject.source.start(1)


def test_without_the_topic_it_is_told_once() -> None:
    subject = Subject(Broker(exists=False))
    subject.source.start(1)
    subject.source.look(1.0)
    (told,) = subject.said("rules_topic_missing")
    assert (told["topic"], told["running"]) == ("rules", PACKAGED_VERSION)
    assert not subject.broker.assigned


def test_it_catches_up_with_what_a_shard_runs() -> None:
    # The older rules were put back for as long as nobody had looked, which released what only the newer ones hold.
    subject = Subject()
    subject.broker.records = [record(1, 1)]
    subject.source.start(1)
    assert subject.source.wanted.offset == 1
    assert not subject.source.catch_up(1, 5)
    subject.broker.records = [record(i, i) for i in range(2, 300)]
    assert subject.source.catch_up(250, 5)
    assert (subject.wanted, subject.source.wanted.offset) == (version(299), 299)
    assert not subject.source.catch_up(250, 5)
    assert subject.said("rules_behind_shards") == []


def test_a_record_that_is_not_there_any_more_is_waited_for_once() -> None:
    subject = Subject()
    subject.source.start(1)
    assert subject.source.catch_up(250, 5)
    (told,) = subject.said("rules_behind_shards")
    assert (told["expected"], told["found"]) == (250, -1)
    assert not subject.source.catch_up(250, 5)
    assert subject.wanted == PACKAGED_VERSION
    subject.broker.records = [record(1, 1)]
    subject.source.look(1.0)
    assert subject.wanted == version(1)
